"""Opening, closing and deleting logs. See control.pxd."""
from libc.errno cimport ENAMETOOLONG, ENOENT
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strdup, strerror, strlen, strrchr
from fastlog.native.aborted cimport aborted_least
from fastlog.native.accept cimport leave_chunk_line
from fastlog.native.arena cimport BLOCK
from fastlog.native.checkpoint cimport checkpoint_drop, checkpoint_leave
from fastlog.native.files cimport (
    PATH_MAX_, dir_remove, dir_sync, file_close, file_rename, file_trim, file_unlink, path_join, path_of,
)
from fastlog.native.flaws cimport flaws_device, flaws_of
from fastlog.native.index cimport index_seal
from fastlog.native.loadline cimport loadline_leave, loadline_of
from fastlog.native.log cimport (
    CTL_CLOSE, CTL_COMPACTABLE, CTL_DELETE, CTL_DELETE_RECORDS, CTL_FAIL, CTL_FLUSH, CTL_LEADER_EPOCH, CTL_PRODUCERS, CTL_ROLL,
    CTL_SETTINGS, CTL_SWAP, Append, Log, LogCtl, LogOpen, LogSettings, Partition, position_set,
)
from fastlog.native.producers cimport producers_free, producers_init, producers_snapshot, producers_snapshot_bytes
from fastlog.native.promise cimport append_answer, log_fail, parked_fail, promise_stable
from fastlog.native.read cimport leave_starved, reads_fail
from fastlog.native.recovery cimport Recovery, recovery_free, recovery_run
from fastlog.native.relics cimport RelicSet
from fastlog.native.runway cimport next_segment_ready, segment_roll
from fastlog.native.segment cimport segment_add, segment_free, segment_recycle, segment_write_files, segments_count, segments_remove_below
from fastlog.native.store cimport (
    Ended, KAFKA_STORAGE_ERROR, LogJob, LogState, OFFSET_OUT_OF_RANGE, Segment, StoreState, UNKNOWN_TOPIC_OR_PARTITION, clock_ms, clock_ns,
    log_checked, log_moved, log_ready,
)
from fastlog.native.swap cimport swap_limit, swap_step
from fastlog.native.timequery cimport timequeries_fail
from fastlog.native.timer cimport timer_disarm
from fastlog.native.verify cimport verify_free
from fastlog.native.work cimport Job, WORK_SOON, work_submit
from fastlog.native.write cimport flush_fired, lazy_fired, write_idle

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    /* Zeroed, on cache lines of its own: other threads read what the owner writes. */
    static void *fl_lines(size_t n)
    {
        void *p;
        n = (n + 63) & ~(size_t) 63;
        return posix_memalign(&p, 64, n) ? 0 : memset(p, 0, n);
    }
    """
    void *fl_lines(size_t n) nogil

cdef enum:
    STEP_FIRST = 65536              # bytes allocated, and zeroed, at first

cdef int64_t OFFSETS_END = 0x7FFFFFFFFFFFFFFF


cdef struct Opening:
    Job job                         # first
    StoreState *store
    LogOpen *o
    Recovery recovery


cdef LogSettings sane(const LogSettings *asked) noexcept nogil:
    """Settings within what files and arithmetic can hold."""
    cdef LogSettings v = asked[0]
    if v.segment_bytes > 0x7FFFFFFF:
        v.segment_bytes = 0x7FFFFFFF
    if v.segment_bytes < 1024:
        v.segment_bytes = 1024
    if v.index_interval_bytes < 0:
        v.index_interval_bytes = 0
    if v.segment_index_bytes < 64:
        v.segment_index_bytes = 64
    if v.segment_ms < 1:
        v.segment_ms = 1
    if v.segment_jitter_ms < 0:
        v.segment_jitter_ms = 0
    if v.disk_reserve < 0:
        v.disk_reserve = 0
    if v.recycle_bytes < 0:
        v.recycle_bytes = 0
    if v.flush_messages < 1:
        v.flush_messages = 1
    return v


cdef LogState *adopt(StoreState *s, LogOpen *o, Recovery *r) noexcept nogil:
    """The log of what recovery found, which it takes over; NULL: no memory (nothing is taken then)."""
    cdef LogState *log = <LogState *> calloc(1, sizeof(LogState))
    cdef Partition *part = <Partition *> fl_lines(sizeof(Partition))
    cdef Segment *seg = NULL
    cdef int32_t i
    if log != NULL:
        log.path = strdup(o.path)
        log.settings = <LogSettings *> malloc(sizeof(LogSettings))
    if log == NULL or part == NULL or log.path == NULL or log.settings == NULL:
        if log != NULL:
            free(log.path)
            free(log.settings)
        free(log)
        free(part)
        return NULL
    log.store = s
    log.part = part
    log.settings[0] = r.settings
    part.log = <Log *> log
    part.owner = s.config.shard
    part.index = o.index
    memcpy(part.topic_id, o.topic_id, 16)
    for i in range(r.segments_n):
        seg = segment_add(log, r.segments[i].base_offset, log.end, r.segments[i].size)
        if seg == NULL:
            while log.segments_n:
                log.segments_n -= 1
                segment_free(NULL, log.segments[log.segments_n])
            free(log.segments)
            free(log.path)
            free(log.settings)
            free(log)
            free(part)
            return NULL
        s.segment_ids += 1
        seg.chunks.id = s.segment_ids
        seg.rolled = i + 1 < r.segments_n
        seg.sealed = seg.rolled
        seg.aborted_least = r.segments[i].aborted_least
        log.end += seg.size
    seg.index = r.index
    seg.aborted_least = aborted_least(&seg.index.aborted)
    for i in range(log.segments_n):
        if log.segments[i].aborted_least != OFFSETS_END:
            log.aborted_seen = True
    seg.fd = r.fd
    seg.direct = r.direct
    seg.first_timestamp = r.first_timestamp
    seg.created_ms = clock_ms()
    if log.settings.segment_jitter_ms > 0:
        seg.roll_jitter_ms = <int64_t> (<uint64_t> s.now_ns % <uint64_t> log.settings.segment_jitter_ms)
    log.active = seg
    log.write_segment = seg
    log.device = flaws_device(seg.fd)
    log.loadline = loadline_of(s, log.device)
    log.flaws = flaws_of(log.device)
    log.producers = r.producers
    s.producers_n += log.producers.count
    log.partial = r.partial
    log.partial_doubted = True
    log.damage_said = -1
    r.index = NULL
    r.fd = -1
    r.partial = NULL
    producers_init(&r.producers)
    log.written = log.end
    log.durable = log.end
    log.visible = log.end
    log.allocated = seg.size & ~(<int64_t> BLOCK - 1)
    log.step = STEP_FIRST
    log.zero_step = STEP_FIRST
    log.stepped_ns = s.now_ns
    log.zeroed_ns = log.stepped_ns
    log.next_fd = -1
    log.checked = log.end
    log_checked(log, seg.start + r.checked)
    log.checked_offset = r.snapshot_offset if r.snapshot_offset > seg.base_offset else -1
    log.check_end = -1
    log.lazy.log = log
    log.lazy.timer.fired = lazy_fired
    log.flush.log = log
    log.flush.timer.fired = flush_fired
    part.at.log_start = log.segments[0].base_offset
    part.at.high_watermark = r.next_offset
    part.at.leader_epoch = o.leader_epoch if o.leader_epoch > r.leader_epoch else r.leader_epoch
    part.at.bytes = log.end
    position_set(&part.at.log_end, r.next_offset)
    promise_stable(log)
    log.all_next = s.logs
    if s.logs != NULL:
        s.logs.all_prev = log
    s.logs = log
    s.stats.partitions += 1
    return log


cdef void open_run(Job *job) noexcept nogil:
    recovery_run(&(<Opening *> job).recovery)


cdef void open_done(Job *job) noexcept nogil:
    cdef Opening *j = <Opening *> job
    cdef LogOpen *o = j.o
    cdef StoreState *s = j.store
    cdef Recovery *r = &j.recovery
    cdef LogState *log
    s.opens -= 1
    o.error = r.error
    memcpy(o.why, r.why, sizeof(o.why))
    o.recovered = r.recovered
    o.lost_bytes = r.lost_bytes
    o.arena_bytes = r.arena_bytes
    o.part = NULL
    if not r.error:
        log = adopt(s, o, r)
        if log != NULL:
            o.part = log.part
        else:
            o.error = KAFKA_STORAGE_ERROR
            snprintf(o.why, sizeof(o.why), "out of memory")
        recovery_free(r)
    free(j)
    o.done(o)


cdef void control_open(StoreState *s, LogOpen *o) noexcept nogil:
    cdef Opening *j = <Opening *> calloc(1, sizeof(Opening))
    o.part = NULL
    if j == NULL:
        o.error = KAFKA_STORAGE_ERROR
        snprintf(o.why, sizeof(o.why), "out of memory")
        o.done(o)
        return
    j.job.run = open_run
    j.job.done = open_done
    j.store = s
    j.o = o
    j.recovery.path = o.path
    j.recovery.topic_id = o.topic_id
    j.recovery.partition = o.index
    j.recovery.create = o.create
    j.recovery.clean = o.clean
    j.recovery.together = o.together
    j.recovery.settings = sane(&o.settings)
    j.recovery.relics = <const RelicSet *> s.config.relics
    s.opens += 1
    work_submit(s.config.pool, s.config.home, &j.job, WORK_SOON)


cdef void answer(LogCtl *c, int16_t error) noexcept nogil:
    c.error = error
    c.next = NULL
    c.done(c)


cdef void delete_records(LogState *log, LogCtl *c) noexcept nogil:
    cdef Partition *part = log.part
    cdef int64_t to = c.number if c.number >= 0 else part.at.high_watermark
    if to > part.at.high_watermark:
        c.result = -1
        answer(c, OFFSET_OUT_OF_RANGE)
        return
    if to > part.at.log_start:
        position_set(&part.at.log_start, to)
        promise_stable(log)
    segments_remove_below(log, part.at.log_start)
    c.result = part.at.log_start
    answer(c, 0)


cdef void begin_closing(LogState *log, int kind) noexcept nogil:
    """From here on every request gets UNKNOWN_TOPIC_OR_PARTITION; what was accepted is finished, or with CTL_DELETE dropped."""
    cdef Append *a
    cdef Append *following
    log.closing = <int16_t> (kind + 1)
    checkpoint_drop(log)
    log_checked(log, log.end)
    leave_chunk_line(log)
    leave_starved(log)
    parked_fail(log, UNKNOWN_TOPIC_OR_PARTITION)
    reads_fail(log, UNKNOWN_TOPIC_OR_PARTITION)
    loadline_leave(log.loadline, log)
    timequeries_fail(log, UNKNOWN_TOPIC_OR_PARTITION)
    if kind == CTL_DELETE:
        if not log.part.at.offline:
            log.store.dirty -= log.end - log.written
            log.end = log.written
            log.checked = log.end
            log.wanted = 0
            log.forced = 0
        a = log.pending
        log.pending = NULL
        log.pending_last = NULL
        while a != NULL:
            following = a.next
            append_answer(log, a, UNKNOWN_TOPIC_OR_PARTITION, -1)
            a = following
        a = log.repeats
        log.repeats = NULL
        while a != NULL:
            following = a.next
            append_answer(log, a, UNKNOWN_TOPIC_OR_PARTITION, -1)
            a = following
    elif not log.part.at.offline:
        log.wanted = log.end
        log.forced = log.end
    log_moved(log)


cdef void control_start(LogState *log, LogCtl *c) noexcept nogil:
    cdef LogCtl **at = &log.controls
    c.error = 0
    c.why[0] = 0
    c.next = NULL
    c.result = 0
    c.busy = False
    c.data = NULL
    c.length = 0
    if log.closing:
        snprintf(c.why, sizeof(c.why), "the log is closed or closing")
        answer(c, UNKNOWN_TOPIC_OR_PARTITION)
        return
    if c.kind == CTL_SETTINGS:
        log.settings[0] = sane(&c.settings)
        answer(c, 0)
        return
    if c.kind == CTL_FAIL:
        log_fail(log, "reaching the disk", <int> c.number)
        answer(c, 0)
        return
    if c.kind == CTL_LEADER_EPOCH:
        position_set(&log.part.at.leader_epoch, c.number)
        answer(c, 0)
        return
    if c.kind == CTL_PRODUCERS:
        c.length = producers_snapshot_bytes(&log.producers)
        c.data = <uint8_t *> malloc(c.length)
        if c.data != NULL:
            producers_snapshot(&log.producers, c.data)
        answer(c, 0 if c.data != NULL else KAFKA_STORAGE_ERROR)
        return
    if log.part.at.offline and c.kind != CTL_CLOSE and c.kind != CTL_DELETE:
        snprintf(c.why, sizeof(c.why), "the partition is offline")
        answer(c, <int16_t> log.part.at.offline)
        return
    if c.kind == CTL_DELETE_RECORDS:
        delete_records(log, c)
        return
    if c.kind == CTL_COMPACTABLE:
        c.result = swap_limit(log)
        answer(c, 0)
        return
    if c.kind == CTL_FLUSH:
        c.number = log.end
        if log.end > log.wanted:
            log.wanted = log.end
    elif c.kind == CTL_ROLL:
        c.number = 0
    while at[0] != NULL:
        at = &at[0].next
    at[0] = c
    log_ready(log)
    if c.kind == CTL_CLOSE or c.kind == CTL_DELETE:
        begin_closing(log, c.kind)


cdef void end_run(Job *job) noexcept nogil:
    """Leaves the directory as a clean shutdown does: exact sizes, indexes, snapshot, no provisional segment."""
    cdef LogJob *j = <LogJob *> job
    cdef char path[PATH_MAX_]
    j.error = file_trim(j.fd, j.to)
    path_join(path, j.log.path, "next.segment")
    if not j.error:
        j.error = file_unlink(path)
    if not j.error:
        j.error = segment_write_files(j.log.path, j.segment, j.offset)
    if not j.error and 0 <= j.log.checked_offset < j.offset and path_of(path, j.log.path, j.log.checked_offset, ".snapshot") == 0:
        file_unlink(path)


cdef void recycle_all(LogJob *j, const char *home) noexcept nogil:
    """Gives the pool what it takes of a removed log's sealed segments."""
    cdef const int64_t *bases = <const int64_t *> j.data
    cdef char path[PATH_MAX_]
    cdef size_t i
    for i in range(j.len):
        if path_of(path, home, bases[i], ".log") == 0:
            segment_recycle(j, path, home)


