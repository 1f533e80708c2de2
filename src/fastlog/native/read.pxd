"""Reading a log: from the chunks that hold it, by reference; what is not in memory is loaded first, ahead when a reader goes on in order.

A read is tried; if something is missing it is asked for and the read waits; when that arrived the read is tried again, from the start.
"""
from libc.stdint cimport int16_t
from fastlog.native.log cimport Pin, Read
from fastlog.native.store cimport LogState, StoreState

cdef void read_start(LogState *log, Read *r) noexcept nogil
# Tries waiting reads again.
cdef void reads_retry(LogState *log) noexcept nogil
cdef void reads_fail(LogState *log, int16_t error) noexcept nogil
cdef void read_release(StoreState *s, Read *r) noexcept nogil
# Has logs whose reads found no chunk or Load try again.
cdef void reads_unstarve(StoreState *s) noexcept nogil
cdef void leave_starved(LogState *log) noexcept nogil
cdef void loads_free(StoreState *s) noexcept nogil
