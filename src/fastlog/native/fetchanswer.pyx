"""See fetchanswer.pxd."""
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.string cimport memcmp

from fastlog.native.bytes cimport Writer, write_bytes, write_i16, write_i32, write_i64, writer_init
from fastlog.native.conn cimport conn_close, request_count, request_ready, response_iov_room, response_room
from fastlog.native.fetchread cimport fetch_read_copy, fetch_read_release, fetch_reads_free
from fastlog.native.fetchwork cimport FETCH_SENDING, FetchRead, FetchWork, first_part
from fastlog.native.log cimport Pin
from fastlog.native.net cimport Request, Shard, counter_add
from fastlog.native.quota cimport QUOTA_FETCH
from fastlog.native.session cimport FetchPart, Session, fetch_part_free, session_end, session_to_end
from fastlog.native.slab cimport slab_put
from fastlog.native.wire cimport wire_put_length, wire_put_string, wire_put_tags

cdef enum:
    UNKNOWN_TOPIC_OR_PARTITION = 3
    UNKNOWN_TOPIC_ID = 100


cdef inline bint told(FetchWork *work, const FetchPart *p) noexcept nogil:
    """Whether the response names this partition."""
    if not work.incremental:
        return True
    return p.error != 0 or (p.read != NULL and (<FetchRead *> p.read).bytes > 0) or \
        p.high_watermark != p.sent_high_watermark or p.log_start != p.sent_log_start


cdef inline bint same_topic(const FetchPart *a, const FetchPart *b) noexcept nogil:
    if a.by_id:
        return memcmp(a.topic_id, b.topic_id, 16) == 0
    return a.name_length == b.name_length and (a.name == b.name or memcmp(a.name, b.name, a.name_length) == 0)


cdef void fetch_answer(FetchWork *work) noexcept nogil:
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
                room += <uint32_t> (<FetchRead *> p.read).aborted.n * 17
                pin = (<FetchRead *> p.read).read.pins
                n_iov += 2
                while pin != NULL:
                    n_iov += 1
                    pin = pin.next
        p = p.next
    if work.quota:
        request_count(r, QUOTA_FETCH, work.total + room)
    if r.throttle_ms:
        answer_throttled(work)
        return
    writer_init(&w, response_room(r, room), room)
    if w.p == NULL or response_iov_room(r, n_iov) < 0 or work.aborted:
        if not work.aborted:
            conn_close(r.conn, b"no memory for its response", False)
        r.n_iov = 0
        fetch_finish(work)
        return
    from_ = r.out
    r.n_iov = 0
    write_i32(&w, 0)                # throttle time: a response that is throttled is empty
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
    fetch_finish(work)


cdef int32_t parts_of_run(FetchWork *work, FetchPart *p) noexcept nogil:
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


cdef void put_part(Writer *w, FetchWork *work, const FetchPart *p, const FetchRead *rd, int16_t version, bint flexible) noexcept nogil:
    cdef int32_t i
    cdef int32_t n
    write_i32(w, p.index)
    write_i16(w, p.error)
    write_i64(w, p.high_watermark)
    write_i64(w, p.last_stable)
    if version >= 5:
        write_i64(w, p.log_start)
    if p.error == UNKNOWN_TOPIC_OR_PARTITION or p.error == UNKNOWN_TOPIC_ID:
        wire_put_length(w, flexible, 0)         # aborted transactions
    elif p.error or not work.committed or ((rd == NULL or rd.bytes == 0) and p.visible > p.offset):
        wire_put_length(w, flexible, -1)        # nor where there is a batch that did not fit, as Kafka
    else:
        n = rd.aborted.n if rd != NULL else 0
        wire_put_length(w, flexible, n)
        for i in range(n):
            write_i64(w, rd.aborted.at[i].producer_id)
            write_i64(w, rd.aborted.at[i].first_offset)
            wire_put_tags(w, flexible)
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


cdef void answer_throttled(FetchWork *work) noexcept nogil:
    """Nothing but how long to wait; what was read is given back with the request. A session that is new does not begin (as Kafka's)."""
    cdef int32_t session_id = 0
    if work.session != NULL and work.incremental:
        session_id = work.session.id
    elif work.session != NULL:
        session_end(work.shard, work.session)
    empty(work, 0, session_id)


cdef void fetch_answer_error(FetchWork *work, int16_t error) noexcept nogil:
    empty(work, error, 0)


cdef void empty(FetchWork *work, int16_t error, int32_t session_id) noexcept nogil:
    cdef Request *r = work.request
    cdef bint flexible = r.version >= 12
    cdef Writer w
    writer_init(&w, response_room(r, 32), 32)
    if w.p != NULL:
        write_i32(&w, r.throttle_ms)
        if r.version >= 7:
            write_i16(&w, error)
            write_i32(&w, session_id)
        wire_put_length(&w, flexible, 0)
        wire_put_tags(&w, flexible)
        r.iov[0].iov_base = r.out
        r.iov[0].iov_len = w.p - r.out
        r.n_iov = 1
    fetch_finish(work)


# ---- the request's end ---------------------------------------------------------------------------------------------------------

cdef void fetch_finish(FetchWork *work) noexcept nogil:
    work.phase = FETCH_SENDING
    if work.session != NULL:
        work.session.busy = False
        if work.session.doomed:
            session_end(work.shard, work.session)
        work.session = NULL
    request_ready(work.request)


cdef bint fetch_unpin(Request *r) noexcept nogil:
    cdef FetchWork *work = <FetchWork *> r.work
    cdef FetchRead *rd = work.reads
    cdef uint8_t *at
    cdef int32_t i
    while rd != NULL:
        if rd.out and rd.bytes:
            # the copy takes the place of the pins in the response: each pin is one iovec, and they follow one another
            i = 0
            while i < r.n_iov and r.iov[i].iov_base != rd.read.pins.base:
                i += 1
            if not fetch_read_copy(work, rd):
                return False
            at = rd.copied
            while at < rd.copied + rd.bytes and i < r.n_iov:
                r.iov[i].iov_base = at
                at += r.iov[i].iov_len
                i += 1
        rd = rd.next
    return True


cdef void fetch_release(Request *r) noexcept nogil:
    cdef FetchWork *work = <FetchWork *> r.work
    cdef FetchRead *rd = work.reads
    while rd != NULL:
        fetch_read_release(work, rd)
        rd = rd.next
    work.request = NULL
    if work.outstanding == 0:
        fetch_work_free(work)


cdef void fetch_work_free(FetchWork *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchPart *p
    fetch_reads_free(work)
    while work.first != NULL:
        p = work.first
        work.first = p.next
        fetch_part_free(shard, p)
    slab_put(&shard.fetch_free, &shard.fetch_free_n, work)