cdef void delete_run(Job *job) noexcept nogil:
    """Renames the directory, so that no start finds half of it, then removes it."""
    cdef LogJob *j = <LogJob *> job
    cdef char gone[PATH_MAX_]
    cdef char parent[PATH_MAX_]
    cdef char *slash = strrchr(j.log.path, b'/')
    cdef size_t keep = strlen(j.log.path)
    # a name may have 255 bytes (limits.h: NAME_MAX), and the ending takes 24 of them: the longest topic names are cut
    if slash != NULL and keep > <size_t> (slash - j.log.path) + 232:
        keep = <size_t> (slash - j.log.path) + 232
    if snprintf(gone, PATH_MAX_, "%.*s.%016llx-delete", <int> keep, j.log.path,
                <unsigned long long> (clock_ns() ^ <int64_t> j.log)) >= PATH_MAX_:
        j.error = ENAMETOOLONG
        return
    j.error = file_rename(j.log.path, gone)
    if j.error == ENOENT:
        j.error = 0
        return
    if j.error:
        return
    memcpy(parent, j.log.path, strlen(j.log.path) + 1)
    slash = strrchr(parent, b'/')
    if slash != NULL and slash != parent:
        slash[0] = 0
        j.error = dir_sync(parent)
    if not j.error:
        recycle_all(j, gone)
        j.error = dir_remove(gone)


