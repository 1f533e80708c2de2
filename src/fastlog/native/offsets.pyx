"""See offsets.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from fastlog.native.bytes cimport Reader, Writer, read_i32, read_i64, read_i8, write_i16, write_i32, write_i64, writer_init, writer_used
from fastlog.native.conn cimport conn_close, request_ready, response_plain, response_room
from fastlog.native.log cimport Partition, TimeQuery, log_find_time, position_get
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport MAIL_TIME, MAIL_TIMED, counter_add
from fastlog.native.slab cimport slab_free, slab_get, slab_put
from fastlog.native.table cimport Topic, table_by_name
from fastlog.native.wire cimport wire_count, wire_put_length, wire_put_string, wire_put_tags, wire_skip_tags, wire_string

cdef extern from "siphash.h" nogil:
    uint32_t secret_hash "fl_hash"(const void *p, uint64_t n)

cdef enum:
    UNKNOWN_TOPIC_OR_PARTITION = 3
    UNSUPPORTED_VERSION = 35
    INVALID_REQUEST = 42
    KAFKA_STORAGE_ERROR = 56
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75

cdef enum:                          # what a timestamp below zero asks for
    LATEST = -1
    EARLIEST = -2
    MAX_TIMESTAMP = -3              # KIP-734, from version 7
    EARLIEST_LOCAL = -4             # KIP-405, from version 8
    LATEST_TIERED = -5              # KIP-1005, from version 9
    EARLIEST_PENDING_UPLOAD = -6    # KIP-1023, from version 11

cdef struct Work

cdef struct Part:
    TimeQuery query                 # first: a TimeQuery is its Part
    Part *next
    Work *work
    Shard *home
    const uint8_t *name             # in the request's frame
    int32_t name_length
    int32_t index
    int32_t n_in_topic              # in the first of a topic
    int32_t leader_epoch
    bint search

cdef struct Work:
    Request *request
    Part *first
    Part *last
    int32_t n_topics
    int32_t n_parts
    int32_t pending
    bint committed


cdef void offsets_start(Request *r) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef Reader *b = &r.body
    cdef bint flexible = r.version >= 6
    cdef int64_t topics, _t
    cdef char text[96]
    cdef Work *work = <Work *> slab_get(&shard.offsets_free, &shard.offsets_free_n, sizeof(Part))
    counter_add(&shard.counters.offsets_requests, 1)
    if work == NULL:
        conn_close(r.conn, b"no memory for its request", False)
        request_ready(r)
        return
    work.request = r
    read_i32(b)                     # replica id
    if r.version >= 2:
        work.committed = read_i8(b) == 1
    topics = wire_count(b, flexible)
    for _t in range(topics):
        decode_topic(r, work, b, flexible)
        if b.bad:
            break
    if r.version >= 10:
        read_i32(b)                 # time-out: for remote storage
    wire_skip_tags(b, flexible)
    if b.bad:
        snprintf(text, sizeof(text), "a ListOffsets request (version %d) that can't be read", <int> r.version)
        drop(work)
        conn_close(r.conn, text, True)
        request_ready(r)
        return
    if work.n_parts > 1:
        refuse_doubles(work)
    submit(work)


cdef void decode_topic(Request *r, Work *work, Reader *b, bint flexible) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef int32_t name_length = -1
    cdef const uint8_t *name = wire_string(b, flexible, &name_length)
    cdef int64_t n, _i
    cdef Topic *topic = NULL
    cdef Part *part
    cdef Part *head = NULL
    if name == NULL:
        b.bad = True
        return
    topic = table_by_name(&shard.table, name, name_length)
    n = wire_count(b, flexible)
    for _i in range(n):
        part = <Part *> slab_get(&shard.offsets_free, &shard.offsets_free_n, sizeof(Part))
        if part == NULL:
            b.bad = True
            return
        if work.last != NULL:
            work.last.next = part
        else:
            work.first = part
        work.last = part
        if head == NULL:
            head = part
            work.n_topics += 1
        head.n_in_topic += 1
        work.n_parts += 1
        part.work = work
        part.home = shard
        part.name = name
        part.name_length = name_length
        part.index = read_i32(b)
        part.leader_epoch = read_i32(b) if r.version >= 4 else -1
        part.query.timestamp = read_i64(b)
        part.query.offset = -1
        part.query.found_ms = -1
        wire_skip_tags(b, flexible)
        if b.bad:
            return
        if not known(part.query.timestamp, r.version):
            part.query.error = UNSUPPORTED_VERSION
        elif topic == NULL or part.index < 0 or part.index >= topic.n:
            part.query.error = UNKNOWN_TOPIC_OR_PARTITION
        elif topic.parts[part.index] == NULL:
            part.query.error = KAFKA_STORAGE_ERROR
        else:
            part.query.part = topic.parts[part.index]
            part.query.part.users[shard.index] += 1
            decide(r, part)
    wire_skip_tags(b, flexible)


cdef void decide(Request *r, Part *part) noexcept nogil:
    """Answers from the published positions, or marks the partition for a search."""
    cdef Partition *p = part.query.part
    cdef int64_t epoch = position_get(&p.at.leader_epoch)
    cdef int64_t asked = part.query.timestamp
    part.query.error = <int16_t> position_get(&p.at.offline)
    if part.query.error:
        return
    if part.leader_epoch >= 0 and part.leader_epoch != epoch:
        part.query.error = FENCED_LEADER_EPOCH if part.leader_epoch < epoch else UNKNOWN_LEADER_EPOCH
        return
    part.leader_epoch = <int32_t> epoch
    if asked == LATEST:
        part.query.offset = position_get(&p.at.last_stable) if part.work.committed else position_get(&p.at.high_watermark)
    elif asked == EARLIEST or asked == EARLIEST_LOCAL:
        part.query.offset = position_get(&p.at.log_start)
    elif asked == LATEST_TIERED or asked == EARLIEST_PENDING_UPLOAD:
        part.leader_epoch = -1      # nothing is tiered here
    else:
        part.search = True


cdef inline bint known(int64_t asked, int16_t version) noexcept nogil:
    """Whether the version knows what a time below zero stands for."""
    if asked >= EARLIEST:
        return True
    if asked == MAX_TIMESTAMP:
        return version >= 7
    if asked == EARLIEST_LOCAL:
        return version >= 8
    if asked == LATEST_TIERED:
        return version >= 9
    return asked == EARLIEST_PENDING_UPLOAD and version >= 11


cdef void refuse_doubles(Work *work) noexcept nogil:
    """A partition that is named twice is answered once, as an error."""
    cdef Shard *shard = work.request.shard
    cdef uint32_t mask = 15, hash = 0, at
    cdef Part **seen
    cdef Part *part = work.first
    cdef Part *before = NULL
    cdef Part *head = NULL
    cdef Part *following
    while mask < <uint32_t> work.n_parts * 2:
        mask = mask * 2 + 1
    seen = <Part **> calloc(mask + 1, sizeof(Part *))
    while part != NULL and seen != NULL:
        following = part.next
        if part.n_in_topic:
            head = part
            hash = secret_hash(part.name, part.name_length)
        at = (((hash ^ <uint32_t> part.index) * <uint32_t> 2654435761) >> 8) & mask
        while seen[at] != NULL and not same(seen[at], part):
            at = (at + 1) & mask
        if seen[at] == NULL:
            seen[at] = part
            before = part
        else:
            seen[at].query.error = INVALID_REQUEST
            seen[at].search = False
            head.n_in_topic -= 1
            if head.n_in_topic == 0:
                work.n_topics -= 1
            elif head == part:
                following.n_in_topic = head.n_in_topic
            before.next = following
            free_part(shard, part)
        part = following
    free(seen)


cdef inline bint same(const Part *a, const Part *b) noexcept nogil:
    return a.index == b.index and a.name_length == b.name_length and memcmp(a.name, b.name, a.name_length) == 0


cdef void submit(Work *work) noexcept nogil:
    cdef Shard *shard = work.request.shard
    cdef Part *part = work.first
    cdef Part *following
    work.pending = 1                # so that answers that come at once don't finish the request under our feet
    while part != NULL:
        following = part.next
        if part.search:
            work.pending += 1
            if part.query.part.owner == shard.index:
                part.query.done = found_here
                log_find_time(shard.store, &part.query)
            else:
                mail_send(shard.out[part.query.part.owner], MAIL_TIME, 0, part)
                shard.out_dirty = 1
        part = following
    one_done(work)


cdef void found_here(TimeQuery *q) noexcept nogil:
    found(<Part *> q)


cdef void found(Part *part) noexcept nogil:
    """What is not stable yet is not there for a reader of committed records."""
    cdef TimeQuery *q = &part.query
    if part.work.committed and q.error == 0 and q.offset >= position_get(&q.part.at.last_stable):
        q.offset = -1
        q.found_ms = -1
    one_done(part.work)


cdef void offsets_find_here(Shard *owner, void *what) noexcept nogil:
    cdef Part *part = <Part *> what
    part.query.done = found_for_other
    log_find_time(owner.store, &part.query)


cdef void found_for_other(TimeQuery *q) noexcept nogil:
    cdef Part *part = <Part *> q
    cdef Shard *owner = part.home.peers[q.part.owner]
    mail_send(owner.out[part.home.index], MAIL_TIMED, 0, part)
    owner.out_dirty = 1


cdef void offsets_found(Shard *home, void *what) noexcept nogil:
    found(<Part *> what)


cdef void one_done(Work *work) noexcept nogil:
    work.pending -= 1
    if work.pending == 0:
        answer(work)


cdef void free_part(Shard *shard, Part *part) noexcept nogil:
    if part.query.part != NULL:
        part.query.part.users[shard.index] -= 1
    slab_put(&shard.offsets_free, &shard.offsets_free_n, part)


cdef void drop(Work *work) noexcept nogil:
    cdef Shard *shard = work.request.shard
    cdef Part *part = work.first
    cdef Part *following
    while part != NULL:
        following = part.next
        free_part(shard, part)
        part = following
    slab_put(&shard.offsets_free, &shard.offsets_free_n, work)


cdef void answer(Work *work) noexcept nogil:
    cdef Request *r = work.request
    cdef bint flexible = r.version >= 6
    cdef Part *part = work.first
    cdef Writer w
    cdef uint32_t room = 32
    cdef int32_t in_topic = 0
    while part != NULL:
        room += 32
        if part.n_in_topic:
            room += 16 + <uint32_t> part.name_length
        part = part.next
    writer_init(&w, response_room(r, room), room)
    if w.p == NULL:
        drop(work)
        request_ready(r)
        return
    if r.version >= 2:
        write_i32(&w, r.throttle_ms)
    wire_put_length(&w, flexible, work.n_topics)
    part = work.first
    while part != NULL:
        if part.n_in_topic:
            wire_put_string(&w, flexible, part.name, part.name_length)
            wire_put_length(&w, flexible, part.n_in_topic)
            in_topic = part.n_in_topic
        write_i32(&w, part.index)
        write_i16(&w, part.query.error)
        write_i64(&w, part.query.found_ms)
        write_i64(&w, part.query.offset)
        if r.version >= 4:
            write_i32(&w, part.leader_epoch if part.query.error == 0 and part.query.offset >= 0 else -1)
        wire_put_tags(&w, flexible)
        in_topic -= 1
        if in_topic == 0:
            wire_put_tags(&w, flexible)
        part = part.next
    wire_put_tags(&w, flexible)
    response_plain(r, <uint32_t> writer_used(&w))
    drop(work)
    request_ready(r)


cdef void offsets_free(Shard *shard) noexcept nogil:
    slab_free(&shard.offsets_free, &shard.offsets_free_n)
