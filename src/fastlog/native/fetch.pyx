"""See fetch.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from fastlog.native.buf cimport buf_drop
from fastlog.native.bytes cimport Reader, read_i32, read_i64, read_i8, read_uvarint, reader_init, reader_take
from fastlog.native.conn cimport conn_close, request_ready
from fastlog.native.fetchanswer cimport fetch_answer, fetch_answer_error, fetch_finish, fetch_release, fetch_unpin, fetch_work_free
from fastlog.native.fetchread cimport fetch_read_start, fetch_reads_fit, fetch_reads_free, fetch_reads_release
from fastlog.native.fetchwait cimport fetch_park, fetch_unpark
from fastlog.native.fetchwork cimport FETCH_PARKED, FETCH_READING, FETCH_SENDING, FETCH_UNPARKING, FetchRead, FetchWork, first_part
from fastlog.native.log cimport Positions, StoreStats, position_get, store_stats
from fastlog.native.net cimport Request, Shard, counter_add
from fastlog.native.quota cimport QUOTA_FETCH, quota_on, quota_window
from fastlog.native.session cimport FETCH_SLAB, FetchPart, Session, fetch_part_free, fetch_part_new, fetch_parts_once, session_add, \
    session_end, session_find, session_new, session_part, session_remove, sessions_free
from fastlog.native.slab cimport slab_free, slab_get
from fastlog.native.table cimport Topic, table_by_id, table_by_name
from fastlog.native.wire cimport wire_count, wire_skip_tags, wire_string

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition) noexcept

cdef enum:
    OFFSET_OUT_OF_RANGE = 1
    UNKNOWN_TOPIC_OR_PARTITION = 3
    NOT_LEADER_OR_FOLLOWER = 6
    KAFKA_STORAGE_ERROR = 56
    SESSION_ID_NOT_FOUND = 70
    INVALID_SESSION_EPOCH = 71
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    UNKNOWN_TOPIC_ID = 100
    SESSION_TOPIC_ID_ERROR = 106


# ---- decode --------------------------------------------------------------------------------------------------------------------

cdef void fetch_start(Request *r) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef Reader *b = &r.body
    cdef bint flexible = r.version >= 12
    cdef FetchWork *work
    cdef int32_t max_wait, session_id = 0, session_epoch = -1
    cdef int64_t most
    cdef int16_t error = 0
    cdef char text[96]
    counter_add(&shard.counters.fetch_requests, 1)
    work = <FetchWork *> slab_get(&shard.fetch_free, &shard.fetch_free_n, FETCH_SLAB)
    if work == NULL:
        conn_close(r.conn, b"no memory for its request", False)
        request_ready(r)
        return
    work.request = r
    work.shard = shard
    work.read_done = pump
    work.released = released
    work.unwatched = look
    work.by_id = r.version >= 13
    r.work = work
    r.release = fetch_release
    r.abort = abort
    r.unpin = fetch_unpin
    if r.version < 15:
        work.replica = read_i32(b) >= 0
    max_wait = read_i32(b)
    work.min_bytes = read_i32(b)
    work.budget = read_i32(b)
    work.committed = read_i8(b) == 1
    if r.version >= 7:
        session_id = read_i32(b)
        session_epoch = read_i32(b)
    if work.budget > shard.limits.fetch_bytes_max:
        work.budget = shard.limits.fetch_bytes_max
    if quota_on(shard.quotas, QUOTA_FETCH):
        # no more than may ever be had at once: it would wait for ever
        work.quota = True
        most = quota_window(shard.quotas, QUOTA_FETCH, r.client_id, r.client_id_length)
        if work.budget > most:
            work.budget = most
    work.wait = max_wait > 0 and work.min_bytes > 0
    work.deadline_ns = shard.now_ns + <int64_t> (max_wait if max_wait > 0 else 0) * 1000000
    error = find_session(work, session_id, session_epoch)
    if error == 0 and not decode_topics(work, b, flexible, r.version):
        b.bad = True
    if error == 0 and r.version >= 7 and not b.bad:
        decode_forgotten(work, b, flexible)
    if error == 0 and r.version >= 15 and not b.bad:
        decode_replica(work, b)
    if b.bad:
        snprintf(text, sizeof(text), "a Fetch request (version %d) that can't be read", <int> r.version)
        fetch_finish(work)
        conn_close(r.conn, text, True)
        return
    if error:
        fetch_answer_error(work, error)
        return
    if work.session != NULL:
        work.session.busy = True
    if (work.by_id or work.session != NULL) and not work.quota:
        # nothing points into the request any more: a parked one holds no receive buffer
        buf_drop(&shard.bufs, r.frame)
        r.frame = NULL
    if first_part(work) == NULL:
        if work.session != NULL and work.incremental:
            end_session(work)
        work.wait = False
    look(work)


cdef int16_t find_session(FetchWork *work, int32_t id, int32_t epoch) noexcept nogil:
    """KIP-227: what session id and epoch of a request mean. Sets work.session where one is used from here on."""
    cdef Shard *shard = work.shard
    cdef Session *s = NULL
    if id:
        s = session_find(shard, id)
    if epoch == 0 or epoch == -1:
        if s != NULL and not s.busy:
            session_end(shard, s)
        if epoch == 0:
            work.session = session_new(shard, work.by_id)
        return 0
    if s == NULL:
        return SESSION_ID_NOT_FOUND
    if s.busy or s.epoch != epoch:
        return INVALID_SESSION_EPOCH
    if s.by_id != work.by_id:
        return SESSION_TOPIC_ID_ERROR
    s.epoch = 1 if s.epoch == 0x7FFFFFFF else s.epoch + 1
    s.used_ns = shard.now_ns
    work.session = s
    work.incremental = True
    return 0


cdef void end_session(FetchWork *work) noexcept nogil:
    """A session that has no partitions left is none."""
    session_end(work.shard, work.session)
    work.session.busy = False
    session_end(work.shard, work.session)
    work.session = NULL


cdef bint decode_topics(FetchWork *work, Reader *b, bint flexible, int16_t version) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef int64_t topics, n, _t, _i
    cdef const uint8_t *name
    cdef int32_t name_length
    cdef FetchPart wanted
    cdef FetchPart *part
    cdef bint twice                 # some partition may be there twice
    topics = wire_count(b, flexible)
    twice = topics > 1
    for _t in range(topics):
        name = NULL
        name_length = -1
        if work.by_id:
            name = reader_take(b, 16)
        else:
            name = wire_string(b, flexible, &name_length)
        if name == NULL:
            return False
        n = wire_count(b, flexible)
        for _i in range(n):
            wanted.index = read_i32(b)
            wanted.leader_epoch = read_i32(b) if version >= 9 else -1
            wanted.offset = read_i64(b)
            if version >= 12:
                read_i32(b)         # last fetched epoch: consumers check by OffsetForLeaderEpoch
            if version >= 5:
                read_i64(b)         # a follower's log start
            wanted.bytes_max = read_i32(b)
            wire_skip_tags(b, flexible)
            if b.bad:
                return False
            wanted.by_id = work.by_id
            wanted.name = <uint8_t *> name
            wanted.name_length = name_length
            if work.by_id:
                memcpy(wanted.topic_id, name, 16)
            part = session_part(work.session, &wanted) if work.session != NULL else NULL
            if part == NULL:
                part = fetch_part_new(shard)
                if part == NULL:
                    return False
                part.by_id = wanted.by_id
                part.name = wanted.name
                part.name_length = name_length
                part.index = wanted.index
                if work.by_id:
                    memcpy(part.topic_id, name, 16)
                if work.session != NULL:
                    if session_add(work.session, part) < 0:
                        fetch_part_free(shard, part)
                        return False
                else:
                    if work.last != NULL:
                        work.last.next = part
                        twice = twice or work.last.index >= part.index
                    else:
                        work.first = part
                    work.last = part
            part.offset = wanted.offset
            part.bytes_max = wanted.bytes_max
            part.leader_epoch = wanted.leader_epoch
        wire_skip_tags(b, flexible)
        if b.bad:
            return False
    if b.bad or not twice or work.first == NULL:
        return not b.bad
    work.last = fetch_parts_once(shard, work.first)
    return work.last != NULL


cdef void decode_forgotten(FetchWork *work, Reader *b, bint flexible) noexcept nogil:
    cdef int64_t topics, n, _t, _i
    cdef FetchPart wanted
    cdef FetchPart *part
    topics = wire_count(b, flexible)
    for _t in range(topics):
        wanted.by_id = work.by_id
        if work.by_id:
            wanted.name = <uint8_t *> reader_take(b, 16)
            if wanted.name != NULL:
                memcpy(wanted.topic_id, wanted.name, 16)
        else:
            wanted.name = <uint8_t *> wire_string(b, flexible, &wanted.name_length)
        if wanted.name == NULL:
            b.bad = True
            return
        n = wire_count(b, flexible)
        for _i in range(n):
            wanted.index = read_i32(b)
            if b.bad:
                return
            part = session_part(work.session, &wanted) if work.session != NULL else NULL
            if part != NULL:
                session_remove(work.shard, work.session, part)
        wire_skip_tags(b, flexible)


cdef void decode_replica(FetchWork *work, Reader *b) noexcept nogil:
    """From version 15 on a replica says so in a tagged field (KIP-903)."""
    cdef int32_t length = 0
    cdef uint32_t n, tag, size, _i
    cdef Reader state
    wire_string(b, True, &length)   # rack: there is one
    n = read_uvarint(b)
    for _i in range(n):
        tag = read_uvarint(b)
        size = read_uvarint(b)
        reader_init(&state, reader_take(b, size), size)
        if b.bad:
            return
        if tag == 1:
            work.replica = read_i32(&state) >= 0


# ---- the pass over the partitions ----------------------------------------------------------------------------------------------

cdef void find(FetchWork *work, FetchPart *p) noexcept nogil:
    """Looks the partition up, unless it was and the table is still the same."""
    cdef Shard *shard = work.shard
    cdef Topic *topic
    if p.table_version == shard.table.version:
        return
    topic = table_by_id(&shard.table, p.topic_id) if p.by_id else table_by_name(&shard.table, p.name, p.name_length)
    p.table_version = shard.table.version
    p.part = NULL
    if topic == NULL:  # one that was there until now is not an id that nobody ever had
        p.unknown = UNKNOWN_TOPIC_ID if p.by_id and not p.was_found else UNKNOWN_TOPIC_OR_PARTITION
    elif p.index < 0 or p.index >= topic.n:
        p.unknown = UNKNOWN_TOPIC_OR_PARTITION
    else:
        p.was_found = True
        p.part = topic.parts[p.index]
        p.unknown = KAFKA_STORAGE_ERROR     # where it could not be opened


cdef void look(FetchWork *work) noexcept nogil:
    """Decides, from published positions only, whether to read, to park, or to answer."""
    cdef FetchPart *p = first_part(work)
    cdef Positions *at
    cdef int64_t epoch, end
    cdef bint some = False
    cdef StoreStats stats
    work.failed = False
    work.total = 0
    work.cursor = p
    while p != NULL:
        p.work = work
        p.read = NULL
        p.error = 0
        p.visible = -1
        find(work, p)
        if p.part == NULL:
            p.error = p.unknown
        else:
            at = &p.part.at
            p.log_start = position_get(&at.log_start)
            p.last_stable = position_get(&at.last_stable)
            p.high_watermark = position_get(&at.high_watermark)
            end = position_get(&at.log_end)
            epoch = position_get(&at.leader_epoch)
            p.error = <int16_t> position_get(&at.offline)
            if p.error == 0 and p.leader_epoch >= 0 and p.leader_epoch != epoch:
                p.error = FENCED_LEADER_EPOCH if p.leader_epoch < epoch else UNKNOWN_LEADER_EPOCH
            if p.error == 0 and work.replica:
                p.error = NOT_LEADER_OR_FOLLOWER    # there are no other brokers that could follow
            if p.error == 0 and (p.offset < p.log_start or p.offset > end):
                p.error = OFFSET_OUT_OF_RANGE
            if p.error == 0:
                p.visible = p.last_stable if work.committed else p.high_watermark
                if p.visible > p.offset:
                    some = True
        if p.error:  # where the partition is, is not told with an error
            work.failed = True
            p.high_watermark = -1
            p.last_stable = -1
            p.log_start = -1
        p = p.next
    if some:
        store_stats(work.shard.store, &stats)
        work.copy_out = stats.chunks > 0 and stats.chunks_pinned * 2 > stats.chunks
        work.phase = FETCH_READING
        pump(work)
    elif work.wait and not work.failed and work.shard.now_ns < work.deadline_ns and not work.aborted:
        fetch_park(work)
    else:
        fetch_answer(work)


cdef void pump(FetchWork *work) noexcept nogil:
    """Starts reads, in order, while the budget lasts."""
    cdef FetchPart *p
    cdef Shard *shard = work.shard
    if work.pumping:
        return
    work.pumping = True
    while work.cursor != NULL and (work.budget > 0 or (work.total == 0 and work.outstanding == 0)):
        p = work.cursor
        work.cursor = p.next
        if p.error == 0 and p.visible > p.offset and not fetch_read_start(work, p):
            work.failed = True
            break
    work.pumping = False
    if work.outstanding:
        return
    fetch_reads_fit(work)
    if work.total >= work.min_bytes or work.failed or not work.wait or shard.now_ns >= work.deadline_ns or work.aborted:
        fetch_answer(work)
        return
    # not enough yet: give back what was read, wait for more
    work.budget += work.total
    fetch_reads_release(work)
    if work.outstanding == 0:
        fetch_park(work)
    else:
        work.phase = FETCH_UNPARKING


cdef void released(FetchWork *work) noexcept nogil:
    """All pins that had to cross to other shards are back with their owners."""
    if work.phase == FETCH_SENDING:
        if work.request == NULL:
            fetch_work_free(work)
    elif work.phase == FETCH_READING:
        pump(work)
    else:
        fetch_reads_free(work)
        if work.wait and not work.aborted:
            fetch_park(work)
        else:
            look(work)


cdef void abort(Request *r) noexcept nogil:
    cdef FetchWork *work = <FetchWork *> r.work
    work.aborted = True
    work.wait = False
    if work.phase == FETCH_PARKED:
        fetch_unpark(work)


cdef void fetch_init() noexcept nogil:
    FL_ASSERT(sizeof(FetchPart) <= FETCH_SLAB and sizeof(FetchRead) <= FETCH_SLAB and sizeof(FetchWork) <= FETCH_SLAB)


cdef void fetch_free(Shard *shard) noexcept nogil:
    sessions_free(shard)
    slab_free(&shard.fetch_free, &shard.fetch_free_n)
