"""Blocks ahead of a log's end. See runway.pxd."""
from libc.errno cimport ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from fastlog.native.arena cimport BLOCK, whole_blocks
from fastlog.native.checkpoint cimport checkpoint_drop
from fastlog.native.files cimport (
    PATH_MAX_, dir_sync, file_allocate, file_close, file_open, file_rename, file_sync, file_unlink, file_zero, path_join, path_of,
)
from fastlog.native.index cimport Index, index_init, index_seal
from fastlog.native.producers cimport producers_expire, producers_snapshot, producers_snapshot_bytes
from fastlog.native.log cimport position_get
from fastlog.native.promise cimport log_fail, parked_fail
from fastlog.native.recycle cimport recycle_give_back, recycle_take
from fastlog.native.segment cimport segment_add, segments_remove_due
from fastlog.native.store cimport KAFKA_STORAGE_ERROR, LogJob, LogState, Segment, clock_ms, log_checked, log_ready
from fastlog.native.work cimport Job, WORK_LATER, WORK_SOON, work_submit

cdef enum:
    STEP_MIN = 65536                # bytes
    STEP_MAX = 67108864
    ZERO_STEP_MAX = 16777216
    ZERO_PIECE_MAX = 131072         # larger durable writes are as well off on blocks that were never written
    SECOND = 1000000000             # ns


cdef int64_t paced(int64_t step, int64_t since_ns, int64_t most) noexcept nogil:
    """The next step: larger when the last one was used up quickly, smaller when slowly."""
    if since_ns < SECOND // 20:
        step *= 4
    elif since_ns < SECOND:
        step *= 2
    elif since_ns > 30 * <int64_t> SECOND:
        step //= 2
    if step > most:
        step = most
    return step if step > STEP_MIN else STEP_MIN


cdef int allocate(LogJob *j, int64_t from_, int64_t least) noexcept nogil:
    """Blocks from there to `j.to`, or as far as there is room for; what the pool holds is given back before there is none."""
    cdef int64_t to = j.to
    cdef int err = file_allocate(j.fd, from_, to, least, j.reserve, &j.to)
    if err == ENOSPC and recycle_give_back(j.log.path):
        err = file_allocate(j.fd, from_, to, least, j.reserve, &j.to)
    return err


cdef void allocate_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    j.error = allocate(j, j.from_, j.least)


cdef void allocate_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    log.jobs -= 1
    j.segment.preparing -= 1
    log.allocating = False
    log_ready(log)
    if j.error and j.error != ENOSPC:
        log_fail(log, "allocating blocks", j.error)
    elif j.error:                                   # the disk is full
        log.step = STEP_MIN
        if log.parked == NULL or j.segment != log.active or j.least <= whole_blocks(log.active.size + log.parked.info.size):
            parked_fail(log, KAFKA_STORAGE_ERROR)   # the next append tries again; this one tries with less, if it needs less
    elif j.segment == log.active and j.to > log.allocated:
        log.allocated = j.to
    free(j)


cdef void runway_need(LogState *log, int64_t need) noexcept nogil:
    cdef LogJob *j
    cdef int64_t limit = whole_blocks(log.settings.segment_bytes)
    cdef int64_t now
    if limit < whole_blocks(need):
        limit = whole_blocks(need)
    if log.allocating or log.allocated >= limit:
        return
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j == NULL:
        return
    now = log.store.now_ns
    log.step = paced(log.step, now - log.stepped_ns, STEP_MAX)
    log.stepped_ns = now
    j.job.run = allocate_run
    j.job.done = allocate_done
    j.log = log
    j.segment = log.active
    j.fd = log.active.fd
    j.from_ = log.allocated
    j.least = whole_blocks(need)
    j.to = log.allocated + log.step
    if j.to < j.least:
        j.to = j.least
    if j.to > limit:
        j.to = limit
    if j.least <= j.from_:
        j.least = j.to
    j.reserve = log.settings.disk_reserve
    log.allocating = True
    log.active.preparing += 1
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)


cdef void zero_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    j.error = file_zero(j.fd, j.from_, j.to)


cdef void zero_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    log.jobs -= 1
    j.segment.preparing -= 1
    log.zero_segment = NULL
    log_ready(log)
    if j.error:
        log_fail(log, "zeroing blocks", j.error)
    else:
        log.store.stats.zeroed_bytes += <uint64_t> (j.to - j.from_)
        log.store.stats.written_bytes += <uint64_t> (j.to - j.from_)
        if j.segment == log.active:
            if j.from_ != log.runway:
                log.runway_from = j.from_
            log.runway = j.to
    free(j)


cdef void zero_ahead(LogState *log) noexcept nogil:
    cdef LogJob *j
    cdef int64_t at = whole_blocks(log.active.size)
    cdef int64_t now
    if log.zero_segment != NULL or log.piece > ZERO_PIECE_MAX or log.runway - at > log.zero_step // 2:
        return
    if log.runway > at:
        at = log.runway
    elif log.written != log.end:
        at += whole_blocks(2 * log.piece + 1)     # what is on its way stays clear of the job
    if log.allocated - at < STEP_MIN and log.allocated < whole_blocks(log.settings.segment_bytes):
        runway_need(log, at + log.zero_step)
        return
    if log.allocated <= at:
        return
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j == NULL:
        return
    now = log.store.now_ns
    log.zero_step = paced(log.zero_step, now - log.zeroed_ns, ZERO_STEP_MAX)
    log.zeroed_ns = now
    j.job.run = zero_run
    j.job.done = zero_done
    j.log = log
    j.segment = log.active
    j.fd = log.active.fd
    j.from_ = at
    j.to = at + log.zero_step
    if j.to > log.allocated:
        j.to = log.allocated
    log.zero_segment = log.active
    log.zero_from = j.from_
    log.zero_to = j.to
    log.active.preparing += 1
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_LATER)


