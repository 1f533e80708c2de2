"""Compaction of one partition's files, as Kafka's Cleaner does it: a pass over the dirty segments notes the newest offset of each key, a
second one over all segments from the log's start writes what stays into new files beside the old ones. Blocking, for threads that have
time: it never touches a log in use. `swap` puts the new files in place of the old.

Reading and writing go past the page cache in pieces of 256 KiB, within a rate. Transactions: records of aborted ones are dropped, by what
the `.txnindex` files say; a marker stays until no record of its transaction is left, and from then on for delete.retention.ms. The last
batch of every producer stays, if need be without records, for its sequence; so does the last offset of every new segment, so that each
segment ends where the next one begins.
"""
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strdup
from fastlog.native.aborted cimport aborted_free
from fastlog.native.batch cimport ATTR_CONTROL, ATTR_DELETE_HORIZON, BatchInfo
from fastlog.native.compactread cimport input_batch, input_close, input_open
from fastlog.native.compacttxns cimport load_aborted, sort_aborted, txns_begin, txns_control, txns_data, txns_free
from fastlog.native.compactwork cimport CANCELLED, DAMAGED, FULL, Part, Work, work_cancel, work_damaged
from fastlog.native.compactwrite cimport output_add, output_drop, output_end, output_open
from fastlog.native.files cimport PATH_MAX_, SNAPSHOT_MAX, file_close, file_get, path_of
from fastlog.native.index cimport index_free, index_init
from fastlog.native.producers cimport Producer, producers_find, producers_free, producers_init, producers_load
from fastlog.native.sift cimport (
    SIFT_GONE, SIFT_MADE, SIFT_MEMORY, SIFT_SAME, SiftResult, sieve_batch, sieve_free, sieve_note, sieve_open, sieve_placeholder,
)
from fastlog.native.store cimport clock_ns


# ---- the first pass: which keys are there, and where last

cdef int sift_error(Work *w, int64_t at, int how) noexcept nogil:
    return ENOMEM if how == SIFT_MEMORY else work_damaged(w, at, w.sieve.why)


cdef int map_part(Work *w, const Part *part, int64_t from_offset) noexcept nogil:
    cdef BatchInfo info
    cdef const uint8_t *p = NULL
    cdef int64_t at = 0
    cdef int64_t offset = part.base_offset
    cdef int64_t last
    cdef bint skipped
    cdef int how = input_open(w, part)
    while how == 0 and at < part.size:
        how = input_batch(w, at, offset, &p, &info)
        if how:
            break
        last = info.base_offset + info.last_offset_delta
        if last >= from_offset:
            if info.attributes & ATTR_CONTROL:
                how = txns_control(w, p, &info, from_offset, &skipped)
            else:
                how = txns_data(w, &info, from_offset, &skipped)
                if how == 0 and not skipped:
                    how = sieve_note(&w.sieve, p, &info, from_offset)
                    how = FULL if how == 1 else sift_error(w, at, how) if how else 0
            if how:
                break
            w.sieve.latest = last
        offset = last + 1
        at += info.size
    input_close(w)
    return how


cdef int map_parts(Work *w, int64_t from_offset) noexcept nogil:
    """Notes keys from an offset on, until the parts end or the map is full: then w.sieve.latest says how far."""
    cdef int32_t i
    cdef int how = txns_begin(w)
    w.output.fd = -1
    w.sieve.latest = from_offset - 1
    for i in range(w.parts_n):
        if how or w.parts[i].next_offset <= from_offset:
            continue
        how = map_part(w, w.parts + i, from_offset)
        if how == 0:
            w.sieve.latest = w.parts[i].next_offset - 1
    return 0 if how == FULL else how


# ---- the second pass: what stays

cdef bint last_of_producer(const Work *w, const BatchInfo *info) noexcept nogil:
    """Whether a producer's next sequence, or its epoch, is known from this batch."""
    cdef const Producer *e
    if info.producer_id < 0:
        return False
    e = producers_find(&w.producers, info.producer_id)
    if e == NULL:
        return False
    if e.count:
        return info.base_offset + info.last_offset_delta == e.batches[e.newest].last_offset
    return info.attributes & ATTR_CONTROL and info.producer_epoch == e.epoch


