"""The reads of a Fetch request: asked of the partitions' owners, pinned, copied out where too much is, given back."""
from fastlog.native.fetchwork cimport FetchRead, FetchWork
from fastlog.native.net cimport Shard
from fastlog.native.session cimport FetchPart

cdef bint fetch_read_start(FetchWork *work, FetchPart *p) noexcept nogil        # False: no memory; `read_done` may be called in here
# Too much of the log's memory is pinned by readers, or for too long: takes a copy and lets go, so that appends don't run out of it.
# Copies count as receive buffers do. False: no room for one.
cdef bint fetch_read_copy(FetchWork *work, FetchRead *rd) noexcept nogil
# The first batch of all may be longer than its reservation, which is known late where it came from a disk or another shard: reads that
# then have no room are taken out of the answer, the newest first. None may be outstanding.
cdef void fetch_reads_fit(FetchWork *work) noexcept nogil
cdef void fetch_read_release(FetchWork *work, FetchRead *rd) noexcept nogil     # pins go back; outstanding until another shard has them
cdef void fetch_reads_release(FetchWork *work) noexcept nogil                   # all; frees the reads where nothing is outstanding
cdef void fetch_reads_free(FetchWork *work) noexcept nogil                      # none may be out
# Mail, on the owner's shard
cdef void fetch_read_here(Shard *owner, void *what) noexcept nogil
cdef void fetch_release_here(Shard *owner, void *what) noexcept nogil
# Mail, on the connection's shard
cdef void fetch_read_done(Shard *home, void *what) noexcept nogil
cdef void fetch_released(Shard *home, void *what) noexcept nogil
