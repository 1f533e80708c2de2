"""Reading a log. See read.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from fastlog.native.aborted cimport aborted_collect, aborted_free
from fastlog.native.arena cimport (
    BLOCK, CHUNK, CHUNK_COLD, CHUNK_SHIFT, Arena, Chunk, arena_available, arena_drop, arena_find, arena_hold, arena_pin, arena_settle,
    arena_take, arena_unpin, whole_blocks,
)
from fastlog.native.batch cimport BATCH_HEADER, BATCH_PREFIX
from fastlog.native.bytes cimport get32, get64
from fastlog.native.files cimport file_memory
from fastlog.native.index cimport Index, index_bound, index_position
from fastlog.native.loadline cimport ECANCELED, LOADING_PIECE, loadline_put
from fastlog.native.log cimport Partition, Pin, Read
from fastlog.native.ring cimport iovec
from fastlog.native.segment cimport (
    segment_aborted_index, segment_failed, segment_index, segment_of, segment_ready, segment_unuse, segment_use,
)
from fastlog.native.slab cimport slab_get, slab_put
from fastlog.native.vouch cimport vouch, vouch_deny, vouch_for_one, vouch_forget
from fastlog.native.store cimport (
    KAFKA_STORAGE_ERROR, LOADS_MAX, LOAD_CHUNKS, Load, Loading, LogState, OFFSET_OUT_OF_RANGE, RECENT, SEQUENTIAL, Segment, Sequence,
    StoreState, UNKNOWN_TOPIC_OR_PARTITION, log_ready,
)

cdef enum:
    DONE = 0
    WAIT = 1
    TAKEN = 2                       # someone else ends the read
    PEEK = 27                       # bytes of a batch header up to the last offset delta
    AHEAD_MAX = 2097152             # bytes read ahead of a reader


cdef void starve(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    if log.reads_starved:
        return
    log.reads_starved = True
    log.starved_next = NULL
    if s.starved != NULL:
        s.starved_last.starved_next = log
    else:
        s.starved = log
    s.starved_last = log


cdef void leave_starved(LogState *log) noexcept nogil:
    cdef LogState **at = &log.store.starved
    cdef LogState *before = NULL
    if not log.reads_starved:
        return
    while at[0] != log:
        before = at[0]
        at = &at[0].starved_next
    at[0] = log.starved_next
    if log.store.starved_last == log:
        log.store.starved_last = before
    log.reads_starved = False


cdef void reads_unstarve(StoreState *s) noexcept nogil:
    cdef LogState *log = s.starved
    s.starved = NULL
    s.starved_last = NULL
    while log != NULL:
        log.reads_starved = False
        log.reads_due = True
        log_ready(log)
        log = log.starved_next


cdef Load *load_get(StoreState *s) noexcept nogil:
    cdef Load *job = s.loads_free
    if job != NULL:
        s.loads_free = job.next
        return job
    if s.loads_n >= LOADS_MAX:
        return NULL
    job = <Load *> calloc(1, sizeof(Load))
    if job != NULL:
        s.loads_n += 1
    return job


cdef void loads_free(StoreState *s) noexcept nogil:
    cdef Load *job
    while s.loads_free != NULL:
        job = s.loads_free
        s.loads_free = job.next
        free(job)


cdef void load_done(Loading *piece, int32_t res) noexcept nogil:
    cdef Load *job = <Load *> piece
    cdef Segment *seg = job.segment
    cdef LogState *log = seg.log
    cdef StoreState *s = log.store
    cdef Chunk *c
    cdef int64_t got = res if res > 0 else 0
    cdef int64_t want
    cdef int32_t i
    for i in range(piece.n):
        c = job.chunks[i]
        c.busy = 0
        want = job.valid - c.window
        if want > <int64_t> job.iov[i].iov_len:
            want = <int64_t> job.iov[i].iov_len
        if c.set != NULL and got >= want:
            if c.kind == CHUNK_COLD:
                c.end = <uint32_t> want
            c.start = 0
            c.doubt_from = 0
            if c.doubt_to < <uint32_t> want:
                c.doubt_to = <uint32_t> want
        elif c.set != NULL:
            if i == 0:
                log.reads_failed = True         # nothing came of it; the later pieces of a short read are simply asked for again
            if c.kind == CHUNK_COLD:
                arena_drop(s.arena, c)
        arena_settle(s.arena, c)
        got -= <int64_t> job.iov[i].iov_len
    if res != -ECANCELED:
        s.stats.reads_disk += 1
    if res > 0:
        s.stats.read_bytes_disk += <uint64_t> res
    job.next = s.loads_free
    s.loads_free = job
    log.loads -= 1
    log.reads_due = True
    log_ready(log)
    if s.starved != NULL:
        s.arena.released += 1
    segment_unuse(s, seg)


cdef bint covers(const Chunk *c, int64_t from_, int64_t to) noexcept nogil:
    """Whether the chunk has file positions [from_, to), of which those in its window count."""
    if c == NULL or from_ - c.window < c.start:
        return False
    return c.end >= (to - c.window if to < c.window + CHUNK else CHUNK)


cdef bint load(LogState *log, Segment *seg, int64_t from_, int64_t to) noexcept nogil:
    """Has read what of file positions [from_, to) is neither in memory nor on its way. False: no chunk or Load was left."""
    cdef StoreState *s = log.store
    cdef int64_t window = from_ & ~(<int64_t> CHUNK - 1)
    cdef int64_t valid = log.written - seg.start        # what is not written is in memory
    cdef Load *job = NULL
    cdef Loading *chain = NULL
    cdef Loading *last = NULL
    cdef Chunk *c
    cdef bint whole
    cdef bint enough = True
    if valid > seg.size:
        valid = seg.size
    if to > valid:
        to = valid
    while window < to:
        c = arena_find(s.arena, &seg.chunks, window)
        if c != NULL and c.kind == CHUNK_COLD and not c.busy and c.end < CHUNK and c.window + c.end < valid:
            arena_drop(s.arena, c)              # loaded when the segment was shorter
            c = NULL
        whole = c == NULL
        if c != NULL and (c.busy or c.start == 0):
            job = NULL
            window += CHUNK
            continue
        if job == NULL:
            job = load_get(s)
            if job == NULL:
                enough = False
                break
            begin(log, seg, job, window, valid)
        if whole:
            c = arena_take(s.arena, CHUNK_COLD, &seg.chunks, window)
            if c == NULL:
                enough = False
                break
        else:
            arena_hold(s.arena, c)
        if job.piece.n == 0:
            segment_use(seg)
            log.loads += 1
            if last == NULL:
                chain = &job.piece
            else:
                last.following = &job.piece
            last = &job.piece
        c.busy = 1
        job.chunks[last.n] = c
        job.iov[last.n].iov_base = c.data
        job.iov[last.n].iov_len = CHUNK if whole else c.start
        last.length += CHUNK if whole else c.start
        last.n += 1
        if last.n == LOAD_CHUNKS or not whole:
            job = NULL
        window += CHUNK
    if job != NULL and job.piece.n == 0:
        job.next = s.loads_free
        s.loads_free = job
    if chain != NULL:
        loadline_put(log.loadline, chain)
    if not enough:
        starve(log)
    return enough


cdef void begin(LogState *log, Segment *seg, Load *job, int64_t at, int64_t valid) noexcept nogil:
    cdef Loading *piece = &job.piece
    job.segment = seg
    job.valid = valid
    piece.owner = log
    piece.ended = load_done
    piece.iov = job.iov
    piece.from_ = at
    piece.length = 0
    piece.fd = seg.fd
    piece.n = 0
    piece.following = NULL


cdef bint peek(LogState *log, Segment *seg, int64_t at, uint8_t *out) noexcept nogil:
    """PEEK bytes at a file position, if they are in memory."""
    cdef int64_t window = at & ~(<int64_t> CHUNK - 1)
    cdef int64_t first = window + CHUNK - at
    cdef Chunk *c = arena_find(log.store.arena, &seg.chunks, window)
    if not covers(c, at, at + PEEK):
        return False
    if first >= PEEK:
        memcpy(out, c.data + (at - window), PEEK)
        return True
    memcpy(out, c.data + (at - window), <size_t> first)
    c = arena_find(log.store.arena, &seg.chunks, window + CHUNK)
    if not covers(c, window + CHUNK, at + PEEK):
        return False
    memcpy(out + first, c.data, <size_t> (PEEK - first))
    return True


cdef int64_t recent_position(const LogState *log, int64_t offset) noexcept nogil:
    """Log position of the newest batch that starts at or before the offset, if it is among the newest; else -1."""
    cdef uint32_t n = log.recent_n if log.recent_n < RECENT else RECENT
    cdef uint32_t i
    for i in range(n):
        if log.recent_offset[(log.recent_n - 1 - i) % RECENT] <= offset:
            return log.recent_position[(log.recent_n - 1 - i) % RECENT]
    return -1


cdef void read_ahead(LogState *log, Segment *seg, int64_t at, int64_t length) noexcept nogil:
    """Notes a cold read of file positions [at, at + length), and loads what follows if it continued one before it."""
    cdef int64_t start = seg.start + at
    cdef Sequence *q = NULL
    cdef int32_t i
    for i in range(SEQUENTIAL):
        if log.sequences[i].low <= start <= log.sequences[i].high and log.sequences[i].high:
            q = &log.sequences[i]
            q.ahead = q.ahead * 2 if q.ahead else 2 * length
            if q.ahead > AHEAD_MAX:
                q.ahead = AHEAD_MAX
            break
    if q == NULL:
        q = &log.sequences[log.sequence_next % SEQUENTIAL]
        log.sequence_next += 1
        q.ahead = 0
    q.low = start + 1
    q.high = start + length
    if q.ahead == 0:
        return
    # In large pieces: only when less than half of it is left.
    if arena_find(log.store.arena, &seg.chunks, (at + length + q.ahead // 2) & ~(<int64_t> CHUNK - 1)) == NULL and \
            arena_available(log.store.arena, CHUNK_COLD) > 2 * <uint32_t> (q.ahead // CHUNK):
        load(log, seg, at + length, at + length + q.ahead)
    if seg.rolled and at + length + q.ahead >= seg.size:
        segment_ready(log, segment_after(log, seg))


cdef Segment *segment_after(const LogState *log, const Segment *seg) noexcept nogil:
    cdef int32_t i = log.segments_n - 1
    while log.segments[i - 1] != seg:
        i -= 1
    return log.segments[i]


cdef int pin(LogState *log, Read *r, Segment *seg, int64_t at, int64_t length) noexcept nogil:
    """Pins file positions [at, at + length), all in memory."""
    cdef StoreState *s = log.store
    cdef Pin **last = &r.pins
    cdef Pin *p
    cdef Chunk *c
    cdef int64_t window
    cdef int64_t n
    while length:
        window = at & ~(<int64_t> CHUNK - 1)
        c = arena_find(s.arena, &seg.chunks, window)
        p = <Pin *> slab_get(&s.pins, &s.pins_n, sizeof(Pin))
        if p == NULL:
            return -1
        n = window + CHUNK - at
        if n > length:
            n = length
        arena_pin(s.arena, c)
        p.base = c.data + (at - window)
        p.length = <uint32_t> n
        p.chunk = c
        p.next = NULL
        last[0] = p
        last = &p.next
        r.bytes += <uint32_t> n
        at += n
        length -= n
    return 0


cdef int64_t present(LogState *log, Segment *seg, int64_t from_, int64_t to, bint *cold, uint32_t *doubt) noexcept nogil:
    """How far file positions from `from_` to `to` are in memory without a gap. What is there counts as used now. *doubt: not 0 when some of
    it came from the disk unchecked."""
    cdef Arena *arena = log.store.arena
    cdef int64_t at = from_
    cdef Chunk *c
    while at < to:
        c = arena_find(arena, &seg.chunks, at & ~(<int64_t> CHUNK - 1))
        if not covers(c, at, to):
            return at
        cold[0] = cold[0] or c.kind == CHUNK_COLD
        doubt[0] |= c.doubt_to
        if c.listed:
            arena_hold(arena, c)
            arena_settle(arena, c)
        at = c.window + CHUNK
    return to


cdef struct Big:                    # one batch that chunks for cold reads can't hold, read into memory of its own
    Loading piece                   # first: what is read of it next
    LogState *log
    Segment *segment
    Read *r
    uint8_t *buf
    int64_t from_
    int64_t length
    int64_t got
    uint32_t skip
    uint32_t size
    iovec iov


cdef void big_submit(Big *b) noexcept nogil:
    cdef Loading *piece = &b.piece
    piece.length = b.length - b.got
    if piece.length > LOADING_PIECE:
        piece.length = LOADING_PIECE
    b.iov.iov_base = b.buf + b.got
    b.iov.iov_len = <size_t> piece.length
    piece.owner = b.log
    piece.ended = big_done
    piece.iov = &b.iov
    piece.from_ = b.from_ + b.got
    piece.fd = b.segment.fd
    piece.n = 1
    piece.following = NULL
    loadline_put(b.log.loadline, piece)


cdef void big_done(Loading *piece, int32_t res) noexcept nogil:
    cdef Big *b = <Big *> piece
    cdef LogState *log = b.log
    cdef StoreState *s = log.store
    cdef Read *r = b.r
    cdef Pin *p
    cdef int64_t more
    if res != -ECANCELED:
        s.stats.reads_disk += 1
    if res > 0:
        s.stats.read_bytes_disk += <uint64_t> res
        more = res & ~(<int64_t> BLOCK - 1)
        if b.got + res < b.skip + b.size and more and not log.closing:
            b.got += more
            big_submit(b)
            return
        b.got += res
    s.big = False
    s.arena.released += 1
    log.loads -= 1
    log_ready(log)
    p = NULL
    if b.got >= b.skip + b.size and log.settings.verify_reads and not vouch_for_one(log, b.buf + b.skip):
        free(b.buf)
        vouch_deny(log, b.segment, b.from_ + b.skip, r, "a record batch with a wrong CRC")
        segment_unuse(s, b.segment)
        free(b)
        r.done(r)
        return
    if b.got >= b.skip + b.size:
        p = <Pin *> slab_get(&s.pins, &s.pins_n, sizeof(Pin))
    if p == NULL:
        free(b.buf)
        r.error = UNKNOWN_TOPIC_OR_PARTITION if log.closing else KAFKA_STORAGE_ERROR
    else:
        p.base = b.buf + b.skip
        p.length = b.size
        r.pins = p
        r.bytes = b.size
    segment_unuse(s, b.segment)
    free(b)
    r.done(r)


cdef int read_big(LogState *log, Read *r, Segment *seg, int64_t at, int64_t size) noexcept nogil:
    """Reads one batch into memory of its own, one such batch at a time in a store. The read is `big_done`'s then."""
    cdef StoreState *s = log.store
    cdef Big *b
    cdef int64_t skip = at & (BLOCK - 1)
    if seg.start + at + size > log.written:
        log.forced = seg.start + at + size      # some of it lies in memory only: it is tried again when written
        log_ready(log)
        return WAIT
    if s.big:
        starve(log)
        return WAIT
    b = <Big *> calloc(1, sizeof(Big))
    if b != NULL:
        b.length = whole_blocks(skip + size)
        b.buf = <uint8_t *> file_memory(<size_t> b.length)
    if b == NULL or b.buf == NULL:
        free(b)
        r.error = KAFKA_STORAGE_ERROR
        return DONE
    b.log = log
    b.segment = seg
    b.r = r
    b.from_ = at - skip
    b.skip = <uint32_t> skip
    b.size = <uint32_t> size
    s.big = True
    log.loads += 1
    segment_use(seg)
    big_submit(b)
    return TAKEN