cdef int clean_batch(Work *w, const uint8_t *p, const BatchInfo *info, int64_t at, int64_t end) noexcept nogil:
    cdef bint gone = False
    cdef bint discard
    cdef bint keep = last_of_producer(w, info) or info.base_offset + info.last_offset_delta + 1 == end
    cdef SiftResult how
    cdef int err
    if info.attributes & ATTR_CONTROL:
        err = txns_control(w, p, info, 0, &gone)
        discard = gone and info.attributes & ATTR_DELETE_HORIZON and info.base_timestamp <= w.sieve.now_ms
    else:
        err = txns_data(w, info, 0, &gone)
        discard = gone
        gone = False
    if err:
        return err
    how = sieve_batch(&w.sieve, p, info, discard, keep, gone)
    if how == SIFT_GONE:
        return 0
    if how == SIFT_SAME:
        return output_add(w, p, info)
    if how == SIFT_MADE:
        return output_add(w, w.sieve.out, &w.sieve.out_info)
    return sift_error(w, at, how)


cdef int clean_part(Work *w, const Part *part, int64_t end) noexcept nogil:
    cdef BatchInfo info
    cdef const uint8_t *p = NULL
    cdef int64_t at = 0
    cdef int64_t offset = part.base_offset
    cdef int how = input_open(w, part)
    info.leader_epoch = -1
    info.max_timestamp = -1
    while how == 0 and at < part.size:
        how = input_batch(w, at, offset, &p, &info)
        if how == 0:
            how = clean_batch(w, p, &info, at, end)
        offset = info.base_offset + info.last_offset_delta + 1
        at += info.size
    input_close(w)
    if how == 0 and part.next_offset == end and w.output.last_offset != end - 1:
        # a segment that another broker compacted may end before the next one begins
        sieve_placeholder(&w.sieve, end - 1, info.leader_epoch, info.max_timestamp)
        how = output_add(w, w.sieve.out, &w.sieve.out_info)
    return how


cdef int clean_parts(Work *w, int32_t first, int32_t last, int64_t *size) noexcept nogil:
    """Writes parts [first, last] as one new segment."""
    cdef int32_t i
    cdef int how = output_open(w, w.parts[first].base_offset)
    for i in range(first, last + 1):
        if how == 0:
            how = clean_part(w, w.parts + i, w.parts[last].next_offset)
    if how == 0:
        how = output_end(w, size)
    if how:
        output_drop(w, w.parts[first].base_offset)
    return how


# ---- for the control plane

class DamagedLogError(Exception):
    """A log can't be compacted because of what is in it; the text says what and where."""


class CompactionCancelledError(Exception):
    """It was asked to stop; nothing was changed."""


