"""Files of a log that is being opened. See recoverfiles.pxd."""
from libc.errno cimport EIO, ENOENT, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strerror
from fastlog.native.aborted cimport Aborted, aborted_decode, aborted_forget, aborted_free, aborted_least
from fastlog.native.arena cimport BLOCK
from fastlog.native.batch cimport BATCH_HEADER, BatchInfo, PEEK_OK, batch_peek
from fastlog.native.files cimport (
    PATH_MAX_, SNAPSHOT_MAX, file_close, file_get, file_memory, file_open, file_put, file_put_at, file_read, file_size, file_size_at,
    path_of,
)
from fastlog.native.index cimport (
    OFFSET_ENTRY, TIME_ENTRY, Index, index_decode, index_encode_offsets, index_encode_times, index_forget, index_free,
)
from fastlog.native.producers cimport producers_snapshot, producers_snapshot_bytes
from fastlog.native.recovery cimport Recovery
from fastlog.native.scan cimport Scan, scan_run
from fastlog.native.segment cimport segment_put_aborted
from fastlog.native.store cimport INDEX_ENTRIES_MAX

cdef enum:
    STORAGE = 56                    # KAFKA_STORAGE_ERROR

cdef int64_t OFFSETS_END = 0x7FFFFFFFFFFFFFFF


cdef int recover_failed(Recovery *r, const char *what, int err) noexcept nogil:
    r.error = STORAGE
    snprintf(r.why, sizeof(r.why), "%s: %s", what, strerror(err))
    return -1


cdef int recover_open(Recovery *r, const char *path, bint create, int *fd, bint *direct, int64_t *size) noexcept nogil:
    fd[0] = file_open(path, True, create, direct)
    if fd[0] < 0:
        return recover_failed(r, "cannot open a segment", -fd[0])
    size[0] = file_size(fd[0])
    if size[0] < 0:
        file_close(fd[0])
        return recover_failed(r, "cannot open a segment", <int> -size[0])
    return 0


cdef void recover_scan(Scan *s, Recovery *r, int fd, int64_t size, Index *ix, int64_t offset) noexcept nogil:
    memset(s, 0, sizeof(Scan))
    s.fd = fd
    s.to = size
    s.interval = r.settings.index_interval_bytes
    s.index = ix
    s.offset = offset
    s.until = OFFSETS_END
    s.leader_epoch = r.leader_epoch


cdef int recover_walk_tail(Recovery *r, int fd, int64_t size, Index *ix, Scan *s) noexcept nogil:
    """Walks headers from the last index entry of a whole segment to its end. 0 when it ends exactly there, 1 when not, -1 on failure."""
    recover_scan(s, r, fd, size, ix, ix.base_offset)
    s.gaps = True
    s.at = ix.last_position
    return recover_walk_on(r, size, s)


cdef int recover_walk_on(Recovery *r, int64_t size, Scan *s) noexcept nogil:
    cdef int err
    err = scan_run(s)
    if err:
        return recover_failed(r, "cannot read a segment", err)
    return 0 if s.at == size else 1


cdef int recover_first_timestamp(Recovery *r, int fd) noexcept nogil:
    cdef uint8_t *buf = <uint8_t *> file_memory(BLOCK)
    cdef BatchInfo info
    cdef int64_t n
    if buf == NULL:
        return recover_failed(r, "cannot read a segment", ENOMEM)
    n = file_read(fd, buf, BLOCK, 0)
    if n >= BATCH_HEADER and batch_peek(buf, BATCH_HEADER, &info) == PEEK_OK:
        r.first_timestamp = info.max_timestamp
    free(buf)
    return recover_failed(r, "cannot read a segment", <int> -n) if n < 0 else 0


cdef int recover_partial(Recovery *r) noexcept nogil:
    """The bytes of the last block, if it is partly filled."""
    cdef int64_t size = r.segments[r.segments_n - 1].size
    cdef int64_t at = size & ~(<int64_t> BLOCK - 1)
    cdef uint8_t *buf
    cdef int64_t n
    if at == size:
        return 0
    buf = <uint8_t *> file_memory(BLOCK)
    r.partial = <uint8_t *> malloc(<size_t> (size - at))
    if buf == NULL or r.partial == NULL:
        free(buf)
        return recover_failed(r, "cannot read a segment", ENOMEM)
    n = file_read(r.fd, buf, BLOCK, at)
    if n >= size - at:
        memcpy(r.partial, buf, <size_t> (size - at))
    free(buf)
    return recover_failed(r, "cannot read a segment", <int> -n if n < 0 else EIO) if n < size - at else 0