cdef int waits(const LogState *log, Read *r) noexcept nogil:
    """WAIT, if something is under way that will end the wait; what is neither in memory nor on its way nowhere exists."""
    if log.loads or log.reads_starved:
        return WAIT
    r.error = KAFKA_STORAGE_ERROR
    return DONE


cdef int collect_aborted(LogState *log, Read *r, Segment *seg, int64_t end, int64_t limit) noexcept nogil:
    """Kafka's rule: the transactions that overlap what is read (up to file position `end` of seg), from the segments in which they can have
    ended. WAIT, if one of those must be opened first.
    """
    cdef const Index *ix
    cdef int64_t to = index_bound(seg.index, end)
    cdef int64_t since
    cdef int32_t i = log.segments_n - 1
    cdef int how
    aborted_free(&r.aborted)
    while log.segments[i] != seg:
        i -= 1
    if to < 0 and i + 1 < log.segments_n:
        to = log.segments[i + 1].base_offset
    if to < 0 or to > limit:
        to = limit
    while i < log.segments_n:
        seg = log.segments[i]
        i += 1
        if seg.aborted_least >= to:
            continue
        ix = segment_aborted_index(log, seg, r.offset) if segment_ready(log, seg) else NULL
        if ix == NULL:
            if not segment_failed(seg):
                return WAIT
            r.error = KAFKA_STORAGE_ERROR
            return DONE
        how = aborted_collect(&ix.aborted, r.offset, to, &r.aborted)
        if how == 0 and ix != seg.index:            # those that are not in the files yet
            since = ix.aborted.at[ix.aborted.n - 1].last_offset + 1 if ix.aborted.n else 0
            how = aborted_collect(&seg.index.aborted, since if since > r.offset else r.offset, to, &r.aborted)
        if how < 0:
            r.error = KAFKA_STORAGE_ERROR
        if how:
            return DONE
    return DONE


