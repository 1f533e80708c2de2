"""See fetch.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from fastlog.native.buf cimport buf_drop
from fastlog.native.bytes cimport Reader, Writer, read_i32, read_i64, read_i8, reader_take, write_bytes, write_i16, write_i32, write_i64, \
    writer_init
from fastlog.native.conn cimport conn_close, request_ready, response_iov_room, response_room
from fastlog.native.log cimport Pin, Positions, Read, StoreStats, Watch, log_read, log_release, log_unwatch, log_watch, \
    position_get, store_stats
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport MAIL_FIRED, MAIL_READ, MAIL_READ_DONE, MAIL_RELEASE, MAIL_RELEASED, MAIL_UNWATCH, MAIL_UNWATCHED, \
    MAIL_WATCH, counter_add
from fastlog.native.session cimport WATCH_ENDING, WATCH_HERE, WATCH_NONE, WATCH_THERE, FETCH_SLAB, FetchPart, Session, fetch_part_free, \
    fetch_part_new, session_add, session_end, session_find, session_new, session_part, session_remove, session_to_end, sessions_free
from fastlog.native.slab cimport slab_free, slab_get, slab_put
from fastlog.native.table cimport Topic, table_by_id, table_by_name
from fastlog.native.timer cimport Timer, timer_arm, timer_disarm
from fastlog.native.wire cimport wire_length, wire_put_length, wire_put_string, wire_put_tags, wire_skip_tags, wire_string

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition) noexcept

cdef enum:
    OFFSET_OUT_OF_RANGE = 1
    UNKNOWN_TOPIC_OR_PARTITION = 3
    KAFKA_STORAGE_ERROR = 56
    SESSION_ID_NOT_FOUND = 70
    INVALID_SESSION_EPOCH = 71
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    UNKNOWN_TOPIC_ID = 100
    SESSION_TOPIC_ID_ERROR = 106

cdef enum Phase:
    READING = 0
    PARKED = 1
    UNPARKING = 2
    SENDING = 3

cdef struct Work

cdef struct FetchRead:
    Read read                       # first: a Read is its FetchRead
    FetchRead *next                 # of the request
    FetchPart *part                 # only while READING
    Work *work
    Shard *home
    int32_t reserved                # of the budget
    uint32_t bytes                  # as read; the log's own count goes with the pins
    bint out                        # with the owner
    uint8_t *copied                 # malloc'ed copy instead of pins, or NULL

cdef struct Work:
    Timer timer                     # first: a Timer is its Work
    Request *request                # NULL once it was released
    Shard *shard
    Session *session
    FetchPart *first                # without a session: its own
    FetchPart *last
    FetchPart *cursor
    FetchRead *reads
    Work *parked_next
    Work *parked_prev
    bint parked
    int64_t deadline_ns
    int32_t min_bytes
    int64_t budget
    int64_t total
    int32_t outstanding             # reads, watches and releases with other shards, reads with the store
    uint8_t phase
    bint committed
    bint wait
    bint failed                     # some partition has an error: answer at once
    bint aborted
    bint pumping
    bint incremental
    bint by_id
    bint copy_out                   # too much is pinned already


# ---- decode --------------------------------------------------------------------------------------------------------------------

cdef void fetch_start(Request *r) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef Reader *b = &r.body
    cdef bint flexible = r.version >= 12
    cdef Work *work
    cdef int32_t max_wait, session_id = 0, session_epoch = -1
    cdef int16_t error = 0
    cdef char text[96]
    counter_add(&shard.counters.fetch_requests, 1)
    work = <Work *> slab_get(&shard.fetch_free, &shard.fetch_free_n, FETCH_SLAB)
    if work == NULL:
        conn_close(r.conn, b"no memory for its request", False)
        request_ready(r)
        return
    work.request = r
    work.shard = shard
    work.by_id = r.version >= 13
    r.work = work
    r.release = release
    r.abort = abort
    r.unpin = unpin
    if r.version < 15:
        read_i32(b)                 # replica id
    max_wait = read_i32(b)
    work.min_bytes = read_i32(b)
    work.budget = read_i32(b)
    work.committed = read_i8(b) == 1
    if r.version >= 7:
        session_id = read_i32(b)
        session_epoch = read_i32(b)
    if work.budget > shard.limits.fetch_bytes_max:
        work.budget = shard.limits.fetch_bytes_max
    work.wait = max_wait > 0 and work.min_bytes > 0
    work.deadline_ns = shard.now_ns + <int64_t> (max_wait if max_wait > 0 else 0) * 1000000
    error = find_session(work, session_id, session_epoch)
    if error == 0 and not decode_topics(work, b, flexible, r.version):
        b.bad = True
    if error == 0 and r.version >= 7 and not b.bad:
        decode_forgotten(work, b, flexible)
    if b.bad:
        snprintf(text, sizeof(text), "a Fetch request (version %d) that can't be read", <int> r.version)
        finish(work)
        conn_close(r.conn, text, True)
        return
    if error:
        respond_error(work, error)
        return
    if work.session != NULL and not work.incremental and work.session.first == NULL:
        session_end(shard, work.session)
        work.session = NULL
    if work.session != NULL:
        work.session.busy = True
    if work.by_id or work.session != NULL:
        # nothing points into the request any more: a parked one holds no receive buffer
        buf_drop(&shard.bufs, r.frame)
        r.frame = NULL
    if first_part(work) == NULL:
        if work.session != NULL:
            end_session(work)
        work.wait = False
    look(work)


cdef int16_t find_session(Work *work, int32_t id, int32_t epoch) noexcept nogil:
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


cdef inline FetchPart *first_part(Work *work) noexcept nogil:
    return work.session.first if work.session != NULL else work.first


cdef bint decode_topics(Work *work, Reader *b, bint flexible, int16_t version) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef int64_t topics, n, _t, _i
    cdef const uint8_t *name
    cdef int32_t name_length
    cdef FetchPart wanted
    cdef FetchPart *part
    topics = wire_length(b, flexible)
    for _t in range(topics):
        name = NULL
        name_length = -1
        if work.by_id:
            name = reader_take(b, 16)
        else:
            name = wire_string(b, flexible, &name_length)
        if name == NULL:
            return False
        n = wire_length(b, flexible)
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
                    else:
                        work.first = part
                    work.last = part
            part.offset = wanted.offset
            part.bytes_max = wanted.bytes_max
            part.leader_epoch = wanted.leader_epoch
        wire_skip_tags(b, flexible)
        if b.bad:
            return False
    return not b.bad


cdef void decode_forgotten(Work *work, Reader *b, bint flexible) noexcept nogil:
    cdef int64_t topics, n, _t, _i
    cdef FetchPart wanted
    cdef FetchPart *part
    topics = wire_length(b, flexible)
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
        n = wire_length(b, flexible)
        for _i in range(n):
            wanted.index = read_i32(b)
            if b.bad:
                return
            part = session_part(work.session, &wanted) if work.session != NULL else NULL
            if part != NULL:
                session_remove(work.shard, work.session, part)
        wire_skip_tags(b, flexible)


# ---- the pass over the partitions ----------------------------------------------------------------------------------------------

cdef void find(Work *work, FetchPart *p) noexcept nogil:
    """Looks the partition up, unless it was and the table is still the same."""
    cdef Shard *shard = work.shard
    cdef Topic *topic
    if p.table_version == shard.table.version:
        return
    topic = table_by_id(&shard.table, p.topic_id) if p.by_id else table_by_name(&shard.table, p.name, p.name_length)
    p.table_version = shard.table.version
    p.part = NULL
    if topic == NULL:
        p.unknown = UNKNOWN_TOPIC_ID if p.by_id else UNKNOWN_TOPIC_OR_PARTITION
    elif p.index < 0 or p.index >= topic.n:
        p.unknown = UNKNOWN_TOPIC_OR_PARTITION
    else:
        p.part = topic.parts[p.index]
        p.unknown = KAFKA_STORAGE_ERROR     # where it could not be opened


cdef void look(Work *work) noexcept nogil:
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
            p.high_watermark = -1
            p.last_stable = -1
            p.log_start = -1
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
            if p.error == 0 and (p.offset < p.log_start or p.offset > end):
                p.error = OFFSET_OUT_OF_RANGE
            if p.error == 0:
                p.visible = p.last_stable if work.committed else p.high_watermark
                if p.visible > p.offset:
                    some = True
        if p.error:
            work.failed = True
        p = p.next
    if some:
        store_stats(work.shard.store, &stats)
        work.copy_out = stats.chunks > 0 and stats.chunks_pinned * 2 > stats.chunks
        work.phase = READING
        pump(work)
    elif work.wait and not work.failed and work.shard.now_ns < work.deadline_ns and not work.aborted:
        park(work)
    else:
        respond(work)


# ---- reading -------------------------------------------------------------------------------------------------------------------

cdef void pump(Work *work) noexcept nogil:
    """Starts reads, in order, while the budget lasts."""
    cdef FetchPart *p
    cdef Shard *shard = work.shard
    if work.pumping:
        return
    work.pumping = True
    while work.cursor != NULL and (work.budget > 0 or (work.total == 0 and work.outstanding == 0)):
        p = work.cursor
        work.cursor = p.next
        if p.error == 0 and p.visible > p.offset and not start_read(work, p):
            work.failed = True
            break
    work.pumping = False
    if work.outstanding:
        return
    if work.total >= work.min_bytes or work.failed or not work.wait or shard.now_ns >= work.deadline_ns or work.aborted:
        respond(work)
        return
    # not enough yet: give back what was read, wait for more
    work.budget += work.total
    release_reads(work)
    if work.outstanding == 0:
        park(work)
    else:
        work.phase = UNPARKING


cdef bint start_read(Work *work, FetchPart *p) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchRead *rd = <FetchRead *> slab_get(&shard.fetch_free, &shard.fetch_free_n, FETCH_SLAB)
    if rd == NULL:
        return False
    rd.next = work.reads
    work.reads = rd
    rd.work = work
    rd.home = shard
    rd.part = p
    p.read = rd
    rd.read.part = p.part
    rd.read.offset = p.offset
    rd.read.bytes_max = p.bytes_max if p.bytes_max < work.budget else <int32_t> work.budget
    rd.read.whole_first = work.total == 0 and work.outstanding == 0
    rd.read.committed_only = work.committed
    if rd.read.bytes_max <= 0:
        if not rd.read.whole_first:
            p.read = NULL
            work.reads = rd.next
            slab_put(&shard.fetch_free, &shard.fetch_free_n, rd)
            return True
        rd.read.bytes_max = 1
    rd.reserved = rd.read.bytes_max
    work.budget -= rd.reserved
    rd.out = True
    work.outstanding += 1
    p.part.users[shard.index] += 1
    if p.part.owner == shard.index:
        rd.read.done = read_here
        log_read(shard.store, &rd.read)
    else:
        counter_add(&shard.counters.cross_reads, 1)
        mail_send(shard.out[p.part.owner], MAIL_READ, 0, rd)
        shard.out_dirty = 1
    return True


cdef void read_here(Read *r) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> r
    fetch_read_done(rd.home, rd)


cdef void fetch_read_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    rd.read.done = read_for_other
    log_read(owner.store, &rd.read)


cdef void read_for_other(Read *r) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> r
    cdef Shard *owner = rd.home.peers[r.part.owner]
    mail_send(owner.out[rd.home.index], MAIL_READ_DONE, 0, rd)
    owner.out_dirty = 1


cdef void fetch_read_done(Shard *home, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    cdef Work *work = rd.work
    cdef FetchPart *p = rd.part
    work.outstanding -= 1
    rd.bytes = rd.read.bytes
    work.budget += rd.reserved - <int64_t> rd.bytes
    work.total += rd.bytes
    if rd.read.error:
        p.error = rd.read.error
        work.failed = True
    else:
        p.high_watermark = rd.read.high_watermark
        p.last_stable = rd.read.last_stable
        p.log_start = rd.read.log_start
        if work.copy_out and rd.bytes:
            copy_pins(work, rd)
    pump(work)


cdef bint copy_pins(Work *work, FetchRead *rd) noexcept nogil:
    """Too much of the log's memory is pinned by readers, or for too long: take a copy and let go, so that appends don't run out of it.
    Copies count as receive buffers do. False: no room for one."""
    cdef uint8_t *at = NULL
    cdef Pin *pin = rd.read.pins
    if work.shard.bufs.used + rd.bytes <= work.shard.bufs.used_max:
        at = <uint8_t *> malloc(rd.bytes)
    if at == NULL:
        return False
    work.shard.bufs.used += rd.bytes
    rd.copied = at
    while pin != NULL:
        memcpy(at, pin.base, pin.length)
        at += pin.length
        pin = pin.next
    counter_add(&work.shard.counters.copied_out, 1)
    counter_add(&work.shard.counters.copied_out_bytes, rd.bytes)
    release_read(work, rd)
    return True


cdef bint unpin(Request *r) noexcept nogil:
    cdef Work *work = <Work *> r.work
    cdef FetchRead *rd = work.reads
    cdef uint8_t *at
    cdef int32_t i
    while rd != NULL:
        if rd.out and rd.bytes:
            # the copy takes the place of the pins in the response: each pin is one iovec, and they follow one another
            i = 0
            while i < r.n_iov and r.iov[i].iov_base != rd.read.pins.base:
                i += 1
            if not copy_pins(work, rd):
                return False
            at = rd.copied
            while at < rd.copied + rd.bytes and i < r.n_iov:
                r.iov[i].iov_base = at
                at += r.iov[i].iov_len
                i += 1
        rd = rd.next
    return True


cdef void release_read(Work *work, FetchRead *rd) noexcept nogil:
    """Gives the pins back to their owner; `out` again until it has them."""
    cdef Shard *shard = work.shard
    if not rd.out:
        return
    if rd.read.part.owner == shard.index:
        log_release(shard.store, &rd.read)
        rd.out = False
        rd.read.part.users[shard.index] -= 1
    else:
        rd.out = False
        work.outstanding += 1
        mail_send(shard.out[rd.read.part.owner], MAIL_RELEASE, 0, rd)
        shard.out_dirty = 1


cdef void fetch_release_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    log_release(owner.store, &rd.read)
    mail_send(owner.out[rd.home.index], MAIL_RELEASED, 0, rd)
    owner.out_dirty = 1


cdef void fetch_released(Shard *home, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    cdef Work *work = rd.work
    rd.read.part.users[home.index] -= 1
    work.outstanding -= 1
    if work.phase == SENDING:
        if work.request == NULL and work.outstanding == 0:
            free_work(work)
    elif work.outstanding == 0:
        if work.phase == READING:
            pump(work)
        else:
            free_reads(work)
            if work.wait and not work.aborted:
                park(work)
            else:
                look(work)


cdef void release_reads(Work *work) noexcept nogil:
    cdef FetchRead *rd = work.reads
    while rd != NULL:
        release_read(work, rd)
        rd = rd.next
    if work.outstanding == 0:
        free_reads(work)


cdef void free_reads(Work *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchRead *rd
    while work.reads != NULL:
        rd = work.reads
        work.reads = rd.next
        if rd.copied != NULL:
            shard.bufs.used -= rd.bytes
            free(rd.copied)
        slab_put(&shard.fetch_free, &shard.fetch_free_n, rd)


# ---- waiting -------------------------------------------------------------------------------------------------------------------

cdef void park(Work *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchPart *p
    work.phase = PARKED
    work.parked = True
    work.parked_prev = NULL
    work.parked_next = <Work *> shard.parked
    if work.parked_next != NULL:
        work.parked_next.parked_prev = work
    shard.parked = work
    counter_add(&shard.counters.fetch_parked, 1)
    work.timer.fired = timed_out
    if timer_arm(&shard.timers, &work.timer, work.deadline_ns) < 0:
        work.wait = False
        unpark(work)
        return
    p = first_part(work)
    while p != NULL:
        p.watch.part = p.part
        p.watch.past = p.high_watermark
        p.part.users[shard.index] += 1
        p.held = True
        if p.part.owner == shard.index:
            p.watch.fired = fired_here
            p.watch_state = WATCH_HERE
            log_watch(shard.store, &p.watch)
        else:
            p.watch_state = WATCH_THERE
            work.outstanding += 1
            mail_send(shard.out[p.part.owner], MAIL_WATCH, 0, p)
            shard.out_dirty = 1
        p = p.next


cdef void timed_out(Timer *t) noexcept nogil:
    cdef Work *work = <Work *> t
    work.wait = False
    unpark(work)


cdef void fired_here(Watch *w) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> w
    p.watch_state = WATCH_NONE
    counter_add(&p.home.counters.fetch_woken, 1)
    unpark(<Work *> p.work)


cdef void fetch_watch_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    p.watch.fired = fired_for_other
    log_watch(owner.store, &p.watch)


cdef void fired_for_other(Watch *w) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> w
    cdef Shard *owner = p.home.peers[w.part.owner]
    mail_send(owner.out[p.home.index], MAIL_FIRED, 0, p)
    owner.out_dirty = 1


cdef void fetch_unwatch_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    if p.watch.armed:
        log_unwatch(owner.store, &p.watch)
    mail_send(owner.out[p.home.index], MAIL_UNWATCHED, 0, p)
    owner.out_dirty = 1


cdef void fetch_fired(Shard *home, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    cdef Work *work = <Work *> p.work
    if p.watch_state == WATCH_ENDING:
        return                      # the answer to our UNWATCH is on its way behind this
    p.watch_state = WATCH_NONE
    work.outstanding -= 1
    counter_add(&home.counters.fetch_woken, 1)
    unpark(work)


cdef void fetch_unwatched(Shard *home, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    cdef Work *work = <Work *> p.work
    p.watch_state = WATCH_NONE
    work.outstanding -= 1
    if work.outstanding == 0:
        unwatched(work)


cdef void unpark(Work *work) noexcept nogil:
    """Takes all watches back; goes on when the last one is."""
    cdef Shard *shard = work.shard
    cdef FetchPart *p
    if work.phase != PARKED:
        return
    work.phase = UNPARKING
    timer_disarm(&shard.timers, &work.timer)
    if work.parked_prev != NULL:
        work.parked_prev.parked_next = work.parked_next
    else:
        shard.parked = work.parked_next
    if work.parked_next != NULL:
        work.parked_next.parked_prev = work.parked_prev
    work.parked = False
    p = first_part(work)
    while p != NULL:
        if p.watch_state == WATCH_HERE:
            log_unwatch(shard.store, &p.watch)
            p.watch_state = WATCH_NONE
        elif p.watch_state == WATCH_THERE:
            p.watch_state = WATCH_ENDING
            mail_send(shard.out[p.part.owner], MAIL_UNWATCH, 0, p)
            shard.out_dirty = 1
        p = p.next
    if work.outstanding == 0:
        unwatched(work)


cdef void unwatched(Work *work) noexcept nogil:
    cdef FetchPart *p = first_part(work)
    while p != NULL:
        if p.held:
            p.watch.part.users[work.shard.index] -= 1
            p.held = False
        p = p.next
    look(work)


cdef void fetch_recheck(Shard *shard) noexcept nogil:
    cdef Work *work = <Work *> shard.parked
    cdef Work *following
    while work != NULL:
        following = work.parked_next
        unpark(work)
        work = following


cdef void abort(Request *r) noexcept nogil:
    cdef Work *work = <Work *> r.work
    work.aborted = True
    work.wait = False
    if work.phase == PARKED:
        unpark(work)


# ---- answer --------------------------------------------------------------------------------------------------------------------

cdef inline bint told(Work *work, const FetchPart *p) noexcept nogil:
    """Whether the response names this partition."""
    if not work.incremental:
        return True
    return p.error != 0 or (p.read != NULL and (<FetchRead *> p.read).bytes > 0) or \
        p.high_watermark != p.sent_high_watermark or p.log_start != p.sent_log_start


cdef inline bint same_topic(const FetchPart *a, const FetchPart *b) noexcept nogil:
    if a.by_id:
        return memcmp(a.topic_id, b.topic_id, 16) == 0
    return a.name_length == b.name_length and (a.name == b.name or memcmp(a.name, b.name, a.name_length) == 0)


cdef void respond_error(Work *work, int16_t error) noexcept nogil:
    cdef Request *r = work.request
    cdef bint flexible = r.version >= 12
    cdef Writer w
    writer_init(&w, response_room(r, 32), 32)
    if w.p != NULL:
        write_i32(&w, 0)
        write_i16(&w, error)
        write_i32(&w, 0)
        wire_put_length(&w, flexible, 0)
        wire_put_tags(&w, flexible)
        r.iov[0].iov_base = r.out
        r.iov[0].iov_len = w.p - r.out
        r.n_iov = 1
    finish(work)


cdef void finish(Work *work) noexcept nogil:
    """The response is complete, or there is none."""
    work.phase = SENDING
    if work.session != NULL:
        work.session.busy = False
        if work.session.doomed:
            session_end(work.shard, work.session)
        work.session = NULL
    request_ready(work.request)


cdef void end_session(Work *work) noexcept nogil:
    """A session without partitions is none."""
    session_end(work.shard, work.session)
    work.session.busy = False
    session_end(work.shard, work.session)
    work.session = NULL


cdef void respond(Work *work) noexcept nogil:
    cdef Request *r = work.request
    cdef Shard *shard = work.shard
    cdef bint flexible = r.version >= 12
    cdef FetchPart *p = first_part(work)
    cdef FetchPart *before = NULL
    cdef FetchPart *following
    cdef FetchRead *rd
    cdef Pin *pin
    cdef Writer w
    cdef uint32_t room = 64
    cdef int32_t n_topics = 0, n_iov = 1, n_parts
    cdef uint8_t *from_
    while p != NULL:
        if told(work, p):
            room += 64
            if before == NULL or not same_topic(before, p):
                n_topics += 1
                room += 28 + (p.name_length if p.name_length > 0 else 0)
            before = p
            if p.read != NULL:
                pin = (<FetchRead *> p.read).read.pins
                n_iov += 2
                while pin != NULL:
                    n_iov += 1
                    pin = pin.next
        p = p.next
    writer_init(&w, response_room(r, room), room)
    if w.p == NULL or response_iov_room(r, n_iov) < 0 or work.aborted:
        if not work.aborted:
            conn_close(r.conn, b"no memory for its response", False)
        r.n_iov = 0
        finish(work)
        return
    from_ = r.out
    r.n_iov = 0
    write_i32(&w, 0)                # throttle time
    if r.version >= 7:
        write_i16(&w, 0)
        write_i32(&w, work.session.id if work.session != NULL else 0)
    wire_put_length(&w, flexible, n_topics)
    before = NULL
    p = first_part(work)
    while p != NULL:
        following = p.next
        if not told(work, p):
            p = following
            continue
        if before == NULL or not same_topic(before, p):
            if before != NULL:
                wire_put_tags(&w, flexible)
            if p.by_id:
                write_bytes(&w, p.topic_id, 16)
            else:
                wire_put_string(&w, flexible, p.name, p.name_length)
            n_parts = parts_of_run(work, p)
            wire_put_length(&w, flexible, n_parts)
        before = p
        rd = <FetchRead *> p.read
        put_part(&w, work, p, rd, r.version, flexible)
        if rd != NULL and rd.bytes and p.error == 0:
            counter_add(&shard.counters.fetch_bytes, rd.bytes)
            r.iov[r.n_iov].iov_base = from_
            r.iov[r.n_iov].iov_len = w.p - from_
            r.n_iov += 1
            from_ = w.p
            put_records(r, rd)
        wire_put_tags(&w, flexible)
        p.sent_high_watermark = p.high_watermark
        p.sent_log_start = p.log_start
        p = following
    if before != NULL:
        wire_put_tags(&w, flexible)
    wire_put_tags(&w, flexible)
    if w.p > from_:
        r.iov[r.n_iov].iov_base = from_
        r.iov[r.n_iov].iov_len = w.p - from_
        r.n_iov += 1
    if work.session != NULL:
        rotate(work.session)
    finish(work)


cdef int32_t parts_of_run(Work *work, FetchPart *p) noexcept nogil:
    """How many partitions that are told follow one another with this one's topic."""
    cdef FetchPart *first = p
    cdef int32_t n = 0
    while p != NULL:
        if told(work, p):
            if not same_topic(first, p):
                break
            n += 1
        p = p.next
    return n


