"""A store on a ring and a pool of its own, and the loop that the calling thread drives. For tests and offline tools."""
from libc.stdint cimport int64_t
from fastlog.native.log cimport Relics, Store
from fastlog.native.ring cimport Ring
from fastlog.native.tape cimport Tape
from fastlog.native.work cimport Home, Pool


cdef class Drive:
    cdef Ring *ring
    cdef Pool *pool
    cdef Home *home
    cdef Store *store
    cdef Relics *relics
    cdef Tape tape
    cdef int64_t now_ns                 # with a tape
    cdef readonly list logs             # LocalLog
    cdef readonly str why
    # As a killed process: nothing is written, the arena stays.
    cdef void drop(self) noexcept
    # Ends cleanly; all logs were closed.
    cdef int finish(self) except -1
    # One turn of the loop that waits up to wait_ns, or not at all when *done.
    cdef int64_t turn(self, int64_t wait_ns, const bint *done=*) except -1
    cdef int turn_taped(self, const bint *done) except -1
    # Turns until *done. Raises TimeoutError.
    cdef int until(self, bint *done, double seconds=*) except -1
