"""Getting accepted bytes to the disk. See write.pxd.

A write covers whole blocks of one segment, from the block that holds the first unwritten byte. Chunks are written in place, as their full
blocks never change again; the last, partly filled block goes through a bounce block, padded with zeroes, as appends go on in its chunk.
"""
from libc.errno cimport EAGAIN, EINTR, EIO
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from fastlog.native.arena cimport BLOCK, CHUNK, Chunk, arena_find, arena_settle, chunk_published_written
from fastlog.native.flaws cimport flaws_count, flaws_note
from fastlog.native.flushgroup cimport flushgroup_join, flushgroup_of, flushgroup_pays
from fastlog.native.promise cimport log_fail, promise_doubt, promise_keep
from fastlog.native.ring cimport Op, ring_fdatasync, ring_writev
from fastlog.native.segment cimport segment_seal
from fastlog.native.store cimport (
    LogState, LogTimer, NEED_DURABLE, Segment, StoreState, WRITES_MAX, WRITE_BYTES_MAX, WRITE_IOVECS, Write, log_ready,
)
from fastlog.native.timer cimport Timer, timer_arm

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/uio.h>
    static void *fl_block(void) { void *p; return posix_memalign(&p, 4096, 4096) ? 0 : p; }
    """
    void *fl_block() nogil
    int RWF_DSYNC

cdef enum:
    PIECE = 1048576                 # bytes that are written though nobody waits for them
    PIECE_MIN = 65536               # the same while memory is short
    GROUPED_BYTES_MAX = 65536       # larger durable writes are flushed each by itself
    LAZY_NS = 100000000             # how long bytes that nobody waits for stay unwritten


cdef Write *write_make(StoreState *s) noexcept nogil:
    cdef Write *w
    if s.writes_n >= WRITES_MAX:
        return NULL
    w = <Write *> calloc(1, sizeof(Write))
    if w == NULL:
        return NULL
    w.bounce = <uint8_t *> fl_block()
    if w.bounce == NULL:
        free(w)
        return NULL
    s.writes_n += 1
    return w


cdef Write *write_get(LogState *log) noexcept nogil:
    """A free Write, or NULL: then the log waits in line for one."""
    cdef StoreState *s = log.store
    cdef Write *w = s.writes_free
    if w != NULL:
        s.writes_free = w.next
        return w
    w = write_make(s)
    if w == NULL and not log.slotless:
        log.slotless = True
        log.slot_next = NULL
        if s.slot_line_last != NULL:
            s.slot_line_last.slot_next = log
        else:
            s.slot_line = log
        s.slot_line_last = log
    return w


cdef void write_put(StoreState *s, Write *w) noexcept nogil:
    cdef LogState *log = s.slot_line
    w.next = s.writes_free
    s.writes_free = w
    if log != NULL:
        s.slot_line = log.slot_next
        if s.slot_line == NULL:
            s.slot_line_last = NULL
        log.slotless = False
        log_ready(log)


cdef void writes_free(StoreState *s) noexcept nogil:
    cdef Write *w
    while s.writes_free != NULL:
        w = s.writes_free
        s.writes_free = w.next
        free(w.bounce)
        free(w)


cdef void chunks_written(LogState *log, Segment *seg, int64_t from_, int64_t end) noexcept nogil:
    """The bytes up to file position `end` are written: chunks that have no others are clean now."""
    cdef StoreState *s = log.store
    cdef int64_t window = from_ & ~(<int64_t> CHUNK - 1)
    cdef Chunk *c
    cdef uint32_t upto
    while window < end:
        c = arena_find(s.arena, &seg.chunks, window)
        FL_ASSERT(c != NULL)
        upto = <uint32_t> (end - window) if end - window < CHUNK else CHUNK
        if upto > c.written:
            c.written = upto
            chunk_published_written(c)
        if c.written == c.end and c.dirty:
            c.dirty = False
            arena_settle(s.arena, c)
        window += CHUNK


cdef void submit_rest(Write *w) noexcept nogil:
    """Continues a write that came back short, from the last whole block done."""
    cdef int64_t skip = w.progress
    cdef int32_t i = 0
    cdef int32_t n = 0
    while i < w.iovecs and skip >= <int64_t> w.iov[i].iov_len:
        skip -= <int64_t> w.iov[i].iov_len
        i += 1
    while i < w.iovecs:
        w.rest[n].iov_base = <uint8_t *> w.iov[i].iov_base + skip
        w.rest[n].iov_len = w.iov[i].iov_len - <size_t> skip
        skip = 0
        i += 1
        n += 1
    ring_writev(w.log.store.config.ring, &w.op, w.segment.fd, w.rest, n, w.from_ + w.progress, RWF_DSYNC if w.durable else 0)


cdef void write_ended(Write *w, int error) noexcept nogil:
    """Its bytes are where the write promised them to be, or an errno says that they are not."""
    cdef LogState *log = w.log
    cdef StoreState *s = log.store
    cdef int64_t moved
    if error and w.durable:             # its own flush may be what failed
        flaws_note(log.device, error)
    elif flaws_count() != s.flaws_seen:
        promise_doubt(s)
    log.writing = False
    w.segment.users -= 1
    if w.counted:
        log.group.under_way -= 1
        w.counted = False
    log_ready(log)
    if error:
        log_fail(log, "a write", error)
    elif not log.part.at.offline:
        chunks_written(log, w.segment, w.from_, w.end)
        moved = w.segment.start + w.end
        s.dirty -= moved - log.written
        log.written = moved
        if w.durable or w.group != NULL:
            log.durable = moved
            log.unflushed = 0
            log.piece += (w.length - log.piece) // 8
        log.reads_due = log.reads_due or log.reads != NULL
        promise_keep(log)
    write_put(s, w)


cdef void write_done(Op *op) noexcept nogil:
    cdef Write *w = <Write *> op
    cdef StoreState *s = w.log.store
    cdef int64_t moved
    if op.res == -EINTR or op.res == -EAGAIN:
        submit_rest(w)
        return
    if op.res > 0 and w.progress + op.res < w.length:
        moved = (w.progress + op.res) & ~(<int64_t> BLOCK - 1)
        if moved > w.progress:
            w.progress = moved
            submit_rest(w)
            return
        op.res = -EIO
    s.stats.writes += 1
    if op.res <= 0:
        write_ended(w, -op.res if op.res < 0 else EIO)
        return
    s.stats.written_bytes += <uint64_t> w.length
    if w.group != NULL:
        flushgroup_join(w.group, w)
    else:
        write_ended(w, 0)


cdef void flush_done(Op *op) noexcept nogil:
    cdef Write *w = <Write *> op
    cdef LogState *log = w.log
    if flaws_count() != log.store.flaws_seen:
        promise_doubt(log.store)
    log.writing = False
    w.segment.users -= 1
    log_ready(log)
    log.store.stats.flushes += 1
    if op.res < 0:
        log_fail(log, "a flush", -op.res)
        flaws_note(log.device, -op.res)
    elif not log.part.at.offline:
        log.durable = w.covers
        log.unflushed = 0
        promise_keep(log)
    write_put(log.store, w)


cdef void flush_start(LogState *log) noexcept nogil:
    """Makes durable what is written of the write segment."""
    cdef Write *w = write_get(log)
    if w == NULL:
        return
    w.log = log
    w.segment = log.write_segment
    w.covers = log.written
    w.op.done = flush_done
    w.segment.users += 1
    log.writing = True
    ring_fdatasync(log.store.config.ring, &w.op, w.segment.fd)


cdef void write_start(LogState *log, int64_t from_, int64_t end) noexcept nogil:
    """Writes file positions [from_, end) of the write segment, with the rest of their blocks. A cut end lies on a block."""
    cdef StoreState *s = log.store
    cdef Segment *seg = log.write_segment
    cdef Write *w = write_get(log)
    cdef Chunk *c
    cdef int64_t at = from_ & ~(<int64_t> BLOCK - 1)
    cdef int64_t whole = end & ~(<int64_t> BLOCK - 1)
    cdef int64_t upto
    cdef int64_t window
    cdef uint8_t *p
    cdef int32_t n = 0
    if w == NULL:
        return
    w.log = log
    w.segment = seg
    w.from_ = at
    w.end = end
    w.progress = 0
    while at < end:
        window = at & ~(<int64_t> CHUNK - 1)
        c = arena_find(s.arena, &seg.chunks, window)
        FL_ASSERT(c != NULL and c.start <= at - window and c.end >= (end if end < window + CHUNK else window + CHUNK) - window)
        p = c.data + (at - window)
        upto = whole if whole < window + CHUNK else window + CHUNK
        if upto > at:
            if n and <uint8_t *> w.iov[n - 1].iov_base + w.iov[n - 1].iov_len == p:
                w.iov[n - 1].iov_len += <size_t> (upto - at)
            else:
                w.iov[n].iov_base = p
                w.iov[n].iov_len = <size_t> (upto - at)
                n += 1
            at = upto
        else:                           # the last block: appends may go on in it
            memcpy(w.bounce, p, <size_t> (end - at))
            memset(w.bounce + (end - at), 0, <size_t> (BLOCK - (end - at)))
            w.iov[n].iov_base = w.bounce
            w.iov[n].iov_len = BLOCK
            n += 1
            at += BLOCK
    FL_ASSERT(n <= WRITE_IOVECS)
    w.length = at - w.from_
    w.iovecs = n
    # A durable write vouches only for its own blocks: where bytes before it are written but not flushed, a flush must follow instead.
    w.durable = log.wanted > log.durable and log.durable == log.written
    w.group = NULL
    if w.durable and flushgroup_of(log) != NULL:
        if w.length <= GROUPED_BYTES_MAX and seg == log.active and flushgroup_pays(log.group) and \
                w.from_ >= log.runway_from and w.from_ + w.length <= log.runway:
            w.group = log.group
            w.durable = False
        log.group.under_way += 1
        w.counted = True
    w.op.done = write_done
    seg.users += 1
    log.writing = True
    ring_writev(s.config.ring, &w.op, seg.fd, w.iov, n, w.from_, RWF_DSYNC if w.durable else 0)


cdef inline bint waited_for(const LogState *log) noexcept nogil:
    return (log.pending_last != NULL and log.pending_last.end > log.written) or log.forced > log.written or log.wanted > log.written


cdef inline bint flush_due(const LogState *log) noexcept nogil:
    """Whether someone waits for no more than a flush of what is written."""
    if log.wanted > log.durable and log.wanted <= log.written:
        return True
    return log.pending != NULL and log.pending.need == NEED_DURABLE and log.pending.end <= log.written


cdef void write_next(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    cdef Segment *seg = log.write_segment
    cdef int64_t from_
    cdef int64_t end
    cdef bint due
    if log.writing or log.part.at.offline:
        return
    while seg.rolled and log.written == seg.start + seg.size:
        if log.durable < log.written:
            flush_start(log)
            return
        if seg.preparing:
            return
        segment_seal(log, seg)
        seg = next_of(log, seg)
        log.write_segment = seg
    if log.durable < log.written and flush_due(log):
        flush_start(log)
        return
    if log.written == log.end:
        return
    from_ = log.written - seg.start
    end = seg.size
    due = waited_for(log) or seg.rolled
    if not due and end - from_ < (PIECE if s.dirty <= s.dirty_max else PIECE_MIN) and s.chunk_line == NULL:
        if log.lazy.timer.slot == 0:
            log.lazy_target = log.end
            timer_arm(&s.timers, &log.lazy.timer, s.now_ns + LAZY_NS)
        return
    if end - (from_ & ~(<int64_t> BLOCK - 1)) > WRITE_BYTES_MAX:
        end = (from_ & ~(<int64_t> BLOCK - 1)) + WRITE_BYTES_MAX
    elif not due and s.chunk_line == NULL:
        end &= ~(<int64_t> BLOCK - 1)
    if log.zero_segment == seg and (end + BLOCK - 1) & ~(<int64_t> BLOCK - 1) > log.zero_from and from_ < log.zero_to:
        if log.zero_from <= from_:
            return                      # the job steps the log when it is done
        end = log.zero_from
    write_start(log, from_, end)


cdef Segment *next_of(const LogState *log, const Segment *seg) noexcept nogil:
    cdef int32_t i = log.segments_n - 1
    while log.segments[i - 1] != seg:
        i -= 1
    return log.segments[i]


cdef bint write_idle(const LogState *log) noexcept nogil:
    return not log.writing and log.written == log.end and log.durable >= log.wanted and log.write_segment == log.active


cdef void lazy_fired(Timer *t) noexcept nogil:
    cdef LogState *log = (<LogTimer *> t).log
    if log.written < log.lazy_target:
        log.forced = log.lazy_target
    log_ready(log)


cdef void flush_fired(Timer *t) noexcept nogil:
    cdef LogState *log = (<LogTimer *> t).log
    if log.durable < log.end and not log.part.at.offline:
        log.wanted = log.end
    log_ready(log)