cdef void end_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef LogCtl *c = log.controls
    log.jobs -= 1
    if j.error:
        snprintf(c.why, sizeof(c.why), "%s", strerror(j.error))
    segments_count(log, j)
    free(j.data)
    finish_closing(log, KAFKA_STORAGE_ERROR if j.error else 0)
    free(j)


cdef void finish_closing(LogState *log, int16_t error) noexcept nogil:
    cdef LogCtl *c = log.controls
    drop_contents(log)
    log.sealing = True
    log.controls = c.next
    answer(c, error)


cdef void drop_contents(LogState *log) noexcept nogil:
    """Frees what a closed log no longer needs; the struct stays, as requests may still name it."""
    cdef StoreState *s = log.store
    cdef Ended *ended
    timer_disarm(&s.timers, &log.lazy.timer)
    timer_disarm(&s.timers, &log.flush.timer)
    while log.segments_n:
        log.segments_n -= 1
        segment_free(s, log.segments[log.segments_n])
    free(log.segments)
    log.segments = NULL
    log.active = NULL
    log.write_segment = NULL
    log.tail = NULL
    free(log.partial)
    log.partial = NULL
    checkpoint_drop(log)
    file_close(log.next_fd)
    log.next_fd = -1
    s.producers_n -= log.producers.count
    producers_free(&log.producers)
    verify_free(&log.verifications)
    while log.ended != NULL:
        ended = log.ended
        log.ended = ended.next
        free(ended)
    log.ended_last = NULL


