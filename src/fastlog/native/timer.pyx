"""See timer.pxd."""
from libc.stdlib cimport free, realloc


cdef void timers_init(Timers *timers) noexcept nogil:
    timers.heap = NULL
    timers.n = 0
    timers.capacity = 0


cdef void timers_free(Timers *timers) noexcept nogil:
    free(timers.heap)
    timers_init(timers)


cdef inline void place(Timers *timers, Timer *t, int32_t slot) noexcept nogil:
    timers.heap[slot] = t
    t.slot = slot


cdef void rise(Timers *timers, Timer *t, int32_t slot) noexcept nogil:
    while slot > 1 and timers.heap[slot >> 1].at_ns > t.at_ns:
        place(timers, timers.heap[slot >> 1], slot)
        slot >>= 1
    place(timers, t, slot)


cdef void sink(Timers *timers, Timer *t, int32_t slot) noexcept nogil:
    cdef int32_t child
    while True:
        child = slot << 1
        if child > timers.n:
            break
        if child < timers.n and timers.heap[child + 1].at_ns < timers.heap[child].at_ns:
            child += 1
        if timers.heap[child].at_ns >= t.at_ns:
            break
        place(timers, timers.heap[child], slot)
        slot = child
    place(timers, t, slot)


cdef int timer_arm(Timers *timers, Timer *t, int64_t at_ns) noexcept nogil:
    cdef int32_t capacity
    cdef Timer **heap
    if t.slot:
        timer_disarm(timers, t)
    if timers.n + 2 > timers.capacity:
        capacity = timers.capacity * 2 if timers.capacity else 64
        heap = <Timer **> realloc(timers.heap, capacity * sizeof(Timer *))
        if heap == NULL:
            return -1
        timers.heap = heap
        timers.capacity = capacity
    t.at_ns = at_ns
    timers.n += 1
    rise(timers, t, timers.n)
    return 0


cdef void timer_disarm(Timers *timers, Timer *t) noexcept nogil:
    cdef Timer *last
    cdef int32_t slot = t.slot
    if not slot:
        return
    t.slot = 0
    last = timers.heap[timers.n]
    timers.n -= 1
    if last == t:
        return
    if slot > 1 and timers.heap[slot >> 1].at_ns > last.at_ns:
        rise(timers, last, slot)
    else:
        sink(timers, last, slot)


cdef int timers_run(Timers *timers, int64_t now_ns) noexcept nogil:
    cdef Timer *t
    cdef int fired = 0
    while timers.n and timers.heap[1].at_ns <= now_ns:
        t = timers.heap[1]
        timer_disarm(timers, t)
        t.fired(t)
        fired += 1
    return fired
