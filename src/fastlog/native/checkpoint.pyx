"""Checkpoints inside the active segment. See checkpoint.pxd.

A checkpoint is a producer snapshot at an offset inside the segment, with the index entries up to there, written after all before that
offset became durable: recovery finds the snapshot, walks from the last index entry to exactly its offset, and checks batches from there.
"""
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from fastlog.native.producers cimport producers_snapshot, producers_snapshot_bytes
from fastlog.native.segment cimport segment_keep
from fastlog.native.store cimport INDEX_ENTRIES_MAX, LogState, Segment


cdef void checkpoint_drop(LogState *log) noexcept nogil:
    free(log.check_data)
    log.check_data = NULL
    log.check_end = -1


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
        log.checked = log.end
        log.check_len = producers_snapshot_bytes(&log.producers)
        log.check_data = <uint8_t *> malloc(log.check_len)
        if log.check_data == NULL:
            return
        producers_snapshot(&log.producers, log.check_data)
        log.check_end = log.end
        log.check_offset = log.part.at.log_end
        if log.end > log.wanted:
            log.wanted = log.end
    elif (seg.index.offsets_gone + seg.index.offsets_n - seg.index.offsets_kept > INDEX_ENTRIES_MAX or
          seg.index.aborted.gone + seg.index.aborted.n - seg.index.aborted.kept > INDEX_ENTRIES_MAX) and \
            log.store.now_ns >= log.keep_after:
        segment_keep(log, seg, NULL, 0, 0, -1)
