"""The search for the end of a log that was not closed in order: see the head of recovery.pxd."""
from fastlog.native.directory cimport Listing
from fastlog.native.recovery cimport Recovery

# 0, or -1 with `error` and `why` set.
cdef int recover_end(Recovery *r, Listing *l) noexcept nogil
