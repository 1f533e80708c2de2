"""Checkpoints inside the active segment. See checkpoint.pxd.

A checkpoint is a producer snapshot at an offset inside the segment, with the index entries up to there, written after all before that
offset became durable: recovery finds the snapshot, walks from the last index entry to exactly its offset, and checks batches from there.

A log gets one every 128 MiB. With thousands of logs that may still leave hundreds of gigabytes to a start after a kill: so the sum over all
logs is bounded too. Above the bound, logs are looked at in turns, and those with more than the average get one, also when nobody writes
to them any more; there is always one such log.
"""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from fastlog.native.producers cimport producers_snapshot, producers_snapshot_bytes
from fastlog.native.segment cimport segment_keep
from fastlog.native.store cimport INDEX_ENTRIES_MAX, LogState, Segment, StoreState, log_checked, log_ready

cdef enum:
    TURN_LOGS = 64                  # looked at in one turn


cdef void checkpoint_drop(LogState *log) noexcept nogil:
    free(log.check_data)
    log.check_data = NULL
    log.check_end = -1


cdef void checkpoint_leave(LogState *log) noexcept nogil:
    if log.store.unchecked_next == log:
        log.store.unchecked_next = log.all_next


cdef void checkpoint_begin(LogState *log) noexcept nogil:
    log.check_len = producers_snapshot_bytes(&log.producers)
    log.check_data = <uint8_t *> malloc(log.check_len)
    if log.check_data == NULL:
        return                      # later
    log_checked(log, log.end)
    producers_snapshot(&log.producers, log.check_data)
    log.check_end = log.end
    log.check_offset = log.part.at.log_end
    if log.end > log.wanted:
        log.wanted = log.end


cdef int64_t checkpoint_owed(const StoreState *s) noexcept nogil:
    return <int64_t> s.stats.appended_bytes + s.unchecked_base


cdef void checkpoint_turn(StoreState *s) noexcept nogil:
    cdef LogState *log
    cdef int64_t mean
    cdef int _i
    if checkpoint_owed(s) <= s.config.unchecked_max:
        return
    mean = checkpoint_owed(s) // <int64_t> (s.stats.partitions + 1)
    for _i in range(TURN_LOGS):
        log = s.unchecked_next if s.unchecked_next != NULL else s.logs
        if log == NULL or checkpoint_owed(s) <= s.config.unchecked_max:
            return
        s.unchecked_next = log.all_next
        if log.end - log.checked > mean and log.active != NULL and not log.closing and not log.part.at.offline and \
                not log.active.keeping and log.check_end < 0:
            checkpoint_begin(log)
            log_ready(log)


cdef void checkpoint_step(LogState *log) noexcept nogil:
    cdef Segment *seg = log.active
    if log.closing or log.part.at.offline or seg.keeping:
        return
    if log.check_end >= 0:
        if log.durable >= log.check_end:
            segment_keep(log, seg, log.check_data, log.check_len, log.check_offset, log.checked_offset)
            log.checked_offset = log.check_offset
            log.check_data = NULL
            log.check_end = -1
    elif log.end - log.checked >= log.store.config.checkpoint_bytes:
        checkpoint_begin(log)
    elif (seg.index.offsets_gone + seg.index.offsets_n - seg.index.offsets_kept > INDEX_ENTRIES_MAX or
          seg.index.aborted.gone + seg.index.aborted.n - seg.index.aborted.kept > INDEX_ENTRIES_MAX) and \
            log.store.now_ns >= log.keep_after:
        segment_keep(log, seg, NULL, 0, 0, -1)
