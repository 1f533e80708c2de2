"""Taking appends into a log. See accept.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from fastlog.native.aborted cimport aborted_add, aborted_room
from fastlog.native.arena cimport (
    BLOCK, CHUNK, CHUNK_COLD, CHUNK_TAIL, Chunk, arena_available, arena_drop, arena_find, arena_grow, arena_hold, arena_promote,
    arena_settle, arena_take, chunk_label, chunk_publish,
)
from fastlog.native.batch cimport ATTR_CONTROL, ATTR_TRANSACTIONAL, batch_stamp
from fastlog.native.batchrecords cimport Marker, batch_marker
from fastlog.native.index cimport index_add, index_full
from fastlog.native.log cimport Append, Partition, position_set
from fastlog.native.producers cimport (
    PRODUCER_DUPLICATE, PRODUCER_OK, ProducerBatch, producers_add, producers_check, producers_check_end, producers_end, producers_shed,
    producers_stable,
)
from fastlog.native.promise cimport append_answer, promise_add, promise_repeat
from fastlog.native.runway cimport next_segment_ready, runway_ahead, runway_need, segment_roll
from fastlog.native.store cimport (
    Ended, KAFKA_STORAGE_ERROR, LogState, MESSAGE_TOO_LARGE, NEED_DURABLE, NEED_WRITTEN, RECENT, RECORD_LIST_TOO_LARGE, Segment, StoreState,
    UNKNOWN_TOPIC_OR_PARTITION, clock_ms, log_ready,
)
from fastlog.native.verify cimport Verification, verify_end, verify_find

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)

cdef extern from "accept_copy.h":
    void copy_past_cache "fl_copy_past_cache"(uint8_t *to, const uint8_t *from_, size_t n) nogil

cdef enum:
    TAKEN = 0
    WAIT = 1                        # for blocks or a segment: a job will step the log
    WAIT_CHUNKS = 2
    OFFSETS_MAX = 2147483647        # relative to a segment's base


cdef bint must_roll(const LogState *log, const Append *a) noexcept nogil:
    """Kafka's rule: by size, by the time between first and newest record, by a full index, by the range of relative offsets."""
    cdef Segment *seg = log.active
    cdef int64_t since
    if seg.size == 0:
        return False
    if log.roll_asked or seg.size > log.settings.segment_bytes - a.info.size or index_full(seg.index, log.settings.segment_index_bytes):
        return True
    if log.part.at.log_end + a.info.last_offset_delta - seg.base_offset > OFFSETS_MAX:
        return True
    if seg.first_timestamp >= 0:
        since = a.info.max_timestamp - seg.first_timestamp
    elif log.settings.segment_ms < <int64_t> 1 << 62:
        since = clock_ms() - seg.created_ms
    else:
        since = 0
    return since > log.settings.segment_ms - seg.roll_jitter_ms


cdef Chunk *tail_take(LogState *log, int64_t at) noexcept nogil:
    """The chunk that holds file position `at` of the active segment, where the next batch begins; held, not dirty. NULL: none free."""
    cdef StoreState *s = log.store
    cdef Segment *seg = log.active
    cdef int64_t window = at & ~(<int64_t> CHUNK - 1)
    cdef uint32_t inside = <uint32_t> (at - window)
    cdef uint32_t block = inside & ~(<uint32_t> BLOCK - 1)
    cdef Chunk *c = log.tail
    if c != NULL and c.window == window:
        arena_hold(s.arena, c)
        return c
    if c != NULL:
        c.owner = NULL
        log.tail = NULL
    c = arena_find(s.arena, &seg.chunks, window)
    if c != NULL and c.kind == CHUNK_COLD and not c.busy and c.start == 0 and c.end == inside:
        arena_promote(s.arena, c)
    else:
        if c != NULL:
            arena_drop(s.arena, c)
        c = arena_take(s.arena, CHUNK_TAIL, &seg.chunks, window)
        if c == NULL:
            return NULL
        c.start = block
        c.end = inside
        if inside > block:
            FL_ASSERT(log.partial != NULL)
            memcpy(c.data + block, log.partial, inside - block)
            if log.partial_doubted:
                c.doubt_from = block
                c.doubt_to = inside
    c.written = inside
    free(log.partial)
    log.partial = NULL
    chunk_label(c, log.part.topic_id, log.part.index, seg.base_offset)
    chunk_publish(c)
    c.owner = log
    log.tail = c
    return c


cdef void tail_evicting(Chunk *c) noexcept nogil:
    cdef LogState *log = <LogState *> c.owner
    cdef uint32_t block = c.end & ~(<uint32_t> BLOCK - 1)
    FL_ASSERT(log.tail == c and not c.dirty)
    log.tail = NULL
    if c.end > block:
        log.partial = <uint8_t *> malloc(c.end - block)
        FL_ASSERT(log.partial != NULL)
        memcpy(log.partial, c.data + block, c.end - block)
        log.partial_doubted = c.doubt_to > block


