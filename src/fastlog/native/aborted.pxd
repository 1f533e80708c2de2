"""The aborted transactions of one segment, in memory and in Kafka's file format (`.txnindex`). Pure: no I/O.

An entry stands in the segment that holds the abort's marker. File: int16 version 0, then int64 producer id, first offset of the
transaction, offset of its marker, and the last stable offset when it ended: transactions of later entries began there or after.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum:
    ABORTED_ENTRY = 34              # bytes in the file

cdef struct AbortedTxn:
    int64_t producer_id
    int64_t first_offset
    int64_t last_offset             # of the marker; grows from entry to entry
    int64_t last_stable

cdef struct Aborted:
    AbortedTxn *at
    int32_t n                       # entries in memory
    int32_t cap
    int32_t gone                    # entries before those, which are in the file only
    int32_t kept                    # entries that are in the file, from the first on
    int64_t gone_last               # last_offset of the newest that is gone

cdef void aborted_free(Aborted *a) noexcept nogil
# Room for n more entries. -1: no memory.
cdef int aborted_room(Aborted *a, int32_t n) noexcept nogil
# There must be room.
cdef void aborted_add(Aborted *a, int64_t producer_id, int64_t first_offset, int64_t last_offset, int64_t last_stable) noexcept nogil
# Least first offset of the entries in memory; 2^63-1 without any.
cdef int64_t aborted_least(const Aborted *a) noexcept nogil
# Whether the entries in memory can tell about fetches from `offset` on; else the file must be asked.
cdef inline bint aborted_covers(const Aborted *a, int64_t offset) noexcept nogil:
    return a.gone == 0 or offset > a.gone_last
# Adds to `out` those that overlap offsets [from_, to): 1 when later segments have no more of them, 0 when they may, -1: no memory.
cdef int aborted_collect(const Aborted *a, int64_t from_, int64_t to, Aborted *out) noexcept nogil
# Takes out entries of markers from `offset` on; all entries must be in memory.
cdef void aborted_cut(Aborted *a, int64_t offset) noexcept nogil
# The first n entries are in the file now, and leave memory.
cdef void aborted_forget(Aborted *a, int32_t n) noexcept nogil
# The entries that are not in the file yet, which belong at entry `kept`. Returns the bytes: at most n * ABORTED_ENTRY.
cdef size_t aborted_encode(const Aborted *a, uint8_t *out) noexcept nogil
# Reads a file of a segment that begins at base_offset. -1: not whole entries, one out of order or of another version, or no memory.
cdef int aborted_decode(Aborted *a, const uint8_t *data, size_t n, int64_t base_offset) noexcept nogil
