"""See logpump.pxd."""
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from fastlog.native.batch cimport PEEK_OK, BatchInfo, batch_peek
from fastlog.native.locallog cimport LocalLog
from fastlog.native.log cimport Append, Store, log_append, store_tick
from fastlog.native.ring cimport ring_wait
from fastlog.native.store cimport clock_ns
from fastlog.native.work cimport work_reap


cdef struct PumpRun:
    int64_t left
    int64_t failed
    int64_t busy
    Pump *idle


cdef struct Pump:                   # one of the appends that a benchmark keeps under way
    Append append                   # first
    PumpRun *run
    Pump *next


cdef void pump_done(Append *a) noexcept nogil:
    cdef Pump *p = <Pump *> a
    p.run.busy -= 1
    p.run.failed += a.error != 0
    p.next = p.run.idle
    p.run.idle = p


cdef void pump_start(Store *store, PumpRun *run, const BatchInfo *info) noexcept nogil:
    """Starts what may be under way, each append once: those that end at once wait for the next turn."""
    cdef Pump *p = run.idle
    cdef Pump *following
    run.idle = NULL
    while p != NULL and run.left > 0:
        following = p.next
        p.append.info = info[0]
        p.append.append_time = -1
        run.left -= 1
        run.busy += 1
        log_append(store, &p.append)
        p = following


cdef void pump_turn(Drive s, const PumpRun *run) noexcept nogil:
    cdef int64_t due = store_tick(s.store, clock_ns())
    ring_wait(s.ring, 0 if run.idle != NULL and run.left > 0 else due)
    work_reap(s.home)


cdef int64_t log_pump(Drive s, list logs, batch, int64_t count, int acks, int in_flight) except -1:
    cdef const uint8_t[::1] data = batch
    cdef int n = <int> len(logs) * in_flight
    cdef PumpRun run
    cdef Pump *pumps = <Pump *> calloc(n, sizeof(Pump))
    cdef BatchInfo info
    cdef int i
    if pumps == NULL:
        raise MemoryError
    if batch_peek(&data[0], <size_t> data.shape[0], &info) != PEEK_OK or info.size != data.shape[0]:
        free(pumps)
        raise ValueError("not one whole record batch")
    run.left = count
    run.failed = 0
    run.idle = NULL
    for i in range(n):
        pumps[i].run = &run
        pumps[i].append.part = (<LocalLog> logs[i % len(logs)]).open_part()
        pumps[i].append.data = <uint8_t *> malloc(<size_t> info.size)
        if pumps[i].append.data == NULL:
            raise MemoryError
        memcpy(pumps[i].append.data, &data[0], <size_t> info.size)
        pumps[i].append.acks = acks
        pumps[i].append.done = pump_done
        pumps[i].next = run.idle
        run.idle = &pumps[i]
    run.busy = 0
    with nogil:
        while run.left > 0 or run.busy:
            pump_start(s.store, &run, &info)
            pump_turn(s, &run)
    for i in range(n):
        free(pumps[i].append.data)
    free(pumps)
    return run.failed