cdef void copy_in(LogState *log, Chunk *c, const uint8_t *data, int64_t n) noexcept nogil:
    """Into the tail chunk c and new ones after it, of which there are enough; published when all of it is there."""
    cdef StoreState *s = log.store
    cdef Segment *seg = log.active
    cdef Chunk *first = c
    cdef int64_t window = c.window
    cdef int64_t take
    while True:
        take = CHUNK - c.end
        if take > n:
            take = n
        copy_past_cache(c.data + c.end, data, <size_t> take)
        c.end += <uint32_t> take
        c.dirty = True
        data += take
        n -= take
        if n == 0:
            break
        window += CHUNK
        c.owner = NULL
        c = arena_take(s.arena, CHUNK_TAIL, &seg.chunks, window)
        FL_ASSERT(c != NULL)
        chunk_label(c, log.part.topic_id, log.part.index, seg.base_offset)
    c.owner = log
    log.tail = c
    if first.header != NULL:
        while first != c:
            chunk_publish(first)
            first = arena_find(s.arena, &seg.chunks, first.window + CHUNK)
        chunk_publish(c)


cdef int16_t check_producer(LogState *log, const Append *a, const ProducerBatch **original) noexcept nogil:
    cdef const Verification *asked = NULL
    cdef Marker marker
    cdef bint may_begin = True
    if a.info.attributes & ATTR_CONTROL:
        if batch_marker(a.data, <size_t> a.info.size, &marker) < 0:
            return PRODUCER_OK      # of another kind
        return producers_check_end(&log.producers, &a.info, &marker, a.txn_version)
    if a.client:
        if log.verifications.n:
            asked = verify_find(&log.verifications, a.info.producer_id)
        if a.info.attributes & ATTR_TRANSACTIONAL:
            may_begin = a.added or (asked != NULL and asked.guard == a.guard)
    return producers_check(&log.producers, &a.info, may_begin, asked, original)


cdef void end_txn(LogState *log, const Append *a, Ended *ended) noexcept nogil:
    """Takes a marker into account, for which there is room in the index. Takes `ended` over."""
    cdef Segment *seg = log.active
    cdef int64_t base = log.part.at.log_end
    cdef int64_t stable
    cdef Marker marker
    if batch_marker(a.data, <size_t> a.info.size, &marker) < 0:
        free(ended)
        return
    stable = producers_stable(&log.producers, a.info.producer_id, base)
    if producers_end(&log.producers, &a.info, &marker, &ended.first_offset, &ended.position) < 0 or ended.first_offset < 0:
        free(ended)
        return
    if not marker.commit:
        aborted_add(&seg.index.aborted, a.info.producer_id, ended.first_offset, base, stable)
        log.aborted_seen = True
        if ended.first_offset < seg.aborted_least:
            seg.aborted_least = ended.first_offset
    ended.last_offset = base
    if log.ended_last != NULL:
        log.ended_last.next = ended
    else:
        log.ended = ended
    log.ended_last = ended


