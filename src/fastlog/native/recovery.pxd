"""Opening a partition's directory: blocking, for a worker thread. What it finds becomes the log.

After a clean shutdown the last segment's size is believed. Otherwise its end is searched for: from the first segment that was not
sealed on, batches are checked and taken as long as they continue the log; bytes that a dead process's arena holds are put in where the
files stop; all past the end is cut off, durably, before the log takes appends.

With `together`, what is left to be flushed of that is the caller's: one flush of the file system does for all logs that are opened at a
start, which would each wait for several of their own. Until then the log may be looked at, and not changed.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from fastlog.native.index cimport Index
from fastlog.native.log cimport LogSettings
from fastlog.native.producers cimport Producers
from fastlog.native.relics cimport RelicSet

cdef struct Found:                  # a segment
    int64_t base_offset
    int64_t size
    int64_t aborted_least           # of all but the last; as Segment's

cdef struct Recovery:
    # in
    const char *path
    const uint8_t *topic_id
    int32_t partition
    bint create
    bint clean
    bint together
    LogSettings settings
    const RelicSet *relics          # or NULL
    # out
    int16_t error                   # Kafka error code
    char why[256]
    bint recovered
    int64_t lost_bytes
    int64_t arena_bytes
    Found *segments                 # malloc'ed; the last one is active
    int32_t segments_n
    int64_t next_offset
    int32_t leader_epoch            # of the last batch; -1: none
    int64_t snapshot_offset         # of the newest snapshot that was used; -1: none
    int64_t checked                 # position in the active segment up to which it need not be looked through again
    int64_t first_timestamp         # of the active segment's first batch; -1: none
    Index *index                    # of the active segment; malloc'ed
    Producers producers             # txn_position counts from the first segment's start
    uint8_t *partial                # the last block's bytes, malloc'ed, or NULL
    int fd                          # of the active segment
    bint direct

cdef void recovery_run(Recovery *r) noexcept nogil
# Frees what was found; for when it does not become a log.
cdef void recovery_free(Recovery *r) noexcept nogil
