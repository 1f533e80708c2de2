"""A compaction's output: a new segment's files beside the old ones, with the ending .cleaned, written past the page cache."""
from libc.stdint cimport int64_t, uint8_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.compactwork cimport Work

cdef int output_open(Work *w, int64_t base_offset) noexcept nogil
# Copies one batch. EFBIG: the segment would be larger than one may be.
cdef int output_add(Work *w, const uint8_t *p, const BatchInfo *info) noexcept nogil
# Makes the new segment's files durable, all but their names.
cdef int output_end(Work *w, int64_t *size) noexcept nogil
# Removes what there is of them.
cdef void output_drop(Work *w, int64_t base_offset) noexcept nogil
