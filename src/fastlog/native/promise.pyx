"""What a log has promised. See promise.pxd."""
from libc.errno cimport EIO
from libc.stdint cimport int16_t, int64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport free
from libc.string cimport strerror
from fastlog.native.flaws cimport flaws_count, flaws_of
from fastlog.native.log cimport Append, Partition, position_set
from fastlog.native.plant cimport PLANT_EARLY_DUPLICATE, planted
from fastlog.native.producers cimport Producer
from fastlog.native.store cimport Ended, KAFKA_STORAGE_ERROR, LogState, NEED_DURABLE, StoreState, log_checked, log_moved, log_ready


cdef void append_answer(LogState *log, Append *a, int16_t error, int64_t base_offset) noexcept nogil:
    a.error = error
    a.base_offset = base_offset
    a.log_start = log.part.at.log_start
    a.next = NULL
    a.done(a)


cdef void promise_stable(LogState *log) noexcept nogil:
    cdef Partition *part = log.part
    cdef const Producer *oldest = log.producers.txn_first
    cdef int64_t offset = part.at.high_watermark
    cdef Ended *e
    log.stable = log.visible
    while log.ended != NULL and log.ended.last_offset < offset:
        e = log.ended
        log.ended = e.next
        if log.ended == NULL:
            log.ended_last = NULL
        free(e)
    e = log.ended
    while e != NULL:                # few: what one write carries
        if e.first_offset < offset:
            offset = e.first_offset
            log.stable = e.position
        e = e.next
    if oldest != NULL and oldest.txn_first_offset < offset:
        offset = oldest.txn_first_offset
        log.stable = oldest.txn_position
    if offset < part.at.log_start:
        offset = part.at.log_start
    if offset > part.at.last_stable:
        position_set(&part.at.last_stable, offset)
        log_moved(log)


cdef void move_visible(LogState *log) noexcept nogil:
    """The high watermark goes to the first batch whose promise is not kept, or to the end."""
    cdef Partition *part = log.part
    cdef int64_t offset = part.at.log_end
    log.visible = log.end
    if log.pending != NULL:
        offset = log.pending.base_offset
        log.visible = log.pending.end - log.pending.info.size
    if offset > part.at.high_watermark:
        position_set(&part.at.high_watermark, offset)
        if log.ended == NULL and log.producers.txn_first == NULL:
            position_set(&part.at.last_stable, offset)
            log.stable = log.visible
        else:
            promise_stable(log)
        log_moved(log)


cdef void promise_add(LogState *log, Append *a, int need) noexcept nogil:
    if need == 0:
        if log.pending == NULL:
            move_visible(log)
        append_answer(log, a, 0, a.base_offset)
        return
    a.need = need
    a.next = NULL
    if log.pending_last != NULL:
        log.pending_last.next = a
    else:
        log.pending = a
    log.pending_last = a
    if need == NEED_DURABLE and a.end > log.wanted:
        log.wanted = a.end


cdef inline bint kept(const LogState *log, const Append *a) noexcept nogil:
    return a.need == 0 or a.end <= (log.durable if a.need == NEED_DURABLE else log.written)


cdef void promise_repeat(LogState *log, Append *a, int need, int64_t base_offset, int64_t end) noexcept nogil:
    a.need = need
    a.end = end
    a.base_offset = base_offset
    if kept(log, a) or planted & PLANT_EARLY_DUPLICATE:
        append_answer(log, a, 0, base_offset)
        return
    if need == NEED_DURABLE and end > log.wanted:
        log.wanted = end
    if end > log.forced:
        log.forced = end
    a.next = log.repeats
    log.repeats = a
    log_ready(log)


cdef void promise_keep(LogState *log) noexcept nogil:
    cdef Append *first = log.pending
    cdef Append *last = NULL
    cdef Append *a
    cdef Append **at
    while log.pending != NULL and kept(log, log.pending):
        last = log.pending
        log.pending = last.next
    if last != NULL:
        last.next = NULL
        if log.pending == NULL:
            log.pending_last = NULL
        move_visible(log)               # before anyone is told
        while first != NULL:
            a = first
            first = a.next
            append_answer(log, a, 0, a.base_offset)
    at = &log.repeats
    first = NULL
    while at[0] != NULL:
        a = at[0]
        if kept(log, a):
            at[0] = a.next
            a.next = first
            first = a
        else:
            at = &a.next
    while first != NULL:
        a = first
        first = a.next
        append_answer(log, a, 0, a.base_offset)


cdef void fail_list(LogState *log, Append *a, int16_t error) noexcept nogil:
    cdef Append *following
    while a != NULL:
        following = a.next
        append_answer(log, a, error, -1)
        a = following


cdef void parked_fail(LogState *log, int16_t error) noexcept nogil:
    cdef Append *a = log.parked
    log.parked = NULL
    log.parked_last = NULL
    fail_list(log, a, error)


cdef void log_fail(LogState *log, const char *what, int error) noexcept nogil:
    cdef Append *pending = log.pending
    cdef Append *repeats = log.repeats
    if log.part.at.offline:
        return
    fprintf(stderr, "fastlog: %s: %s failed (%s); the partition goes offline\n", log.path, what, strerror(error))
    position_set(&log.part.at.offline, KAFKA_STORAGE_ERROR)
    position_set(&log.part.at.log_end, log.part.at.high_watermark)
    log.store.dirty -= log.end - log.written
    log_checked(log, log.end)
    log.end = log.written               # nothing more is written
    log.checked = log.end
    log.pending = NULL
    log.pending_last = NULL
    log.repeats = NULL
    log.reads_due = True
    log.store.stats.offline += 1
    log_moved(log)
    log_ready(log)
    fail_list(log, pending, KAFKA_STORAGE_ERROR)
    fail_list(log, repeats, KAFKA_STORAGE_ERROR)
    parked_fail(log, KAFKA_STORAGE_ERROR)


cdef void promise_doubt(StoreState *s) noexcept nogil:
    cdef LogState *log = s.logs
    cdef int64_t failed
    s.flaws_seen = flaws_count()
    while log != NULL:
        failed = flaws_of(log.device)
        if failed != log.flaws:
            log.flaws = failed
            if log.writing or log.durable < log.written:
                log_fail(log, "a flush of its disk", EIO)
        log = log.all_next
