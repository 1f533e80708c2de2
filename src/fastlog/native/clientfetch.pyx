"""See clientfetch.pxd. Fetch requests and responses: versions 4 to 12, without sessions (protocol guide; schemas/001_fetch.schema)."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from fastlog.native.batch cimport PEEK_OK, BatchInfo, batch_peek
from fastlog.native.bytes cimport Reader, Writer, put32, read_i16, read_i32, read_i64, reader_init, reader_take, write_bytes, \
    write_i16, write_i32, write_i64, write_i8, writer_init, writer_used
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, EPOLLOUT, \
    clock_us, \
    close, cond_init, epoll_create1, epoll_ready, epoll_set, eventfd, eventfd_clear, eventfd_set, link_close, link_flush, link_next, \
    link_open, link_push, link_receive
from fastlog.native.clientread cimport READ_CORRUPT, READ_FULL, READ_MEMORY, Aborted, Bytes, Chunk, ReadResult, ReadRules, chunk_new, \
    chunk_read, chunk_unref
from fastlog.native.threads cimport pthread_cond_broadcast, pthread_cond_destroy, pthread_join, pthread_mutex_destroy, pthread_mutex_init, \
    pthread_mutex_lock, pthread_mutex_unlock, thread_start
from fastlog.native.wire cimport wire_length, wire_put_length, wire_put_string, wire_put_tags, wire_skip_tags, wire_string

cdef enum:
    FLEXIBLE_FROM = 12
    SLEEP_MAX_US = 1000000
    PIECES_AHEAD = 2                # a partition's answers that may wait for the reader
    INFLATE_MAX = 1 << 30

cdef struct Part:                   # one partition's part of an answer
    Place *place
    int64_t generation
    int64_t offset                  # what was asked for
    int16_t error
    int64_t high_watermark
    int64_t stable
    int64_t log_start
    const uint8_t *aborted
    int32_t aborted_n
    const uint8_t *records
    int64_t records_n
    int64_t next_offset


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


cdef void announce(Fetcher *f) noexcept nogil:
    pthread_cond_broadcast(&f.ready)
    if f.ready_fd >= 0:
        eventfd_set(f.ready_fd)


cdef void fetcher_poke(Fetcher *f) noexcept nogil:
    f.poked = True
    announce(f)


cdef void ask(Fetcher *f, int what) noexcept nogil:
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


cdef void fetcher_move(Fetcher *f, Place *p, int64_t offset) noexcept nogil:
    """What was fetched for where it was before is dropped when it comes to the front; it counts no more."""
    p.generation += 1
    p.position = p.taken = offset
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


# ---- asking --------------------------------------------------------------------------------------------------------------------

cdef bint due(Fetcher *f, Place *p, int64_t now, int64_t *next) noexcept nogil:
    """Whether the partition belongs into its leader's next request; asks for what is missing."""
    cdef Source *s
    if not p.assigned or p.paused or p.fetching or p.position < 0 or p.error or f.buffered >= f.set.buffer_memory \
            or p.buffered >= <size_t> f.set.partition_bytes * PIECES_AHEAD:
        return False
    if p.again_us > now:
        next[0] = min(next[0], p.again_us)
        return False
    if p.leader < 0:
        ask(f, ASK_METADATA)
        p.again_us = now + f.set.backoff_us
        next[0] = min(next[0], p.again_us)
        return False
    s = fetcher_source(f, p.leader)
    if s == NULL:
        return False
    if s.state == FETCH_UP:
        return True
    if s.state == FETCH_ABSENT:
        if s.again_us > now:
            next[0] = min(next[0], s.again_us)
            return False
        s.state = FETCH_WANTED
    if s.state == FETCH_WANTED:
        ask(f, ASK_LINK)
    return False


cdef bint add_wish(Source *s, Place *p) noexcept nogil:
    """By topic; within one in the order of their turn."""
    cdef Wish *grown
    cdef int32_t i
    if s.wishes_n == s.wishes_capacity:
        grown = <Wish *> realloc(s.wishes, (s.wishes_capacity * 2 + 16) * sizeof(Wish))
        if grown == NULL:
            return False
        s.wishes = grown
        s.wishes_capacity = s.wishes_capacity * 2 + 16
    i = s.wishes_n
    while i > 0 and s.wishes[i - 1].place.topic > p.topic:
        s.wishes[i] = s.wishes[i - 1]
        i -= 1
    s.wishes[i].place = p
    s.wishes[i].generation = p.generation
    s.wishes[i].offset = p.position
    s.wishes_n += 1
    return True


