"""See clientfetchask.pxd. Fetch requests, versions 4 to 12, without sessions (protocol guide; schemas/001_fetch.schema)."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from fastlog.native.bytes cimport Writer, put32, write_bytes, write_i16, write_i32, write_i64, write_i8, writer_init, writer_used
from fastlog.native.clientfetch cimport ASK_LINK, ASK_METADATA, ASK_PROOF, EPOCH_FROM, FETCH_ABSENT, FETCH_UP, FETCH_WANTED, \
    FLEXIBLE_FROM, Fetcher, Place, Source, Wish, fetcher_ask, fetcher_doubtful, fetcher_source
from fastlog.native.clientlink cimport link_close, link_push
from fastlog.native.wire cimport wire_put_length, wire_put_string, wire_put_tags

cdef enum:
    SLEEP_MAX_US = 1000000
    PIECES_AHEAD = 2                # a partition's answers that may wait for the reader
    HELD_WAIT_MS = 5                # how long a broker may keep a request while other partitions of its wait for room here


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
        fetcher_ask(f, ASK_METADATA)
        p.again_us = now + f.set.backoff_us
        next[0] = min(next[0], p.again_us)
        return False
    if fetcher_doubtful(p):
        fetcher_ask(f, ASK_PROOF)
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
        fetcher_ask(f, ASK_LINK)
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
    s.wishes[i].epoch = p.epoch if s.version >= EPOCH_FROM else -1
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
    write_i32(&w, min(f.set.max_wait_ms, <int32_t> HELD_WAIT_MS) if s.held else f.set.max_wait_ms)
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
            if s.version >= EPOCH_FROM:
                write_i32(&w, s.wishes[j].epoch)
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


cdef int64_t fetch_plan(Fetcher *f, int64_t now) noexcept nogil:
    """Makes requests for brokers that have none under way. When to look again, at the latest."""
    cdef int64_t next = now + SLEEP_MAX_US
    cdef int32_t i, j
    cdef int k
    cdef Place *p
    cdef Source *s
    for k in range(f.sources_n):
        f.sources[k].held = False
        if not f.sources[k].busy:
            f.sources[k].wishes_n = 0
            f.sources[k].turn += 1
    for i in range(f.places_n):
        p = f.places[i]
        if due(f, p, now, &next):
            s = fetcher_source(f, p.leader)
            if not s.busy:
                add_wish(s, p)
        elif p.assigned and not p.paused and not p.fetching and p.buffered and p.leader >= 0:
            s = fetcher_source(f, p.leader)
            if s != NULL:
                s.held = True
    for k in range(f.sources_n):
        s = f.sources[k]
        if s.busy or s.state != FETCH_UP or s.wishes_n == 0:
            continue
        turn(s)
        for j in range(s.wishes_n):
            s.wishes[j].place.fetching = True
        if not write_request(f, s, now):
            fetch_lose(f, s, now)
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


cdef void fetch_lose(Fetcher *f, Source *s, int64_t now) noexcept nogil:
    cdef int32_t i
    link_close(&s.link)
    s.state = FETCH_ABSENT
    s.again_us = now + f.set.backoff_us
    if s.busy:
        for i in range(s.wishes_n):
            s.wishes[i].place.fetching = False
    s.busy = False
    fetcher_ask(f, ASK_METADATA)