cdef int take_in(LogState *log, Append *a) noexcept nogil:
    """Accepts one append, or answers it, or says what it must wait for."""
    cdef StoreState *s = log.store
    cdef Partition *part = log.part
    cdef Segment *seg
    cdef const ProducerBatch *original = NULL
    cdef Ended *ended = NULL
    cdef Chunk *c
    cdef int64_t size = a.info.size
    cdef int64_t base = part.at.log_end
    cdef int64_t at
    cdef int64_t more
    cdef int16_t error
    cdef int need
    cdef uint32_t before
    if size > (<int64_t> (s.arena.ready if s.arena.grow_failed else s.arena.capacity) << 16) // 2:
        append_answer(log, a, MESSAGE_TOO_LARGE, -1)
        return TAKEN
    if size > log.settings.segment_bytes:
        append_answer(log, a, RECORD_LIST_TOO_LARGE, -1)
        return TAKEN
    if a.acks == 0:
        need = 0
    elif a.acks == 1 or log.settings.write_caching:
        need = 0 if s.arena.fd >= 0 else NEED_WRITTEN
    else:
        need = NEED_DURABLE
    if need != NEED_DURABLE and log.unflushed + a.info.last_offset_delta + 1 >= log.settings.flush_messages and a.acks != 0:
        need = NEED_DURABLE
    if a.info.producer_id >= 0:
        error = check_producer(log, a, &original)
        if error == PRODUCER_DUPLICATE:
            if a.append_time >= 0:
                a.append_time = original.timestamp
            promise_repeat(log, a, need, original.last_offset - original.delta, original.end)
            return TAKEN
        if error:
            append_answer(log, a, error, -1)
            return TAKEN
    if must_roll(log, a):
        if not next_segment_ready(log) or not segment_roll(log):
            return WAIT
    seg = log.active
    at = seg.size
    if at + size > log.allocated:
        runway_need(log, at + size)
        return WAIT
    if s.chunk_line != NULL and s.chunk_line != log:
        c = log.tail                    # others wait for chunks: go on only where none is needed
        if c == NULL or c.window + CHUNK < at + size or c.window != at & ~(<int64_t> CHUNK - 1):
            return WAIT_CHUNKS
    c = tail_take(log, at)
    if c == NULL:
        return WAIT_CHUNKS
    more = (at + size - 1) // CHUNK - c.window // CHUNK
    if more > 0 and arena_available(s.arena, CHUNK_TAIL) < more:
        arena_settle(s.arena, c)
        arena_grow(s.arena)
        return WAIT_CHUNKS
    if a.info.producer_id >= 0 and a.info.attributes & ATTR_CONTROL:
        ended = <Ended *> calloc(1, sizeof(Ended))
        if ended == NULL or aborted_room(&seg.index.aborted, 1) < 0:
            free(ended)
            arena_settle(s.arena, c)
            append_answer(log, a, KAFKA_STORAGE_ERROR, -1)
            return TAKEN

    # From here on nothing can fail.
    batch_stamp(a.data, base, <int32_t> part.at.leader_epoch)
    if a.info.producer_id >= 0:
        before = log.producers.count
        if ended != NULL:
            end_txn(log, a, ended)
        else:
            producers_add(&log.producers, &a.info, base, log.end + size)
        if log.verifications.n:
            verify_end(&log.verifications, a.info.producer_id)
        if log.producers.count != before:
            s.producers_n += 1
            if s.producers_n > s.producers_max:
                s.producers_n -= log.producers.count
                producers_shed(&log.producers)
                s.producers_n += log.producers.count
    copy_in(log, c, a.data, size)
    if at == 0:
        seg.first_timestamp = a.info.max_timestamp
    index_add(seg.index, base + a.info.last_offset_delta, at, a.info.max_timestamp, log.settings.index_interval_bytes)
    log.recent_offset[log.recent_n % RECENT] = base
    log.recent_position[log.recent_n % RECENT] = log.end
    log.recent_n += 1
    seg.size += size
    log.end += size
    s.dirty += size
    s.stats.appended_batches += 1
    s.stats.appended_bytes += <uint64_t> size
    a.base_offset = base
    a.end = log.end
    position_set(&part.at.bytes, part.at.bytes + size)
    position_set(&part.at.log_end, base + a.info.last_offset_delta + 1)
    log.unflushed += a.info.last_offset_delta + 1
    if need == NEED_DURABLE:
        log.durable_seen = True
    elif log.unflushed >= log.settings.flush_messages:
        log.wanted = log.end
    runway_ahead(log)
    log_ready(log)
    promise_add(log, a, need)
    return TAKEN


cdef void join_chunk_line(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    if log.parked_chunks:
        return
    log.parked_chunks = True
    log.chunk_next = NULL
    if s.chunk_line_last != NULL:
        s.chunk_line_last.chunk_next = log
    else:
        s.chunk_line = log
    s.chunk_line_last = log


cdef void leave_chunk_line(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    cdef LogState **at = &s.chunk_line
    cdef LogState *before = NULL
    if not log.parked_chunks:
        return
    while at[0] != log:
        before = at[0]
        at = &at[0].chunk_next
    at[0] = log.chunk_next
    if s.chunk_line_last == log:
        s.chunk_line_last = before
    log.parked_chunks = False
    log.chunk_next = NULL


cdef void accept_append(LogState *log, Append *a) noexcept nogil:
    cdef int how
    a.error = 0
    a.base_offset = -1
    a.next = NULL
    if log.closing:
        append_answer(log, a, UNKNOWN_TOPIC_OR_PARTITION, -1)
        return
    if log.part.at.offline:
        append_answer(log, a, KAFKA_STORAGE_ERROR, -1)
        return
    if log.parked == NULL:
        how = take_in(log, a)
        if how == TAKEN:
            return
        if how == WAIT_CHUNKS:
            join_chunk_line(log)
    log.store.stats.parked += 1
    if log.parked_last != NULL:
        log.parked_last.next = a
    else:
        log.parked = a
    log.parked_last = a


cdef void accept_parked(LogState *log) noexcept nogil:
    cdef Append *a
    cdef int how
    while log.parked != NULL and not log.closing and not log.part.at.offline:
        a = log.parked
        log.parked = a.next             # as take_in may call done, which may append
        if log.parked == NULL:
            log.parked_last = NULL
        a.next = NULL
        how = take_in(log, a)
        if how == TAKEN:
            continue
        a.next = log.parked
        log.parked = a
        if log.parked_last == NULL:
            log.parked_last = a
        if how == WAIT_CHUNKS:
            join_chunk_line(log)
        else:
            leave_chunk_line(log)
        return
    leave_chunk_line(log)


cdef void accept_chunk_line(StoreState *s) noexcept nogil:
    cdef LogState *log
    while s.chunk_line != NULL:
        log = s.chunk_line
        accept_parked(log)
        if s.chunk_line == log:
            return
