"""Arenas of dead processes: the bytes in them that never reached their segment's file.

Read only; shared by all threads while logs are opened.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from fastlog.native.arena cimport ChunkHeader

cdef struct Relic:                  # one dead arena
    uint8_t *map
    uint64_t map_bytes
    const ChunkHeader **extents     # that hold appended bytes; sorted by partition, segment, window
    int32_t extents_n
    char *path

cdef struct RelicSet:
    Relic *relics                   # oldest first, as they were named
    int32_t n
    int64_t bytes                   # not written, in all

cdef int relicset_open(RelicSet **out, const char **paths, int n, char *why, size_t why_len) noexcept nogil
cdef void relicset_drop(RelicSet *set) noexcept nogil
# Whether relic i has bytes of the segment that continue file position `at`.
cdef bint relic_has(const RelicSet *set, int i, const uint8_t *topic_id, int32_t partition, int64_t base_offset, int64_t at) noexcept nogil
# Writes the bytes of relic i that continue file position `at` of a segment to `path`, where they are still to be flushed. *end is where
# they end (at: none). Returns an errno.
cdef int relic_apply(const RelicSet *set, int i, const uint8_t *topic_id, int32_t partition, int64_t base_offset, int64_t at,
                     const char *path, int64_t *end) noexcept nogil
