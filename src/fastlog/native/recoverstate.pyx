"""Producer state of a log that is being opened. See recoverstate.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from fastlog.native.directory cimport Listing
from fastlog.native.files cimport PATH_MAX_, SNAPSHOT_MAX, file_close, file_get, file_unlink, path_of
from fastlog.native.index cimport index_position
from fastlog.native.producers cimport Producer, Producers, producers_free, producers_init, producers_load
from fastlog.native.recoverfiles cimport recover_failed, recover_open, recover_scan
from fastlog.native.recovery cimport Recovery
from fastlog.native.scan cimport Scan, scan_run

cdef enum:
    STORAGE = 56                    # KAFKA_STORAGE_ERROR


cdef int load_producers(Recovery *r, Listing *l, int64_t end, int64_t *from_) noexcept nogil:
    """The newest valid snapshot at or before offset `end`: *from_ is where it stands, or the log's start without one. One from before the
    log's start says nothing: batches that came after it are gone, and with them what was last heard of their producers.
    """
    cdef char path[PATH_MAX_]
    cdef uint8_t *data
    cdef size_t n = 0
    cdef int32_t i = l.snapshots.n - 1
    from_[0] = l.logs.at[0]
    while i >= 0 and l.snapshots.at[i] >= l.logs.at[0]:
        if l.snapshots.at[i] <= end:
            path_of(path, r.path, l.snapshots.at[i], ".snapshot")
            data = NULL
            if file_get(path, SNAPSHOT_MAX, &data, &n) == 0 and producers_load(&r.producers, data, n) == 0:
                free(data)
                from_[0] = l.snapshots.at[i]
                r.snapshot_offset = from_[0]
                return 0
            free(data)
            file_unlink(path)
        i -= 1
    producers_free(&r.producers)
    return 0


cdef int replay_producers(Recovery *r, Listing *l, int64_t from_, int64_t end) noexcept nogil:
    """Brings producer state from offset `from_` to `end` by the headers of the segments between, which are whole."""
    cdef char path[PATH_MAX_]
    cdef Scan s
    cdef bint direct
    cdef int64_t size
    cdef int32_t i
    cdef int fd
    cdef int err
    for i in range(l.logs.n):
        if l.logs.at[i] >= end or (i + 1 < l.logs.n and l.logs.at[i + 1] <= from_):
            continue
        path_of(path, r.path, l.logs.at[i], ".log")
        if recover_open(r, path, False, &fd, &direct, &size) < 0:
            return -1
        recover_scan(&s, r, fd, size, NULL, l.logs.at[i])
        s.gaps = True
        s.producers = &r.producers
        s.producers_from = from_
        err = scan_run(&s)
        file_close(fd)
        if err:
            return recover_failed(r, "cannot read a segment", err)
    return 0


cdef int recover_producers(Recovery *r, Listing *l, int64_t offset) noexcept nogil:
    """Producer state at a segment's start, from the newest snapshot and the headers since."""
    cdef int64_t from_
    load_producers(r, l, offset, &from_)
    return replay_producers(r, l, from_, offset) if from_ < offset else 0


cdef bint snapshot_valid(const Recovery *r, int64_t offset) noexcept nogil:
    cdef char path[PATH_MAX_]
    cdef Producers found
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef bint valid
    producers_init(&found)
    path_of(path, r.path, offset, ".snapshot")
    valid = file_get(path, SNAPSHOT_MAX, &data, &n) == 0 and producers_load(&found, data, n) == 0
    free(data)
    producers_free(&found)
    return valid


cdef int recover_check_durable(Recovery *r, const Listing *l, int64_t offset, const char *why) noexcept nogil:
    """Fails where the log would end before a producer snapshot. One is written when all before it is durable: no crash takes that away, so
    a segment was removed, or is damaged, and what comes after it must not be cut.
    """
    cdef int32_t i = l.snapshots.n - 1
    while i >= 0 and l.snapshots.at[i] > offset and not snapshot_valid(r, l.snapshots.at[i]):
        i -= 1
    if i < 0 or l.snapshots.at[i] <= offset:
        return 0
    if why == NULL:
        why = "no segment goes on there"
    r.error = STORAGE
    snprintf(r.why, sizeof(r.why), "the log breaks off at offset %lld (%s), but was stored durably up to %lld: a segment is missing or "
             "damaged. Nothing was changed; restore the files, or see `fastlog log repair`", <long long> offset, why,
             <long long> l.snapshots.at[i])
    return -1


cdef int place_txn(Recovery *r, Producer *e) noexcept nogil:
    """Finds where the transaction that a producer has under way begins, or what is left of it."""
    cdef char path[PATH_MAX_]
    cdef int32_t last = r.segments_n - 1
    cdef int32_t i = 0
    cdef int64_t before = 0
    cdef int64_t size
    cdef bint direct
    cdef Scan s
    cdef int fd
    cdef int err
    while i < last and r.segments[i + 1].base_offset <= e.txn_first_offset:
        before += r.segments[i].size
        i += 1
    e.txn_position = before
    if r.segments[i].base_offset >= e.txn_first_offset:
        return 0
    path_of(path, r.path, r.segments[i].base_offset, ".log")
    if recover_open(r, path, False, &fd, &direct, &size) < 0:
        return -1
    recover_scan(&s, r, fd, r.segments[i].size, NULL, r.segments[i].base_offset)
    s.gaps = True
    s.until = e.txn_first_offset
    if i == last:
        s.at = index_position(r.index, e.txn_first_offset - 1)     # an entry names the last offset of the batch at its position
    err = scan_run(&s)
    file_close(fd)
    if err:
        return recover_failed(r, "cannot read a segment", err)
    e.txn_position = before + s.at
    return 0


cdef int recover_place_txns(Recovery *r) noexcept nogil:
    cdef Producer *e = r.producers.txn_first
    while e != NULL:
        if place_txn(r, e) < 0:
            return -1
        e = e.txn_next
    return 0