cdef class Compaction:
    """Compaction of one partition: `map` once, then `clean` for groups of segments from the first on. One thread uses it; any may `cancel`.

    path: the partition's directory. segments: (base offset, offset where the next begins, bytes) of whole segments, oldest first, each
    beginning where the one before ends; a snapshot of the producers lies where the last one ends. transactions: base offsets of segments
    with a .txnindex, these and later ones. interval: index.interval.bytes. rate: bytes a second to read and write at most, 0 for no limit.
    All methods but `cancel` let other threads run. Raises OSError, MemoryError, DamagedLogError, CompactionCancelledError.
    """
    cdef Work w
    cdef bytes held

    def __cinit__(self, bytes path, list segments, *, list transactions, int64_t interval, int64_t rate, int64_t now_ms,
                  int64_t retention_ms):
        cdef int32_t i
        self.held = path
        self.w.path = strdup(PyBytes_AS_STRING(path))
        self.w.parts = <Part *> calloc(len(segments) + 1, sizeof(Part))
        if self.w.path == NULL or self.w.parts == NULL:
            raise MemoryError
        for base, following, size in segments:
            i = self.w.parts_n
            self.w.parts[i].base_offset = base
            self.w.parts[i].next_offset = following
            self.w.parts[i].size = size
            self.w.parts_n += 1
        self.w.interval = interval
        self.w.rate = rate
        self.w.rate_from_ns = clock_ns()
        self.w.sieve.now_ms = now_ms
        self.w.sieve.retention_ms = retention_ms
        self.w.input.fd = -1
        self.w.output.fd = -1
        producers_init(&self.w.producers)
        index_init(&self.w.output.index, 0)
        for base in transactions:
            self._check(load_aborted(&self.w, base))
        sort_aborted(&self.w)

    def __dealloc__(self):
        file_close(self.w.input.fd)
        file_close(self.w.output.fd)
        free(self.w.path)
        free(self.w.parts)
        free(self.w.all_aborted)
        free(self.w.input.buf)
        free(self.w.output.buf)
        aborted_free(&self.w.output.aborted)
        index_free(&self.w.output.index)
        txns_free(&self.w.txns)
        producers_free(&self.w.producers)
        sieve_free(&self.w.sieve)

    cdef int _check(self, int how) except -1:
        if how == 0:
            return 0
        if how == CANCELLED:
            raise CompactionCancelledError
        if how == ENOMEM:
            raise MemoryError
        if how == DAMAGED:
            name = f"{self.w.at_offset:020}.log"
            raise DamagedLogError(f"{name}, byte {self.w.at_position}: {self.w.why.decode()}")
        import os
        raise OSError(how, os.strerror(how), f"{self.held.decode('utf-8', 'replace')}/{self.w.at_offset:020}.log")

    def map(self, from_offset: int, memory: int) -> int:
        """Notes the keys from an offset on, in at most `memory` bytes; where it stopped: the end, or earlier when memory was full."""
        cdef char path[PATH_MAX_]
        cdef uint8_t *data = NULL
        cdef size_t n = 0
        cdef int64_t start = from_offset
        cdef int64_t end = self.w.parts[self.w.parts_n - 1].next_offset
        cdef uint64_t keys = <uint64_t> (end - start) if end > start else 0
        cdef int64_t now_ms = self.w.sieve.now_ms
        cdef int64_t retention_ms = self.w.sieve.retention_ms
        cdef int how
        path_of(path, self.w.path, end, ".snapshot")
        how = file_get(path, SNAPSHOT_MAX, &data, &n)
        if how == 0 and producers_load(&self.w.producers, data, n):
            how = EIO
        free(data)
        self.w.at_offset = end
        self._check(how)
        sieve_free(&self.w.sieve)
        how = sieve_open(&self.w.sieve, keys, memory)
        self.w.sieve.now_ms = now_ms
        self.w.sieve.retention_ms = retention_ms
        self._check(how)
        with nogil:
            how = map_parts(&self.w, start)
        self._check(how)
        self._check(txns_begin(&self.w))
        return self.w.sieve.latest + 1

    def clean(self, int first, int last) -> int:
        """Writes segments [first, last], by their place in the list, as one, in files with the ending .cleaned. Returns its bytes."""
        cdef int64_t size = 0
        cdef int how
        with nogil:
            how = clean_parts(&self.w, first, last, &size)
        self._check(how)
        return size

    def cancel(self) -> None:
        """Has what is under way end soon, with CompactionCancelledError."""
        work_cancel(&self.w)

    @property
    def counts(self) -> dict[str, int]:
        """What was done so far: keys, records_read, records_kept, keyless, read_bytes, written_bytes, memory."""
        return {
            "keys": self.w.sieve.map.used, "records_read": self.w.sieve.records_read, "records_kept": self.w.sieve.records_kept,
            "keyless": self.w.sieve.keyless, "read_bytes": self.w.read_bytes, "written_bytes": self.w.written_bytes,
            "memory": self.w.sieve.map.slots_n * sizeof(self.w.sieve.map.slots[0]),
        }
