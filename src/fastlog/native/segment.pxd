"""Segments of a log: finding them, opening rolled ones on demand within a bound, sealing a rolled one's files, deleting old ones."""
from libc.stdint cimport int64_t, uint8_t
from fastlog.native.index cimport Index
from fastlog.native.store cimport LogJob, LogState, Segment, StoreState

# A segment at the end of the log's array, or NULL: no memory. It takes no descriptor and has no index yet.
cdef Segment *segment_add(LogState *log, int64_t base_offset, int64_t start, int64_t size) noexcept nogil
# Frees a segment that is in no log's array and has no users: index, descriptor, chunks.
cdef void segment_free(StoreState *s, Segment *seg) noexcept nogil
# The segment that holds an offset in [log start, log end).
cdef Segment *segment_of(const LogState *log, int64_t offset) noexcept nogil
# Offset past the segment's last one.
cdef int64_t segment_next_offset(const LogState *log, const Segment *seg) noexcept nogil
# Writes those aborted transactions of an index that are not in their file yet; without any there need be none. Blocking. Returns an errno.
cdef int segment_put_aborted(const char *path, const Index *ix) noexcept nogil
# True when the descriptor is there (and, of a sealed segment, the index); else starts opening (the log's reads are retried when that ended)
# and returns False, or sets seg.failed. An open segment counts as used now.
cdef bint segment_ready(LogState *log, Segment *seg) noexcept nogil
# The index to ask about an offset, or a time, in a segment that is ready; NULL while it is loaded, or seg.failed.
cdef const Index *segment_index(LogState *log, Segment *seg, int64_t offset) noexcept nogil
# The same for the aborted transactions of fetches from an offset on.
cdef const Index *segment_aborted_index(LogState *log, Segment *seg, int64_t offset) noexcept nogil
cdef const Index *segment_time_index(LogState *log, Segment *seg, int64_t timestamp) noexcept nogil
# Takes note that opening failed: once per failure.
cdef bint segment_failed(Segment *seg) noexcept nogil
# Writes index entries of a segment that is not sealed to its files, so that they need not stay in memory; then a snapshot (taken over), if
# given, as that of `offset`, and removes the one of `before` (-1: none).
cdef void segment_keep(LogState *log, Segment *seg, uint8_t *snapshot, size_t snapshot_len, int64_t offset, int64_t before) noexcept nogil
# Holds descriptor and index while something uses them, across turns.
cdef void segment_use(Segment *seg) noexcept nogil
cdef void segment_unuse(StoreState *s, Segment *seg) noexcept nogil
# Puts an open segment under the bound on open segments, and closes those used longest ago.
cdef void segment_opened(StoreState *s, Segment *seg) noexcept nogil
# Trims and flushes a rolled segment whose bytes are all written, then writes its indexes and its producer snapshot.
cdef void segment_seal(LogState *log, Segment *seg) noexcept nogil
# Files of a segment at its end, the snapshot last: it says that the rest is there. Blocking, for jobs. Returns an errno.
cdef int segment_write_files(const char *path, Segment *seg, int64_t snapshot_offset) noexcept nogil
# Has a segment that was taken out of its log's array freed with its last user.
cdef void segment_drop(StoreState *s, Segment *seg) noexcept nogil
# In a job that removes segments: has the pool take one of a log in the directory `home`, by its file's path, or leaves it where it is.
cdef void segment_recycle(LogJob *j, const char *path, const char *home) noexcept nogil
# Counts what such a job did.
cdef void segments_count(LogState *log, const LogJob *j) noexcept nogil
# Removes segments all of whose offsets are below `offset`, never the active one; nor the one before, until that has its name: a log
# without any segment of that kind is taken for an empty one.
cdef void segments_remove_below(LogState *log, int64_t offset) noexcept nogil
# The same for the log's start, where one could not be removed when that moved.
cdef void segments_remove_due(LogState *log) noexcept nogil