cdef bint write_request(Fetcher *f, Source *s, int64_t now) noexcept nogil:
    """The Fetch request of the wishes, pushed into the link."""
    cdef bint flexible = s.version >= FLEXIBLE_FROM
    cdef Writer w
    cdef int32_t i, topics = 0, parts, j
    cdef size_t room = 128 + <size_t> f.client_id_n
    cdef char *grown
    cdef Place *p
    for i in range(s.wishes_n):
        room += 64
        if i == 0 or s.wishes[i].place.topic != s.wishes[i - 1].place.topic:
            topics += 1
            room += 16 + <size_t> f.name_lengths[s.wishes[i].place.topic]
    if room > s.request_capacity:
        grown = <char *> realloc(s.request, room)
        if grown == NULL:
            return False
        s.request = grown
        s.request_capacity = room
    s.correlation = (s.correlation + 1) & 0x7FFFFFFF
    writer_init(&w, s.request, s.request_capacity)
    write_i32(&w, 0)
    write_i16(&w, 1)
    write_i16(&w, s.version)
    write_i32(&w, s.correlation)
    write_i16(&w, f.client_id_n)
    write_bytes(&w, f.client_id, f.client_id_n)
    wire_put_tags(&w, flexible)
    write_i32(&w, -1)
    write_i32(&w, f.set.max_wait_ms)
    write_i32(&w, f.set.min_bytes)
    write_i32(&w, f.set.max_bytes)
    write_i8(&w, 1 if f.set.committed else 0)
    if s.version >= 7:
        write_i32(&w, 0)                        # no session
        write_i32(&w, -1)
    wire_put_length(&w, flexible, topics)
    i = 0
    while i < s.wishes_n:
        p = s.wishes[i].place
        wire_put_string(&w, flexible, f.names[p.topic], f.name_lengths[p.topic])
        parts = 1
        while i + parts < s.wishes_n and s.wishes[i + parts].place.topic == p.topic:
            parts += 1
        wire_put_length(&w, flexible, parts)
        for j in range(i, i + parts):
            p = s.wishes[j].place
            write_i32(&w, p.number)
            if s.version >= 9:
                write_i32(&w, p.epoch)
            write_i64(&w, s.wishes[j].offset)
            if s.version >= 12:
                write_i32(&w, -1)               # last fetched epoch
            if s.version >= 5:
                write_i64(&w, -1)
            write_i32(&w, f.set.partition_bytes)
            wire_put_tags(&w, flexible)
        wire_put_tags(&w, flexible)
        i += parts
    if s.version >= 7:
        wire_put_length(&w, flexible, 0)        # nothing forgotten
    if s.version >= 11:
        wire_put_string(&w, flexible, b"", 0)   # no rack
    wire_put_tags(&w, flexible)
    put32(s.request, <uint32_t> (writer_used(&w) - 4))
    s.busy = True
    s.sent_us = now
    f.fetches += 1
    return not w.full and link_push(&s.link, s.request, writer_used(&w)) == 0


cdef int64_t plan(Fetcher *f, int64_t now) noexcept nogil:
    """Makes requests for brokers that have none under way. When to look again, at the latest."""
    cdef int64_t next = now + SLEEP_MAX_US
    cdef int32_t i, j
    cdef int k
    cdef Place *p
    cdef Source *s
    for k in range(f.sources_n):
        if not f.sources[k].busy:
            f.sources[k].wishes_n = 0
            f.sources[k].turn += 1
    for i in range(f.places_n):
        p = f.places[i]
        if due(f, p, now, &next):
            s = fetcher_source(f, p.leader)
            if not s.busy:
                add_wish(s, p)
    for k in range(f.sources_n):
        s = f.sources[k]
        if s.busy or s.state != FETCH_UP or s.wishes_n == 0:
            continue
        turn(s)
        for j in range(s.wishes_n):
            s.wishes[j].place.fetching = True
        if not write_request(f, s, now):
            lose(f, s, now)
    return next


cdef void turn(Source *s) noexcept nogil:
    """Each topic's partitions begin with another one each time, as the first of a request gets all the answer has room for."""
    cdef int32_t first = 0, n, i
    cdef uint64_t by
    cdef Wish kept
    while first < s.wishes_n:
        n = 1
        while first + n < s.wishes_n and s.wishes[first + n].place.topic == s.wishes[first].place.topic:
            n += 1
        by = s.turn % <uint64_t> n
        while by:
            kept = s.wishes[first]
            for i in range(first, first + n - 1):
                s.wishes[i] = s.wishes[i + 1]
            s.wishes[first + n - 1] = kept
            by -= 1
        first += n


