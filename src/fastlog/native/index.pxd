"""The sparse offset and time indexes of one segment, in memory and in Kafka's file formats. Pure: no I/O. Its aborted transactions
(aborted.pxd) go with them, as they are kept, forgotten and loaded at the same times.

`.index`: pairs of big-endian int32 (offset relative to the base, position of the batch that ends with it); `.timeindex`: int64 timestamp
and int32 relative offset: every record up to that offset is no later. One entry of each about every index.interval.bytes, the time entry
only when it grows. As in Kafka 4.3 an offset entry names the last offset of the batch at `position`.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from fastlog.native.aborted cimport Aborted

cdef enum:
    OFFSET_ENTRY = 8                # bytes in the file
    TIME_ENTRY = 12

cdef struct OffsetEntry:
    uint32_t relative
    uint32_t position

cdef struct TimeEntry:
    int64_t timestamp
    uint32_t relative

cdef struct Index:
    int64_t base_offset
    OffsetEntry *offsets
    TimeEntry *times
    int32_t offsets_n               # entries in memory
    int32_t offsets_cap
    int32_t times_n
    int32_t times_cap
    int32_t offsets_gone            # entries before those, which are in the file only
    int32_t times_gone
    int32_t offsets_kept            # entries that are in the file, from the first on
    int32_t times_kept
    int64_t last_position           # of the batch that got the last entry; 0 when there is none
    int64_t last_time               # timestamp of the last time entry; -1: none
    int64_t max_timestamp           # so far; -1: none
    int64_t max_timestamp_offset    # last offset of the first batch that has it
    Aborted aborted

cdef void index_init(Index *ix, int64_t base_offset) noexcept nogil
cdef void index_free(Index *ix) noexcept nogil
# Notes a batch at `position`. An entry is left out when there is no memory for it: lookups then walk further.
cdef void index_add(Index *ix, int64_t last_offset, int64_t position, int64_t max_timestamp, int64_t interval) noexcept nogil
# What the file gets when the segment becomes inactive: the largest timestamp as a last time entry.
cdef void index_seal(Index *ix) noexcept nogil
# Whether Kafka would roll a segment with these entries: index_bytes is segment.index.bytes.
cdef bint index_full(const Index *ix, int64_t index_bytes) noexcept nogil
# Whether the entries in memory can tell; else the files must be asked.
cdef bint index_covers(const Index *ix, int64_t offset) noexcept nogil
cdef bint index_covers_time(const Index *ix, int64_t timestamp) noexcept nogil
# The first `offsets` and `times` entries are in the files now: but for the last of them they leave memory.
cdef void index_forget(Index *ix, int32_t offsets, int32_t times) noexcept nogil
# Takes out entries, aborted transactions included, for offsets from `offset` on; all entries must be in memory.
cdef void index_cut(Index *ix, int64_t offset) noexcept nogil
# The position from which to walk to the batch that holds `offset`.
cdef int64_t index_position(const Index *ix, int64_t offset) noexcept nogil
# An offset not below that of any batch which begins before `position`, or -1: the entries in memory end before it.
cdef int64_t index_bound(const Index *ix, int64_t position) noexcept nogil
# The offset from which to walk to the first batch with a timestamp >= `timestamp`.
cdef int64_t index_time(const Index *ix, int64_t timestamp) noexcept nogil
cdef size_t index_bytes_held(const Index *ix) noexcept nogil

# File contents: the entries that are not in the files yet, which belong at entry offsets_kept or times_kept. Return their number; `out`
# has room for offsets_n * OFFSET_ENTRY or times_n * TIME_ENTRY bytes.
cdef int32_t index_encode_offsets(const Index *ix, uint8_t *out) noexcept nogil
cdef int32_t index_encode_times(const Index *ix, uint8_t *out) noexcept nogil
# Reads the files of a segment of `size` bytes whose last offset is below `next_offset`. Takes the longest prefix of entries that grow and
# lie within the segment; 0, or -1: not whole entries, an entry out of order or range (then the index holds the prefix), or no memory.
# Trailing zero entries, which Kafka preallocates, are no error; no time entry at all for a segment with batches is one.
cdef int index_decode(Index *ix, const uint8_t *offsets, size_t offsets_len, const uint8_t *times, size_t times_len, int64_t size,
                      int64_t next_offset) noexcept nogil
