"""See clientfetch.pxd: partitions, brokers and what was fetched. Requests are clientfetchask's, answers clientfetchanswer's."""
from libc.stdint cimport int16_t, int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from fastlog.native.clientlink cimport EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, close, cond_init, epoll_create1, \
    epoll_set, eventfd, eventfd_set
from fastlog.native.clientread cimport Chunk, chunk_unref
from fastlog.native.threads cimport pthread_cond_broadcast, pthread_cond_destroy, pthread_mutex_destroy, pthread_mutex_init


cdef Fetcher *fetcher_make(const FetchSettings *settings, const char *client_id, int16_t client_id_n) noexcept nogil:
    cdef Fetcher *f = <Fetcher *> calloc(1, sizeof(Fetcher))
    if f == NULL:
        return NULL
    f.set = settings[0]
    f.client_id = <char *> malloc(client_id_n + 1)
    f.epoll = epoll_create1(EPOLL_CLOEXEC)
    f.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    f.ready_fd = -1
    pthread_mutex_init(&f.lock, NULL)
    cond_init(&f.ready)
    cond_init(&f.control)
    if f.client_id == NULL or f.epoll < 0 or f.wake_fd < 0 or epoll_set(f.epoll, EPOLL_CTL_ADD, f.wake_fd, EPOLLIN, NULL) < 0:
        fetcher_free(f)
        return NULL
    memcpy(f.client_id, client_id, client_id_n)
    f.client_id_n = client_id_n
    return f


cdef void fetcher_free(Fetcher *f) noexcept nogil:
    cdef int i
    cdef Chunk *c
    while f.first != NULL:
        c = f.first
        f.first = c.next
        chunk_unref(c)
    for i in range(f.topics_n):
        free(f.names[i])
    free(f.names)
    free(f.name_lengths)
    for i in range(f.places_n):
        free(f.places[i])
    free(f.places)
    for i in range(f.sources_n):
        free(f.sources[i].request)
        free(f.sources[i].wishes)
        free(f.sources[i])
    free(f.sources)
    if f.epoll >= 0:
        close(f.epoll)
    if f.wake_fd >= 0:
        close(f.wake_fd)
    if f.ready_fd >= 0:
        close(f.ready_fd)
    pthread_mutex_destroy(&f.lock)
    pthread_cond_destroy(&f.ready)
    pthread_cond_destroy(&f.control)
    free(f.client_id)
    free(f)


cdef void fetcher_wake(Fetcher *f) noexcept nogil:
    if f.sleeping:
        f.sleeping = False
        eventfd_set(f.wake_fd)


cdef void fetcher_announce(Fetcher *f) noexcept nogil:
    pthread_cond_broadcast(&f.ready)
    if f.ready_fd >= 0:
        eventfd_set(f.ready_fd)


cdef void fetcher_poke(Fetcher *f) noexcept nogil:
    f.poked = True
    fetcher_announce(f)


cdef void fetcher_ask(Fetcher *f, int what) noexcept nogil:
    if not f.wanted & what:
        f.wanted |= what
        pthread_cond_broadcast(&f.control)


cdef int32_t fetcher_topic(Fetcher *f, const char *name, int16_t n) noexcept nogil:
    """The topic's number, made when it is new; -1 without memory."""
    cdef int32_t i
    cdef char **names
    cdef int16_t *lengths
    for i in range(f.topics_n):
        if f.name_lengths[i] == n and memcmp(f.names[i], name, n) == 0:
            return i
    names = <char **> realloc(f.names, (f.topics_n + 1) * sizeof(char *))
    if names == NULL:
        return -1
    f.names = names
    lengths = <int16_t *> realloc(f.name_lengths, (f.topics_n + 1) * sizeof(int16_t))
    if lengths == NULL:
        return -1
    f.name_lengths = lengths
    names[f.topics_n] = <char *> malloc(n + 1)
    if names[f.topics_n] == NULL:
        return -1
    memcpy(names[f.topics_n], name, n)
    lengths[f.topics_n] = n
    f.topics_n += 1
    return f.topics_n - 1


cdef Place *fetcher_place(Fetcher *f, int32_t topic, int32_t number) noexcept nogil:
    cdef int32_t i
    cdef Place **grown
    cdef Place *p
    for i in range(f.places_n):
        if f.places[i].topic == topic and f.places[i].number == number:
            return f.places[i]
    grown = <Place **> realloc(f.places, (f.places_n + 1) * sizeof(void *))
    if grown == NULL:
        return NULL
    f.places = grown
    p = <Place *> calloc(1, sizeof(Place))
    if p == NULL:
        return NULL
    p.topic = topic
    p.number = number
    p.leader = p.epoch = -1
    p.position = p.taken = p.end = -1
    p.position_epoch = p.taken_epoch = p.proven = -1
    grown[f.places_n] = p
    f.places_n += 1
    return p


cdef Source *fetcher_source(Fetcher *f, int32_t node) noexcept nogil:
    cdef int i
    cdef Source *s
    for i in range(f.sources_n):
        if f.sources[i].node == node:
            return f.sources[i]
    if f.sources == NULL:
        f.sources = <Source **> calloc(1024, sizeof(void *))
    if f.sources == NULL or f.sources_n == 1024:
        return NULL
    s = <Source *> calloc(1, sizeof(Source))
    if s == NULL:
        return NULL
    s.node = node
    s.link.fd = s.fd = -1
    f.sources[f.sources_n] = s
    f.sources_n += 1
    return s


cdef bint fetcher_doubtful(const Place *p) noexcept nogil:
    return p.position_epoch >= 0 and p.epoch >= 0 and p.epoch != p.position_epoch and p.epoch != p.proven


cdef void fetcher_move(Fetcher *f, Place *p, int64_t offset, int32_t epoch) noexcept nogil:
    """What was fetched for where it was before is dropped when it comes to the front; it counts no more."""
    p.generation += 1
    p.position = p.taken = offset
    p.position_epoch = p.taken_epoch = epoch
    p.proven = -1
    p.answered = False
    p.error = 0
    p.again_us = 0
    f.buffered -= p.buffered
    p.buffered = 0
    fetcher_wake(f)


cdef Chunk *fetcher_take(Fetcher *f) noexcept nogil:
    cdef Chunk **at = &f.first
    cdef Chunk *before = NULL
    cdef Chunk *c
    cdef Place *p
    while at[0] != NULL:
        c = at[0]
        p = <Place *> c.part
        if c.generation == p.generation and p.assigned and p.paused:
            before = c
            at = &c.next
            continue
        at[0] = c.next
        if f.last == c:
            f.last = before
        c.next = NULL
        if c.generation != p.generation or not p.assigned:
            chunk_unref(c)
            continue
        p.buffered -= c.charged
        f.buffered -= c.charged
        fetcher_wake(f)
        return c
    return NULL


cdef void fetcher_put_back(Fetcher *f, Chunk *c) noexcept nogil:
    cdef Place *p = <Place *> c.part
    p.buffered += c.charged
    f.buffered += c.charged
    c.next = f.first
    f.first = c
    if f.last == NULL:
        f.last = c
