"""ListOffsets (API key 2, versions 1 to 11): log start, end, and look-up by time (KIP-79, KIP-734)."""
from fastlog.native.net cimport Request, Shard

cdef void offsets_start(Request *r) noexcept nogil
cdef void offsets_find_here(Shard *owner, void *what) noexcept nogil        # MAIL_TIME: on the owner's shard
cdef void offsets_found(Shard *home, void *what) noexcept nogil             # MAIL_TIMED: back home
cdef void offsets_free(Shard *shard) noexcept nogil