cdef void lose(Fetcher *f, Source *s, int64_t now) noexcept nogil:
    cdef int32_t i
    link_close(&s.link)
    s.state = FETCH_ABSENT
    s.again_us = now + f.set.backoff_us
    if s.busy:
        for i in range(s.wishes_n):
            s.wishes[i].place.fetching = False
    s.busy = False
    ask(f, ASK_METADATA)


# ---- answers -------------------------------------------------------------------------------------------------------------------

cdef Wish *wish_of(Fetcher *f, Source *s, const uint8_t *name, int32_t name_n, int32_t number) noexcept nogil:
    cdef int32_t i
    cdef Place *p
    for i in range(s.wishes_n):
        p = s.wishes[i].place
        if p.number == number and f.name_lengths[p.topic] == name_n and memcmp(f.names[p.topic], name, name_n) == 0:
            return s.wishes + i
    return NULL


cdef int64_t end_of(const uint8_t *p, int64_t n, int64_t from_offset) noexcept nogil:
    """The offset behind the last whole batch."""
    cdef BatchInfo info
    while batch_peek(p, <size_t> n, &info) == PEEK_OK and info.size <= n:
        from_offset = max(from_offset, info.base_offset + info.last_offset_delta + 1)
        p += info.size
        n -= info.size
    return from_offset


cdef int32_t parse(Fetcher *f, Source *s, const uint8_t *frame, size_t n, Part *parts, int16_t *error) noexcept nogil:
    """Takes a FetchResponse apart; as many parts as it has, or -1 when it is none."""
    cdef bint flexible = s.version >= FLEXIBLE_FROM
    cdef Reader r
    cdef int64_t topics, count, aborted
    cdef int32_t found = 0, name_n
    cdef const uint8_t *name
    cdef Part *part
    cdef Wish *wish
    cdef int32_t number
    reader_init(&r, frame, n)
    if read_i32(&r) != s.correlation or not s.busy:
        return -1
    wire_skip_tags(&r, flexible)
    read_i32(&r)                                # throttled
    error[0] = read_i16(&r) if s.version >= 7 else 0
    if s.version >= 7:
        read_i32(&r)
    topics = wire_length(&r, flexible)
    while topics > 0 and not r.bad:
        topics -= 1
        name = wire_string(&r, flexible, &name_n)
        count = wire_length(&r, flexible)
        while count > 0 and not r.bad:
            count -= 1
            number = read_i32(&r)
            if found == s.wishes_n or name == NULL:
                return -1
            part = parts + found
            part.error = read_i16(&r)
            part.high_watermark = read_i64(&r)
            part.stable = read_i64(&r)
            part.log_start = read_i64(&r) if s.version >= 5 else -1
            aborted = wire_length(&r, flexible)
            part.aborted = r.p
            part.aborted_n = <int32_t> max(aborted, <int64_t> 0)
            while aborted > 0 and not r.bad:
                aborted -= 1
                reader_take(&r, 16)
                wire_skip_tags(&r, flexible)
            if s.version >= 11:
                read_i32(&r)                    # preferred replica
            part.records_n = max(wire_length(&r, flexible), <int64_t> 0)
            part.records = reader_take(&r, <uint64_t> part.records_n)
            wire_skip_tags(&r, flexible)
            if r.bad:
                return -1
            wish = wish_of(f, s, name, name_n, number)
            if wish == NULL:
                return -1
            part.place = wish.place
            part.generation = wish.generation
            part.offset = wish.offset
            part.next_offset = end_of(part.records, part.records_n, part.offset)
            found += 1
        wire_skip_tags(&r, flexible)
    return -1 if r.bad else found


cdef void note(Fetcher *f, Part *part, int64_t now) noexcept nogil:
    """What an answer says of a partition, but for the records."""
    cdef Place *p = part.place
    if part.generation != p.generation or not p.assigned:
        part.records_n = 0
        return
    if part.error in (3, 5, 6, 9, 13, 56, 74, 75, 76, 78, 100, 103):
        p.leader = -1 if part.error not in (75, 78) else p.leader
        p.epoch = -1
        p.again_us = now + f.set.backoff_us
        ask(f, ASK_METADATA)
        part.records_n = 0
        return
    if part.error:
        p.error = part.error
        part.records_n = 0
        ask(f, ASK_ERROR)
        fetcher_poke(f)
        return
    p.high_watermark = part.high_watermark
    p.log_start = part.log_start
    p.end = part.stable if f.set.committed and part.stable >= 0 else part.high_watermark
    p.answered = True
    p.position = part.next_offset
    p.buffered += <size_t> part.records_n
    f.buffered += <size_t> part.records_n
    f.bytes += <uint64_t> part.records_n
    if part.records_n == 0:
        announce(f)                             # it may be at its end