cdef void put_part(Writer *w, Work *work, const FetchPart *p, const FetchRead *rd, int16_t version, bint flexible) noexcept nogil:
    write_i32(w, p.index)
    write_i16(w, p.error)
    write_i64(w, p.high_watermark)
    write_i64(w, p.last_stable)
    if version >= 5:
        write_i64(w, p.log_start)
    wire_put_length(w, flexible, 0 if work.committed else -1)       # aborted transactions
    if version >= 11:
        write_i32(w, -1)            # preferred read replica
    wire_put_length(w, flexible, rd.bytes if rd != NULL and p.error == 0 else 0)


cdef void put_records(Request *r, FetchRead *rd) noexcept nogil:
    cdef Pin *pin = rd.read.pins
    if rd.copied != NULL:
        r.iov[r.n_iov].iov_base = rd.copied
        r.iov[r.n_iov].iov_len = rd.bytes
        r.n_iov += 1
        return
    r.pinned = True
    while pin != NULL:
        r.iov[r.n_iov].iov_base = pin.base
        r.iov[r.n_iov].iov_len = pin.length
        r.n_iov += 1
        pin = pin.next


cdef void rotate(Session *s) noexcept nogil:
    """Partitions that gave data go to the end, so that the others come first next time (as Kafka's cache does)."""
    cdef FetchPart *p = s.first
    cdef FetchPart *following
    cdef int32_t n = s.n
    while n:
        following = p.next
        if p.read != NULL and (<FetchRead *> p.read).bytes:
            session_to_end(s, p)
        p = following
        n -= 1


cdef void release(Request *r) noexcept nogil:
    """The response was sent or dropped."""
    cdef Work *work = <Work *> r.work
    cdef FetchRead *rd = work.reads
    while rd != NULL:
        release_read(work, rd)
        rd = rd.next
    work.request = NULL
    if work.outstanding == 0:
        free_work(work)


cdef void free_work(Work *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchPart *p
    free_reads(work)
    while work.first != NULL:
        p = work.first
        work.first = p.next
        fetch_part_free(shard, p)
    slab_put(&shard.fetch_free, &shard.fetch_free_n, work)


cdef void fetch_init() noexcept nogil:
    FL_ASSERT(sizeof(FetchPart) <= FETCH_SLAB and sizeof(FetchRead) <= FETCH_SLAB and sizeof(Work) <= FETCH_SLAB)


cdef void fetch_free(Shard *shard) noexcept nogil:
    sessions_free(shard)
    slab_free(&shard.fetch_free, &shard.fetch_free_n)
