"""A disk that remembers; see tape.pyx. The door of logdrive, which runs stores on it."""
from fastlog.native.ring cimport Op, RingEngine


cdef class Tape:
    cdef readonly list events
    cdef readonly list violations
    cdef public object choose
    cdef public object fault
    cdef public object lies
    cdef public bint opening
    cdef public object donor
    cdef RingEngine engine
    cdef list waiting
    cdef list late
    cdef list ends
    cdef long serial
    cdef long last_write
    cdef object cut
    cdef const RingEngine *given(self) noexcept
    cdef int failing(self, str what, name) except -1
    cdef int submitted(self, Op *op) except -1
    cdef int step(self) except -1