cdef void read_part(Fetcher *f, Part *part, bint flexible, Bytes *scratch) noexcept nogil:
    """Makes chunks of a partition's records and queues them. Without the lock but for that."""
    cdef ReadRules rules
    cdef ReadResult status = READ_FULL
    cdef const uint8_t *p = part.records
    cdef const uint8_t *end = part.records + part.records_n
    cdef const uint8_t *before
    cdef Chunk *c
    cdef Reader r
    cdef int32_t i
    cdef Place *place = part.place
    cdef size_t left = <size_t> part.records_n, charged
    rules.check_crc = f.set.check_crc
    rules.committed = f.set.committed
    rules.inflate_max = INFLATE_MAX
    rules.aborted_n = part.aborted_n if f.set.committed else 0
    rules.aborted = NULL
    if rules.aborted_n:
        rules.aborted = <Aborted *> calloc(rules.aborted_n, sizeof(Aborted))
        if rules.aborted == NULL:
            rules.aborted_n = 0
            status = READ_MEMORY
        reader_init(&r, part.aborted, 1 << 30)
        for i in range(rules.aborted_n):
            rules.aborted[i].producer_id = read_i64(&r)
            rules.aborted[i].first_offset = read_i64(&r)
            wire_skip_tags(&r, flexible)
    while status == READ_FULL:
        c = chunk_new()
        if c == NULL:
            status = READ_MEMORY
            break
        before = p
        c.next_offset = part.offset
        status = chunk_read(c, &p, end, part.offset, &rules, scratch)
        charged = <size_t> (p - before) if status == READ_FULL else left
        left -= min(left, charged)
        c.part = place
        c.generation = part.generation
        c.topic = place.topic
        c.number = place.number
        c.charged = charged
        pthread_mutex_lock(&f.lock)
        if place.generation == part.generation and place.assigned:
            if c.n:
                f.records += <uint64_t> c.n
                if f.last == NULL:
                    f.first = c
                else:
                    f.last.next = c
                f.last = c
                c = NULL
            else:
                place.buffered -= charged
                f.buffered -= charged
                if place.taken == part.offset and place.buffered == 0:     # all before it was read, and here is nothing to read
                    place.taken = c.next_offset
            if status == READ_CORRUPT or status == READ_MEMORY:
                place.error = CORRUPT_RECORDS if status == READ_CORRUPT else -1
                ask(f, ASK_ERROR)
                fetcher_poke(f)
            announce(f)
        pthread_mutex_unlock(&f.lock)
        if c != NULL:
            chunk_unref(c)
    free(rules.aborted)


cdef bint take_answer(Fetcher *f, Source *s, const uint8_t *frame, size_t n, int64_t now, Bytes *scratch) noexcept nogil:
    """An answer; False when it is none. The next request goes out before its records are looked at."""
    cdef Part *parts = <Part *> calloc(max(s.wishes_n, 1), sizeof(Part))
    cdef int32_t found, i
    cdef int16_t error = 0
    if parts == NULL:
        return False
    pthread_mutex_lock(&f.lock)
    found = parse(f, s, frame, n, parts, &error)
    if found >= 0:
        for i in range(s.wishes_n):
            s.wishes[i].place.fetching = False
        s.busy = False
        for i in range(found):
            note(f, parts + i, now)
        if error:
            lose(f, s, now)
        plan(f, now)
    pthread_mutex_unlock(&f.lock)
    if found >= 0 and not error:
        link_flush(&s.link)
    for i in range(found):
        if parts[i].records_n:
            read_part(f, parts + i, s.version >= FLEXIBLE_FROM, scratch)
    free(parts)
    return found >= 0


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
        if not take_answer(f, s, frame, n, now, scratch):
            error = -1
            break
    if s.state == FETCH_UP and (error < 0 or (s.busy and now - max(s.sent_us, s.link.heard_us) >
                                              f.set.request_us + <int64_t> f.set.max_wait_ms * 1000)):
        pthread_mutex_lock(&f.lock)
        lose(f, s, now)
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
                lose(f, s, now)
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
        next = plan(f, now)
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
            lose(f, f.sources[i], now)
        elif f.sources[i].state == FETCH_HANDED:
            close(f.sources[i].fd)
    pthread_cond_broadcast(&f.control)
    announce(f)
    pthread_mutex_unlock(&f.lock)
    free(scratch.p)
    return NULL
