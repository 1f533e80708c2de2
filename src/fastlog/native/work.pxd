"""The worker pool: bounded nogil threads for what takes long (over about 200 us), never run on a shard and never under the GIL.

A Job lives in a struct of its owner and stays in place until its `done` was called. `run` is called on a worker thread and may
block; `done` is called on the owner's thread, from `work_reap` on the Home that submitted it. A Home belongs to one thread and
carries the Ring to wake. The queue is unbounded in jobs but every owner bounds how many it has out.
Two lanes: WORK_SOON (a request waits for it) is always taken before WORK_LATER (zeroing, checks, retention).
"""
from libc.stdint cimport uint8_t, uint64_t
from fastlog.native.ring cimport Ring

ctypedef void (*JobCall)(Job *job) noexcept nogil

cdef enum:
    WORK_SOON = 0
    WORK_LATER = 1

cdef struct Job:
    JobCall run
    JobCall done
    Home *home
    Job *next
    uint8_t lane

cdef struct Home                    # opaque
cdef struct Pool                    # opaque

# 0 or -errno. Without threads, jobs are run by pool_step, and those still queued when the pool is closed never run: for simulations.
cdef int pool_open(Pool **out, int threads) noexcept nogil
cdef bint pool_step(Pool *pool, int lane) noexcept nogil        # runs the oldest job of a lane on the calling thread; False: there is none
cdef void pool_close(Pool *pool) noexcept nogil                 # finishes queued jobs, joins; no done is called after it
cdef Home *home_open(Ring *ring) noexcept nogil                 # NULL: out of memory
cdef void home_close(Home *home) noexcept nogil                 # no job of it may be out
cdef void work_submit(Pool *pool, Home *home, Job *job, int lane) noexcept nogil
cdef int work_reap(Home *home) noexcept nogil                   # runs done of finished jobs; their number
cdef uint64_t work_pending(const Home *home) noexcept nogil     # jobs out