cdef void delete_prepare(LogState *log, LogJob *j) noexcept nogil:
    """Names the segments that the pool may take, and lets go of their files."""
    cdef Segment *seg
    cdef int32_t i
    j.removed = <uint64_t> log.segments_n
    j.recycle = log.settings.recycle_bytes if log.durable_seen else 0
    j.segment_bytes = log.settings.segment_bytes
    j.reserve = log.settings.disk_reserve
    if j.recycle:
        j.data = <uint8_t *> malloc(<size_t> log.segments_n * sizeof(int64_t))
    if j.data == NULL:
        return
    for i in range(log.segments_n):
        seg = log.segments[i]
        if seg.sealed and seg.users == 0:
            file_close(seg.fd)
            seg.fd = -1
            (<int64_t *> j.data)[j.len] = seg.base_offset
            j.len += 1


cdef void end_start(LogState *log, LogCtl *c) noexcept nogil:
    cdef LogJob *j = <LogJob *> calloc(1, sizeof(LogJob))
    cdef Segment *seg = log.active
    cdef size_t n = producers_snapshot_bytes(&log.producers)
    if j == NULL:
        finish_closing(log, KAFKA_STORAGE_ERROR)
        return
    j.log = log
    j.segment = seg
    j.job.done = end_done
    if c.kind == CTL_DELETE:
        j.job.run = delete_run
        delete_prepare(log, j)
    else:
        j.job.run = end_run
        j.fd = seg.fd
        j.to = seg.size
        j.offset = log.part.at.log_end
        index_seal(seg.index)
        free(seg.snapshot)
        seg.snapshot = <uint8_t *> malloc(n)
        if seg.snapshot != NULL:
            producers_snapshot(&log.producers, seg.snapshot)
            seg.snapshot_len = n
    log.sealing = True
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)


