"""Finding the offset of a time: by the segments' largest timestamps, the time index, then batch headers, then the records of one batch."""
from libc.stdint cimport int16_t
from fastlog.native.log cimport TimeQuery
from fastlog.native.store cimport LogState

cdef void timequery_start(LogState *log, TimeQuery *q) noexcept nogil
# Tries queries again that wait for an opening or a look-up.
cdef void timequeries_retry(LogState *log) noexcept nogil
cdef void timequeries_fail(LogState *log, int16_t error) noexcept nogil