cdef int attempt(LogState *log, Read *r, bint again) noexcept nogil:
    cdef Partition *part = log.part
    cdef StoreState *s = log.store
    cdef Segment *seg
    cdef const Index *ix
    cdef bint ready
    cdef uint8_t head[PEEK]
    cdef int64_t limit = part.at.log_end if r.to_log_end else part.at.high_watermark
    cdef int64_t limit_position = log.end if r.to_log_end else log.visible
    cdef int how
    cdef int64_t at
    cdef int64_t size
    cdef int64_t length
    cdef int64_t end
    cdef int64_t reached
    cdef int64_t missing
    cdef int64_t most = <int64_t> (s.arena.cold_max // 2) << CHUNK_SHIFT
    cdef bint cold = again
    cdef uint32_t doubt = 0
    cdef const char *why = NULL
    r.log_start = part.at.log_start
    r.high_watermark = part.at.high_watermark
    r.last_stable = part.at.last_stable
    if log.closing:
        r.error = UNKNOWN_TOPIC_OR_PARTITION
        return DONE
    if part.at.offline:
        r.error = <int16_t> part.at.offline
        return DONE
    if r.offset < part.at.log_start or r.offset > part.at.log_end:
        r.error = OFFSET_OUT_OF_RANGE
        return DONE
    if r.committed_only:
        limit = part.at.last_stable
        limit_position = log.stable
    if r.bytes_max <= 0 or r.offset >= limit:
        return DONE
    seg = segment_of(log, r.offset)
    at = recent_position(log, r.offset)
    if at < r.reached:
        at = r.reached
    if at >= 0 and at >= seg.start:             # compaction may have moved the first segment's start below 0
        at -= seg.start
    else:
        at = -1
    while at >= seg.size and seg != log.active:  # the walk had gone on to the next segment
        at -= seg.size
        seg = segment_after(log, seg)
    while True:                                 # the batch that holds the offset
        ix = NULL
        ready = segment_ready(log, seg)
        if ready and at < 0:
            ix = segment_index(log, seg, r.offset)
            if ix != NULL:
                at = index_position(ix, r.offset)
        if not ready or at < 0:
            if not segment_failed(seg):
                return WAIT
            r.error = KAFKA_STORAGE_ERROR
            return DONE
        if at >= seg.size:                      # the offset fell into a gap that compaction left: Kafka's leaves segments without a batch
            if seg == log.active:
                return DONE
            seg = segment_after(log, seg)
            at = 0
            continue
        if not peek(log, seg, at, head):
            r.reached = seg.start + at          # a walk may be longer than what fits into memory at once
            length = r.bytes_max if r.bytes_max > CHUNK else CHUNK
            if length > most:
                length = most
            load(log, seg, at, at + length)
            return waits(log, r)
        size = <int64_t> <int32_t> get32(head + 8) + BATCH_PREFIX
        if size < BATCH_HEADER or at + size > seg.size:
            vouch_deny(log, seg, at, r, "no record batch")
            return DONE
        if <int64_t> get64(head) + <int32_t> get32(head + 23) >= r.offset:
            break
        at += size
    r.reached = seg.start + at                  # where the next attempt begins, whatever is evicted until then
    end = seg.size
    if limit_position - seg.start < end:
        end = limit_position - seg.start
    if at >= end or (size > r.bytes_max and not r.whole_first):
        return DONE
    length = size if size > r.bytes_max else r.bytes_max
    if length > end - at:
        length = end - at
    reached = present(log, seg, at, at + length, &cold, &doubt)
    if reached < at + length and length > most and size <= most:
        length = most                           # no more than can be there at once
    if r.committed_only and log.aborted_seen:
        how = collect_aborted(log, r, seg, at + length, limit)
        if how == WAIT or r.error:
            return how
    missing = at + length if reached < at + length else 0
    if missing and size > most and reached - at < size:
        return read_big(log, r, seg, at, size)
    if missing:
        if reached - at < size or (not again and reached - at < length // 2):
            load(log, seg, reached, missing)
            return waits(log, r)
        length = reached - at
        cold = True
    if doubt and log.settings.verify_reads:
        length = vouch(log, seg, at, length, &why)
        if length == 0 and not r.repeated and vouch_forget(log, seg, at, size):
            r.repeated = True                   # read once more, before it is called damaged
            load(log, seg, at, at + size)
            return waits(log, r)
        if length == 0:
            vouch_deny(log, seg, at, r, why)
            return DONE
    if not again:
        s.stats.read_bytes_memory += <uint64_t> length
    if pin(log, r, seg, at, length) != 0:
        read_release(s, r)
        r.error = KAFKA_STORAGE_ERROR
        return DONE
    if missing:
        load(log, seg, reached, missing)        # for the next read; only now, as it may evict
    if cold:
        read_ahead(log, seg, at, length)
    return DONE


cdef void read_start(LogState *log, Read *r) noexcept nogil:
    cdef int how
    r.error = 0
    r.bytes = 0
    r.pins = NULL
    memset(&r.aborted, 0, sizeof(r.aborted))
    r.next = NULL
    r.reached = -1
    r.repeated = False
    how = attempt(log, r, False)
    if how == DONE:
        r.done(r)
    elif how == WAIT:
        r.next = log.reads
        log.reads = r


cdef void reads_retry(LogState *log) noexcept nogil:
    cdef Read *r = log.reads
    cdef Read *following
    cdef bint failed = log.reads_failed
    cdef int how
    log.reads = NULL
    log.reads_due = False
    log.reads_failed = False
    while r != NULL:
        following = r.next
        r.next = NULL
        if failed and not log.part.at.offline:
            r.error = KAFKA_STORAGE_ERROR
            r.done(r)
        else:
            how = attempt(log, r, True)
            if how == DONE:
                r.done(r)
            elif how == WAIT:
                r.next = log.reads
                log.reads = r
        r = following


cdef void reads_fail(LogState *log, int16_t error) noexcept nogil:
    cdef Read *r
    while log.reads != NULL:
        r = log.reads
        log.reads = r.next
        r.next = NULL
        r.error = error
        r.done(r)


cdef void read_release(StoreState *s, Read *r) noexcept nogil:
    cdef Pin *p
    while r.pins != NULL:
        p = r.pins
        r.pins = p.next
        if p.chunk != NULL:
            arena_unpin(s.arena, <Chunk *> p.chunk)
        else:
            free(<void *> (<size_t> p.base & ~(<size_t> BLOCK - 1)))    # a big batch's own memory
        slab_put(&s.pins, &s.pins_n, p)
    aborted_free(&r.aborted)
    r.bytes = 0
