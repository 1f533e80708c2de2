"""See compactwrite.pxd."""
from libc.errno cimport EFBIG, ENOMEM
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from fastlog.native.aborted cimport ABORTED_ENTRY, aborted_encode
from fastlog.native.arena cimport whole_blocks
from fastlog.native.compactwork cimport PIECE, Output, piece_room, work_spend
from fastlog.native.files cimport (
    PATH_MAX_, file_close, file_open, file_put_at, file_trim, file_unlink, file_write, files_drop_indexes, path_of,
)
from fastlog.native.index cimport (
    OFFSET_ENTRY, TIME_ENTRY, index_add, index_encode_offsets, index_encode_times, index_free, index_init, index_seal,
)

cdef enum:
    SEGMENT_MAX = 2147483647


cdef int output_open(Work *w, int64_t base_offset) noexcept nogil:
    cdef Output *out = &w.output
    cdef char path[PATH_MAX_]
    cdef bint direct
    cdef int err = path_of(path, w.path, base_offset, ".log.cleaned")
    if not err:
        err = file_unlink(path)
    if err:
        return err
    out.fd = file_open(path, True, True, &direct)
    if out.fd < 0:
        err = -out.fd
        out.fd = -1
        return err
    out.used = 0
    out.at = 0
    out.last_offset = -1
    out.aborted.n = 0
    index_free(&out.index)
    index_init(&out.index, base_offset)
    if out.buf == NULL:
        out.buf = piece_room(PIECE)
    return 0 if out.buf != NULL else ENOMEM


cdef int output_flush(Work *w) noexcept nogil:
    """Writes what gathered, up to whole blocks."""
    cdef Output *out = &w.output
    cdef int64_t n = whole_blocks(out.used)
    cdef int err
    if n == 0:
        return 0
    memset(out.buf + out.used, 0, <size_t> (n - out.used))
    err = file_write(out.fd, out.buf, <size_t> n, out.at)
    w.written_bytes += n
    return err if err else work_spend(w, n)


cdef int output_add(Work *w, const uint8_t *p, const BatchInfo *info) noexcept nogil:
    cdef Output *out = &w.output
    cdef int64_t left = info.size
    cdef int64_t n
    cdef int err
    if out.at + out.used + left > SEGMENT_MAX:
        return EFBIG
    out.last_offset = info.base_offset + info.last_offset_delta
    index_add(&out.index, out.last_offset, out.at + out.used, info.max_timestamp, w.interval)
    while left:
        n = left if left < PIECE - out.used else PIECE - out.used
        memcpy(out.buf + out.used, p, <size_t> n)
        out.used += n
        p += n
        left -= n
        if out.used == PIECE:
            err = output_flush(w)
            if err:
                return err
            out.at += PIECE
            out.used = 0
    return 0


cdef int output_end(Work *w, int64_t *size) noexcept nogil:
    cdef Output *out = &w.output
    cdef char path[PATH_MAX_]
    cdef uint8_t *data
    cdef size_t n
    cdef int err = output_flush(w)
    size[0] = out.at + out.used
    if not err:
        err = file_trim(out.fd, size[0])
    file_close(out.fd)
    out.fd = -1
    if err:
        return err
    index_seal(&out.index)
    n = <size_t> (out.index.offsets_n + out.index.times_n) * TIME_ENTRY
    if n < <size_t> out.aborted.n * ABORTED_ENTRY:
        n = <size_t> out.aborted.n * ABORTED_ENTRY
    data = <uint8_t *> malloc(n + 1)
    if data == NULL:
        return ENOMEM
    n = <size_t> index_encode_offsets(&out.index, data) * OFFSET_ENTRY
    path_of(path, w.path, out.index.base_offset, ".index.cleaned")
    err = file_put_at(path, data, n, 0)
    if not err:
        n = <size_t> index_encode_times(&out.index, data) * TIME_ENTRY
        path_of(path, w.path, out.index.base_offset, ".timeindex.cleaned")
        err = file_put_at(path, data, n, 0)
    if not err and out.aborted.n:
        path_of(path, w.path, out.index.base_offset, ".txnindex.cleaned")
        err = file_put_at(path, data, aborted_encode(&out.aborted, data), 0)
    free(data)
    return err


cdef void output_drop(Work *w, int64_t base_offset) noexcept nogil:
    cdef char path[PATH_MAX_]
    file_close(w.output.fd)
    w.output.fd = -1
    path_of(path, w.path, base_offset, ".log.cleaned")
    file_unlink(path)
    files_drop_indexes(w.path, base_offset, ".cleaned")
