"""A compaction's input: a segment read from its start to its end, past the page cache. Where something is wrong with it, DAMAGED."""
from libc.stdint cimport int64_t, uint8_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.compactwork cimport Part, Work

cdef int input_open(Work *w, const Part *part) noexcept nogil
cdef void input_close(Work *w) noexcept nogil
# The batch at a file position, checked; its first offset may not be below `offset`. It stays in memory until the next one is asked for.
cdef int input_batch(Work *w, int64_t at, int64_t offset, const uint8_t **p, BatchInfo *info) noexcept nogil
