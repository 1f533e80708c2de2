"""See clientfetchanswer.pxd. Fetch responses, versions 4 to 12 (protocol guide; schemas/001_fetch.schema)."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from fastlog.native.batch cimport PEEK_OK, BatchInfo, batch_peek
from fastlog.native.bytes cimport Reader, read_i16, read_i32, read_i64, reader_init, reader_take
from fastlog.native.clientfetch cimport ASK_ERROR, ASK_METADATA, CORRUPT_RECORDS, FLEXIBLE_FROM, Fetcher, Place, Source, Wish, \
    fetcher_announce, fetcher_ask, fetcher_poke
from fastlog.native.clientfetchask cimport fetch_lose, fetch_plan
from fastlog.native.clientlink cimport link_flush
from fastlog.native.clientread cimport READ_CORRUPT, READ_FULL, READ_MEMORY, Aborted, Bytes, Chunk, ReadResult, ReadRules, chunk_new, \
    chunk_read, chunk_unref
from fastlog.native.threads cimport pthread_mutex_lock, pthread_mutex_unlock
from fastlog.native.wire cimport wire_length, wire_skip_tags, wire_string

cdef enum:
    INFLATE_MAX = 1 << 30

cdef struct Part:                   # one partition's part of an answer
    Place *place
    int64_t generation
    int64_t offset                  # what was asked for
    int32_t epoch                   # of the leader, by which it was
    int16_t error
    int64_t high_watermark
    int64_t stable
    int64_t log_start
    const uint8_t *aborted
    int32_t aborted_n
    const uint8_t *records
    int64_t records_n
    int64_t next_offset
    int32_t last_epoch              # the newest of a whole batch; -1: there is none


cdef Wish *wish_of(Fetcher *f, Source *s, const uint8_t *name, int32_t name_n, int32_t number) noexcept nogil:
    cdef int32_t i
    cdef Place *p
    for i in range(s.wishes_n):
        p = s.wishes[i].place
        if p.number == number and f.name_lengths[p.topic] == name_n and memcmp(f.names[p.topic], name, name_n) == 0:
            return s.wishes + i
    return NULL


cdef void find_end(Part *part) noexcept nogil:
    """The offset behind the last whole batch, and the newest epoch: its bytes are under no checksum, but no leader has a later one."""
    cdef const uint8_t *p = part.records
    cdef int64_t n = part.records_n
    cdef BatchInfo info
    part.next_offset = part.offset
    part.last_epoch = -1
    while batch_peek(p, <size_t> n, &info) == PEEK_OK and info.size <= n:
        part.next_offset = max(part.next_offset, info.base_offset + info.last_offset_delta + 1)
        if info.leader_epoch <= part.epoch or part.epoch < 0:
            part.last_epoch = max(part.last_epoch, info.leader_epoch)
        p += info.size
        n -= info.size


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
            part.epoch = wish.epoch
            find_end(part)
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
        if part.error not in (75, 78):                  # the leader itself, which is about to know more
            p.leader = p.epoch = -1
        p.again_us = now + f.set.backoff_us
        fetcher_ask(f, ASK_METADATA)
        part.records_n = 0
        return
    if part.error:
        p.error = part.error
        part.records_n = 0
        fetcher_ask(f, ASK_ERROR)
        fetcher_poke(f)
        return
    p.high_watermark = part.high_watermark
    p.log_start = part.log_start
    p.end = part.stable if f.set.committed and part.stable >= 0 else part.high_watermark
    p.answered = True
    p.position = part.next_offset
    p.position_epoch = max(p.position_epoch, part.last_epoch)
    if part.epoch >= 0:
        p.proven = part.epoch                           # the leader has checked that it is this one
    p.buffered += <size_t> part.records_n
    f.buffered += <size_t> part.records_n
    f.bytes += <uint64_t> part.records_n
    if part.records_n == 0:
        fetcher_announce(f)                             # it may be at its end


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
        c.epoch = part.last_epoch
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
                fetcher_ask(f, ASK_ERROR)
                fetcher_poke(f)
            fetcher_announce(f)
        pthread_mutex_unlock(&f.lock)
        if c != NULL:
            chunk_unref(c)
    free(rules.aborted)


cdef bint fetch_answer(Fetcher *f, Source *s, const uint8_t *frame, size_t n, int64_t now, Bytes *scratch) noexcept nogil:
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
            fetch_lose(f, s, now)
        fetch_plan(f, now)
    pthread_mutex_unlock(&f.lock)
    if found >= 0 and not error:
        link_flush(&s.link)
    for i in range(found):
        if parts[i].records_n:
            read_part(f, parts + i, s.version >= FLEXIBLE_FROM, scratch)
    free(parts)
    return found >= 0