cdef void control_step(LogState *log) noexcept nogil:
    cdef LogCtl *c = log.controls
    cdef bint offline = log.part.at.offline != 0
    if c == NULL or log.sealing:
        return
    if c.kind == CTL_SWAP:
        swap_step(log, c)
    elif c.kind == CTL_FLUSH:
        if offline or log.durable >= c.number:
            log.controls = c.next
            answer(c, KAFKA_STORAGE_ERROR if offline else 0)
            log_ready(log)
    elif c.kind == CTL_ROLL:
        if c.number == 0 and not offline and log.active.size and not log.closing:
            if next_segment_ready(log) and segment_roll(log):
                c.number = 1
            return
        if offline or (log.write_segment == log.active and log.jobs == 0):
            log.controls = c.next
            answer(c, KAFKA_STORAGE_ERROR if offline else 0)
            log_ready(log)
    elif not log.writing and log.jobs == 0 and log.loads == 0:
        if c.kind == CTL_DELETE:
            end_start(log, c)
        elif offline:
            snprintf(c.why, sizeof(c.why), "the partition is offline: its end is searched for when it is opened again")
            finish_closing(log, KAFKA_STORAGE_ERROR)
        elif write_idle(log):
            end_start(log, c)


cdef void log_free(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    cdef LogState **at
    cdef LogState *before = NULL
    if log.active != NULL:
        drop_contents(log)
    leave_chunk_line(log)
    leave_starved(log)
    checkpoint_leave(log)
    if log.ready:
        at = &s.ready
        while at[0] != log:
            before = at[0]
            at = &at[0].ready_next
        at[0] = log.ready_next
        if s.ready_last == log:
            s.ready_last = before
    if log.slotless:
        before = NULL
        at = &s.slot_line
        while at[0] != log:
            before = at[0]
            at = &at[0].slot_next
        at[0] = log.slot_next
        if s.slot_line_last == log:
            s.slot_line_last = before
    if log.firing:
        at = &s.fire
        while at[0] != log:
            at = &at[0].fire_next
        at[0] = log.fire_next
    if log.all_prev != NULL:
        log.all_prev.all_next = log.all_next
    else:
        s.logs = log.all_next
    if log.all_next != NULL:
        log.all_next.all_prev = log.all_prev
    s.stats.partitions -= 1
    free(log.part)
    free(log.path)
    free(log.settings)
    free(log)
