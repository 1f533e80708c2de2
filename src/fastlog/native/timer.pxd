"""Timers of one shard: a binary heap of Timers that live in their owners' structs.

A Timer stays in place while armed. `fired` is called once, from `timers_run`, with the timer disarmed.
"""
from libc.stdint cimport int32_t, int64_t

cdef struct Timer:
    int64_t at_ns                   # CLOCK_MONOTONIC
    void (*fired)(Timer *t) noexcept nogil
    int32_t slot                    # in the heap, counted from 1; 0: not armed

cdef struct Timers:
    Timer **heap                    # heap[1] is the earliest
    int32_t n
    int32_t capacity

cdef void timers_init(Timers *timers) noexcept nogil
cdef void timers_free(Timers *timers) noexcept nogil
cdef int timer_arm(Timers *timers, Timer *t, int64_t at_ns) noexcept nogil      # 0, or -1: no memory
cdef void timer_disarm(Timers *timers, Timer *t) noexcept nogil
cdef int timers_run(Timers *timers, int64_t now_ns) noexcept nogil              # number fired

cdef inline int64_t timers_next(const Timers *timers) noexcept nogil:
    """When the earliest is due, or -1."""
    return timers.heap[1].at_ns if timers.n else -1