cdef int load_aborted(Recovery *r, Aborted *out, int64_t base) noexcept nogil:
    """The aborted transactions of a segment: none without a file of them. An errno, or -1: not a valid one."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef int err
    path_of(path, r.path, base, ".txnindex")
    err = file_get(path, SNAPSHOT_MAX, &data, &n)
    if err == 0:
        err = aborted_decode(out, data, n, base)
    free(data)
    return 0 if err == ENOENT else err


cdef int recover_load_index(Recovery *r, Index *ix, int64_t base, int64_t size) noexcept nogil:
    """The index files of a segment; -1 when missing or wrong (the index is then empty)."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *offsets = NULL
    cdef uint8_t *times = NULL
    cdef size_t offsets_n = 0
    cdef size_t times_n = 0
    cdef int bad
    path_of(path, r.path, base, ".index")
    bad = file_get(path, SNAPSHOT_MAX, &offsets, &offsets_n)
    path_of(path, r.path, base, ".timeindex")
    if not bad:
        bad = file_get(path, SNAPSHOT_MAX, &times, &times_n)
    if not bad:
        bad = index_decode(ix, offsets, offsets_n, times, times_n, size, base + (<int64_t> 1 << 31))
    if not bad:
        bad = load_aborted(r, &ix.aborted, base)
    free(offsets)
    free(times)
    if bad:
        index_free(ix)
        return -1
    return 0


cdef int recover_write_index(Recovery *r, Index *ix) noexcept nogil:
    """All entries of an index, in place of what its files hold."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = <uint8_t *> malloc(<size_t> (ix.offsets_n + ix.times_n) * TIME_ENTRY + 1)
    cdef size_t n
    cdef int err
    if data == NULL:
        return ENOMEM
    ix.offsets_kept = 0
    ix.times_kept = 0
    ix.aborted.kept = 0
    err = segment_put_aborted(r.path, ix)
    if err:
        free(data)
        return err
    n = <size_t> index_encode_times(ix, data) * TIME_ENTRY
    path_of(path, r.path, ix.base_offset, ".timeindex")
    err = file_put_at(path, data, n, 0)
    if not err:
        n = <size_t> index_encode_offsets(ix, data) * OFFSET_ENTRY
        path_of(path, r.path, ix.base_offset, ".index")
        err = file_put_at(path, data, n, 0)
    free(data)
    return err


cdef int recover_keep_index(Recovery *r) noexcept nogil:
    """Leaves a long index of the active segment to its files."""
    cdef Index *ix = r.index
    cdef int err = 0
    if ix.offsets_n <= INDEX_ENTRIES_MAX and ix.times_n <= INDEX_ENTRIES_MAX and ix.aborted.n <= INDEX_ENTRIES_MAX:
        return 0
    if ix.offsets_kept != ix.offsets_n or ix.times_kept != ix.times_n or ix.aborted.kept != ix.aborted.n:
        err = recover_write_index(r, ix)
    if not err:
        index_forget(ix, ix.offsets_n, ix.times_n)
        aborted_forget(&ix.aborted, ix.aborted.n)
    return err


cdef void recover_note_aborted(Recovery *r) noexcept nogil:
    """What the segments before the last one have of aborted transactions."""
    cdef Aborted aborted
    cdef char path[PATH_MAX_]
    cdef int32_t i
    memset(&aborted, 0, sizeof(Aborted))
    for i in range(r.segments_n - 1):
        path_of(path, r.path, r.segments[i].base_offset, ".index")
        if file_size_at(path) < 0 or load_aborted(r, &aborted, r.segments[i].base_offset):
            r.segments[i].aborted_least = 0     # not known: all indexes of it are made anew when someone asks for them
            continue
        r.segments[i].aborted_least = aborted_least(&aborted)
        aborted_free(&aborted)


cdef int recover_write_snapshot(Recovery *r, int64_t offset) noexcept nogil:
    cdef char name[64]
    cdef size_t n = producers_snapshot_bytes(&r.producers)
    cdef uint8_t *data = <uint8_t *> malloc(n)
    cdef int err
    if data == NULL:
        return ENOMEM
    producers_snapshot(&r.producers, data)
    snprintf(name, 64, "%020lld.snapshot", <long long> offset)
    err = file_put(r.path, name, data, n)
    free(data)
    return err
