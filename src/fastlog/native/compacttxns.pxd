"""Transactions, as a compaction reads batches in order: which are aborted, and of which a record is left."""
from libc.stdint cimport int64_t, uint8_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.compactwork cimport Txns, Work

# Adds what a segment's .txnindex says; without the file, nothing. An entry that is half written (of the active one) is left out.
cdef int load_aborted(Work *w, int64_t base_offset) noexcept nogil
# Orders what load_aborted added, once all were.
cdef void sort_aborted(Work *w) noexcept nogil
# Before a pass over the segments. ENOMEM, or 0.
cdef int txns_begin(Work *w) noexcept nogil
cdef void txns_free(Txns *t) noexcept nogil
# A batch of records is next; *aborted: it belongs to an aborted transaction. Those that ended before `from_offset` are not known.
cdef int txns_data(Work *w, const BatchInfo *info, int64_t from_offset, bint *aborted) noexcept nogil
# A marker is next; *gone: no record of its transaction is left. An abort marker that stays is noted for the new .txnindex.
cdef int txns_control(Work *w, const uint8_t *p, const BatchInfo *info, int64_t from_offset, bint *gone) noexcept nogil
