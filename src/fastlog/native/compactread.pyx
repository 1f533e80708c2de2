"""See compactread.pxd."""
from libc.errno cimport EIO, ENOMEM
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove
from fastlog.native.arena cimport BLOCK, whole_blocks
from fastlog.native.batch cimport BATCH_HEADER, PEEK_OK, batch_crc_ok, batch_peek
from fastlog.native.compactwork cimport CANCELLED, PIECE, Input, piece_room, work_damaged, work_spend
from fastlog.native.files cimport PATH_MAX_, file_close, file_open, file_read, path_of


cdef int input_open(Work *w, const Part *part) noexcept nogil:
    cdef Input *f = &w.input
    cdef char path[PATH_MAX_]
    cdef bint direct
    cdef int err = path_of(path, w.path, part.base_offset, ".log")
    if err:
        return err
    f.fd = file_open(path, False, False, &direct)
    if f.fd < 0:
        return -f.fd
    f.size = part.size
    f.from_ = 0
    f.n = 0
    w.at_offset = part.base_offset
    return 0


cdef void input_close(Work *w) noexcept nogil:
    file_close(w.input.fd)
    w.input.fd = -1


cdef int input_need(Work *w, int64_t at, int64_t n) noexcept nogil:
    """Has file positions [at, at + n) in memory."""
    cdef Input *f = &w.input
    cdef int64_t from_ = at & ~(<int64_t> BLOCK - 1)
    cdef int64_t kept = 0
    cdef int64_t cap
    cdef int64_t got
    cdef uint8_t *buf
    if at >= f.from_ and at + n <= f.from_ + f.n:
        return 0
    if from_ >= f.from_ and from_ < f.from_ + f.n:
        kept = f.from_ + f.n - from_
        if kept & (BLOCK - 1):
            return EIO              # the file ended before its size
    cap = whole_blocks(at - from_ + n + PIECE)
    if cap < 2 * PIECE:
        cap = 2 * PIECE
    if cap > f.cap:
        buf = piece_room(cap)
        if buf == NULL:
            return ENOMEM
        if kept:
            memcpy(buf, f.buf + (from_ - f.from_), <size_t> kept)
        free(f.buf)
        f.buf = buf
        f.cap = cap
    elif kept:
        memmove(f.buf, f.buf + (from_ - f.from_), <size_t> kept)
    f.from_ = from_
    f.n = kept
    while f.n < at - from_ + n:
        got = file_read(f.fd, f.buf + f.n, PIECE, from_ + f.n)
        if got <= 0:
            return <int> -got if got < 0 else EIO
        f.n += got
        w.read_bytes += got
        if work_spend(w, got):
            return CANCELLED
        if got < PIECE and f.n < at - from_ + n:
            return EIO
    return 0


cdef int input_batch(Work *w, int64_t at, int64_t offset, const uint8_t **p, BatchInfo *info) noexcept nogil:
    cdef Input *f = &w.input
    cdef int err
    if f.size - at < BATCH_HEADER:
        return work_damaged(w, at, "less than a batch header")
    err = input_need(w, at, BATCH_HEADER)
    if err:
        return err
    if batch_peek(f.buf + (at - f.from_), BATCH_HEADER, info) != PEEK_OK or info.size > f.size - at:
        return work_damaged(w, at, "no batch")
    if info.base_offset < offset:
        return work_damaged(w, at, "a batch whose offsets go back")
    err = input_need(w, at, info.size)
    if err:
        return err
    p[0] = f.buf + (at - f.from_)
    return 0 if batch_crc_ok(p[0], info) else work_damaged(w, at, "a batch with a wrong CRC")
