"""Segments of a log: finding them, opening rolled ones on demand within a bound, sealing a rolled one's files, deleting old ones."""
from libc.stdint cimport int64_t
from fastlog.native.store cimport LogState, Segment, StoreState

# A segment at the end of the log's array, or NULL: no memory. It takes no descriptor and has no index yet.
cdef Segment *segment_add(LogState *log, int64_t base_offset, int64_t start, int64_t size) noexcept nogil
# Frees a segment that is in no log's array and has no users: index, descriptor, chunks.
cdef void segment_free(StoreState *s, Segment *seg) noexcept nogil
# The segment that holds an offset in [log start, log end).
cdef Segment *segment_of(const LogState *log, int64_t offset) noexcept nogil
# Offset past the segment's last one.
cdef int64_t segment_next_offset(const LogState *log, const Segment *seg) noexcept nogil
# True when descriptor and index are there; else starts opening (the log's reads are retried when that ended) and returns False. An open
# segment counts as used now.
cdef bint segment_ready(LogState *log, Segment *seg) noexcept nogil
# Holds descriptor and index while something uses them, across turns.
cdef void segment_use(Segment *seg) noexcept nogil
cdef void segment_unuse(StoreState *s, Segment *seg) noexcept nogil
# Puts an open segment under the bound on open segments, and closes those used longest ago.
cdef void segment_opened(StoreState *s, Segment *seg) noexcept nogil
# Trims and flushes a rolled segment whose bytes are all written, then writes its indexes and its producer snapshot.
cdef void segment_seal(LogState *log, Segment *seg) noexcept nogil
# Files of a segment at its end; blocking, for jobs. Returns an errno.
cdef int segment_write_files(const char *path, Segment *seg, int64_t snapshot_offset) noexcept nogil
# Removes segments all of whose offsets are below `offset`, never the active one.
cdef void segments_remove_below(LogState *log, int64_t offset) noexcept nogil