cdef void runway_ahead(LogState *log) noexcept nogil:
    cdef int64_t left = log.allocated - log.active.size
    if log.allocated < log.settings.segment_bytes and left < log.step // 2 and not log.allocating:
        runway_need(log, whole_blocks(log.active.size) + BLOCK)
    if log.durable_seen:
        zero_ahead(log)
    if log.active.size > log.settings.segment_bytes - 2 * log.step and log.active.size > log.settings.segment_bytes // 2:
        next_segment_ready(log)


cdef void next_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef char path[PATH_MAX_]
    j.error = path_join(path, j.log.path, "next.segment")
    if not j.error:
        j.error = file_unlink(path)
    if j.error:
        return
    if j.least and j.recycle and recycle_take(path, j.log.path, j.segment_bytes, &j.fd, &j.direct):
        j.to = whole_blocks(j.segment_bytes)
        j.least = j.to
        j.reused = True
        return
    j.fd = file_open(path, True, True, &j.direct)
    if j.fd < 0:
        j.error = -j.fd
        return
    j.error = allocate(j, 0, BLOCK)
    if j.least > j.to:
        j.least = j.to
    if not j.error and j.least:
        j.error = file_zero(j.fd, 0, j.least)
    if not j.error:
        j.error = file_sync(j.fd)
    if not j.error:
        j.error = dir_sync(j.log.path)
    if j.error:
        file_close(j.fd)
        file_unlink(path)


cdef void next_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    log.jobs -= 1
    log.next_busy = False
    log_ready(log)
    if j.error and j.error != ENOSPC:
        log_fail(log, "making the next segment", j.error)
    elif j.error:
        parked_fail(log, KAFKA_STORAGE_ERROR)
    else:
        log.next_ready = True
        log.next_fd = j.fd
        log.next_direct = j.direct
        log.next_allocated = j.to
        log.next_runway = j.least
        if j.reused:
            log.store.stats.segments_reused += 1
        else:
            log.store.stats.zeroed_bytes += <uint64_t> j.least
            log.store.stats.written_bytes += <uint64_t> j.least
    free(j)


cdef bint next_segment_ready(LogState *log) noexcept nogil:
    cdef LogJob *j
    if log.next_ready:
        return True
    if log.next_busy:
        return False
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j == NULL:
        return False
    j.job.run = next_run
    j.job.done = next_done
    j.log = log
    j.to = log.step if log.step < whole_blocks(log.settings.segment_bytes) else whole_blocks(log.settings.segment_bytes)
    if log.durable_seen and log.piece <= ZERO_PIECE_MAX:
        j.least = log.zero_step
    j.reserve = log.settings.disk_reserve
    j.recycle = log.settings.recycle_bytes
    j.segment_bytes = log.settings.segment_bytes
    log.next_busy = True
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)
    return False


cdef void name_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef char old[PATH_MAX_]
    cdef char path[PATH_MAX_]
    j.error = path_join(old, j.log.path, "next.segment")
    if not j.error:
        j.error = path_of(path, j.log.path, j.offset, ".log")
    if not j.error:
        j.error = file_rename(old, path)
    if not j.error:
        j.error = dir_sync(j.log.path)


cdef void name_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    log.jobs -= 1
    log.next_busy = False
    log.naming = False
    log_ready(log)
    if j.error:
        log_fail(log, "naming a segment", j.error)
    free(j)
    segments_remove_due(log)            # that of before had to stay until now


cdef bint segment_roll(LogState *log) noexcept nogil:
    cdef Segment *old = log.active
    cdef Segment *seg
    cdef Index *index = <Index *> malloc(sizeof(Index))
    cdef LogJob *j = <LogJob *> calloc(1, sizeof(LogJob))
    cdef size_t n
    if index == NULL or j == NULL:
        free(index)
        free(j)
        return False
    seg = segment_add(log, log.part.at.log_end, log.end, 0)
    if seg == NULL:
        free(index)
        free(j)
        return False
    log.store.segment_ids += 1
    seg.chunks.id = log.store.segment_ids
    seg.created_ms = clock_ms()
    if log.settings.segment_jitter_ms > 0:
        seg.roll_jitter_ms = <int64_t> (<uint64_t> log.store.now_ns % <uint64_t> log.settings.segment_jitter_ms)
    index_init(index, seg.base_offset)
    seg.index = index
    seg.fd = log.next_fd
    seg.direct = log.next_direct
    index_seal(old.index)
    old.max_timestamp = old.index.max_timestamp
    old.max_timestamp_offset = old.index.max_timestamp_offset
    log.store.producers_n -= log.producers.count
    producers_expire(&log.producers, clock_ms() - position_get(&log.store.config.producer_expires_ms))
    log.store.producers_n += log.producers.count
    n = producers_snapshot_bytes(&log.producers)
    old.snapshot = <uint8_t *> malloc(n)
    if old.snapshot != NULL:
        producers_snapshot(&log.producers, old.snapshot)
        old.snapshot_len = n
    old.rolled = True
    old.checkpoint = log.checked_offset
    checkpoint_drop(log)
    log_checked(log, log.end)
    log.checked_offset = -1
    if log.tail != NULL:
        log.tail.owner = NULL
        log.tail = NULL
    free(log.partial)
    log.partial = NULL
    log.active = seg
    log.allocated = log.next_allocated
    log.runway_from = 0
    log.runway = log.next_runway
    log.next_ready = False
    log.next_fd = -1
    log.next_busy = True
    log.naming = True
    log.roll_asked = False
    log.jobs += 1
    j.job.run = name_run
    j.job.done = name_done
    j.log = log
    j.offset = seg.base_offset
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)
    log_ready(log)
    return True
