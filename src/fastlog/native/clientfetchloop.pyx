"""See clientfetchloop.pxd."""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memset

from fastlog.native.clientfetch cimport FETCH_HANDED, FETCH_UP, Fetcher, Source, fetcher_announce, fetcher_poke, fetcher_wake
from fastlog.native.clientfetchanswer cimport fetch_answer
from fastlog.native.clientfetchask cimport fetch_lose, fetch_plan
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, EPOLLOUT, clock_us, close, epoll_ready, eventfd_clear, link_flush, link_next, \
    link_open, link_receive
from fastlog.native.clientread cimport Bytes
from fastlog.native.threads cimport pthread_cond_broadcast, pthread_join, pthread_mutex_lock, pthread_mutex_unlock, thread_start


cdef int fetcher_start(Fetcher *f) noexcept nogil:
    cdef int error = thread_start(&f.thread, <void *(*)(void *) noexcept nogil> fetcher_run, f, b"fastlog-fetch")
    f.started = error == 0
    return error


cdef void fetcher_stop(Fetcher *f) noexcept nogil:
    pthread_mutex_lock(&f.lock)
    f.stopping = True
    fetcher_wake(f)
    fetcher_poke(f)
    pthread_cond_broadcast(&f.control)
    pthread_mutex_unlock(&f.lock)
    if f.started:
        pthread_join(f.thread, NULL)
        f.started = False


cdef void serve(Fetcher *f, Source *s, unsigned int events, int64_t now, Bytes *scratch) noexcept nogil:
    cdef const uint8_t *frame
    cdef size_t n
    cdef int error = 0
    if s.state != FETCH_UP:
        return
    if events & EPOLLOUT or events == 0:
        error = link_flush(&s.link)
    if error == 0 and events & ~<unsigned int> EPOLLOUT:
        error = link_receive(&s.link)
    while s.state == FETCH_UP and link_next(&s.link, &frame, &n):
        if not fetch_answer(f, s, frame, n, now, scratch):
            error = -1
            break
    if s.state == FETCH_UP and (error < 0 or (s.busy and now - max(s.sent_us, s.link.heard_us) >
                                              f.set.request_us + <int64_t> f.set.max_wait_ms * 1000)):
        pthread_mutex_lock(&f.lock)
        fetch_lose(f, s, now)
        pthread_mutex_unlock(&f.lock)


cdef void adopt(Fetcher *f, int64_t now) noexcept nogil:
    cdef int i
    cdef Source *s
    for i in range(f.sources_n):
        s = f.sources[i]
        if s.state == FETCH_HANDED:
            s.state = FETCH_UP
            s.busy = False
            # an answer is as large as was asked for, or as its first batch
            if link_open(&s.link, s.fd, s.node, f.epoll, <size_t> f.set.max_bytes + (256 << 20)) < 0:
                fetch_lose(f, s, now)
            s.fd = -1


cdef void *fetcher_run(Fetcher *f) noexcept nogil:
    cdef void *ready[64]
    cdef unsigned int events[64]
    cdef int i, n
    cdef int64_t now, next
    cdef Bytes scratch
    memset(&scratch, 0, sizeof(Bytes))
    pthread_mutex_lock(&f.lock)
    while not f.stopping:
        now = clock_us(CLOCK_MONOTONIC)
        adopt(f, now)
        next = fetch_plan(f, now)
        f.sleeping = True
        pthread_mutex_unlock(&f.lock)
        for i in range(f.sources_n):
            if f.sources[i].link.pieces_n > f.sources[i].link.pieces_first and not f.sources[i].link.wants_write:
                serve(f, f.sources[i], 0, now, &scratch)
        n = epoll_ready(f.epoll, ready, events, 64, <int> (max(<int64_t> 0, next - now + 999) // 1000))
        f.sleeping = False
        now = clock_us(CLOCK_MONOTONIC)
        for i in range(max(n, 0)):
            if ready[i] == NULL:
                eventfd_clear(f.wake_fd)
            else:
                serve(f, <Source *> ready[i], events[i], now, &scratch)
        if n == 0:
            for i in range(f.sources_n):
                serve(f, f.sources[i], 0, now, &scratch)
        pthread_mutex_lock(&f.lock)
    now = clock_us(CLOCK_MONOTONIC)
    for i in range(f.sources_n):
        if f.sources[i].state == FETCH_UP:
            fetch_lose(f, f.sources[i], now)
        elif f.sources[i].state == FETCH_HANDED:
            close(f.sources[i].fd)
    pthread_cond_broadcast(&f.control)
    fetcher_announce(f)
    pthread_mutex_unlock(&f.lock)
    free(scratch.p)
    return NULL
