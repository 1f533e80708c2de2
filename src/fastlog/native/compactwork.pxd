"""What the rooms of a compaction share: one partition's segments, where it is in them, and the pace at which it may read and write."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from fastlog.native.aborted cimport Aborted, AbortedTxn
from fastlog.native.index cimport Index
from fastlog.native.producers cimport Producers
from fastlog.native.sift cimport Sieve

cdef enum:
    PIECE = 262144                  # bytes read and written at once: a producer's write may have to wait for one on the device
    DAMAGED = -1                    # outcomes beside errnos
    CANCELLED = -2
    FULL = -3                       # the map is

cdef struct Part:                   # a segment of the log
    int64_t base_offset
    int64_t next_offset             # where the next one begins
    int64_t size

cdef struct Dropped:                # an aborted transaction
    AbortedTxn txn
    bint met                        # a batch of its was read

cdef struct Txns:                   # transactions, as batches are read in order
    int32_t next                    # of all the aborted, ordered by first offset: those before it have begun
    Dropped **aborted               # begun, and their markers not yet read
    int32_t aborted_n
    int64_t *committed              # producers with batches of a transaction that was not aborted, its marker not yet read
    int32_t committed_n
    int32_t committed_cap

cdef struct Input:                  # a segment that is read from its start to its end
    int fd
    int64_t size
    uint8_t *buf
    int64_t cap
    int64_t from_                   # file position of buf
    int64_t n                       # bytes there

cdef struct Output:                 # a segment that is written
    int fd
    uint8_t *buf
    int64_t used
    int64_t at                      # file position of buf
    Index index
    int64_t last_offset             # of the last batch; -1: none
    Aborted aborted                 # for its .txnindex

cdef struct Work:
    char *path
    Part *parts
    int32_t parts_n
    int64_t interval                # index.interval.bytes
    int64_t rate                    # bytes a second, read and written; 0: no limit
    int64_t rate_from_ns
    int64_t rate_bytes              # since then
    int cancelled
    Sieve sieve
    Producers producers             # at the end of the last part
    Dropped *all_aborted
    int32_t all_aborted_n
    Txns txns
    Input input
    Output output
    int64_t at_offset               # where it stopped: base offset of the segment
    int64_t at_position             # and file position
    const char *why                 # of DAMAGED
    int64_t read_bytes
    int64_t written_bytes

# Takes note of n bytes moved and waits until the rate allows for them. CANCELLED, or 0.
cdef int work_spend(Work *w, int64_t n) noexcept nogil
# Has what is under way end soon; any thread may.
cdef void work_cancel(Work *w) noexcept nogil
# Memory for O_DIRECT, freed by free(); NULL: there is none.
cdef uint8_t *piece_room(int64_t bytes) noexcept nogil


cdef inline int work_damaged(Work *w, int64_t at, const char *why) noexcept nogil:
    """Notes what is wrong at a file position of the segment that is read."""
    w.at_position = at
    w.why = why
    return DAMAGED
