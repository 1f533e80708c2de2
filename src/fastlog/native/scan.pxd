"""Walking the batches of a segment file: the blocking reader behind recovery and the rebuilding of indexes, for worker threads."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.index cimport Index
from fastlog.native.producers cimport Producers

cdef struct Scan:
    # in
    int fd
    int64_t to                      # file position where it ends at the latest
    int64_t interval                # of index entries, bytes
    bint check                      # CRCs, and that offsets continue without a gap
    bint gaps                       # offsets may skip (compacted, or written by another broker)
    Index *index                    # gets an entry per interval, or NULL
    Producers *producers            # gets the batches from producers_from on, or NULL; with it the index gets the aborted transactions
    int64_t producers_from          # offset
    int64_t until                   # offset where it ends at the latest
    # in: where a batch starts, and its offset; out: past the last batch that belongs to the log
    int64_t at
    int64_t offset
    # out
    int64_t first_timestamp         # of the batch at position 0, if that was walked; else -1
    int32_t leader_epoch            # of the last batch; unchanged when there is none
    int64_t batches
    const char *why                 # why it stopped before `to`: static text, or NULL
    bint gap                        # it stopped at a batch that skips offsets, where none may

# Walks from `at`. 0 when it stopped at `to` or at the first bytes that are no part of the log (why); an errno when reading failed.
cdef int scan_run(Scan *s) noexcept nogil
# Positions of the first and past the last byte that is not zero in [from_, to): *last == from_ when there is none. 0 or an errno.
cdef int scan_zeroes(int fd, int64_t from_, int64_t to, int64_t *last) noexcept nogil
