"""Walking the batches of a segment file. See scan.pxd."""
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free
from fastlog.native.aborted cimport aborted_add, aborted_room
from fastlog.native.arena cimport BLOCK, whole_blocks
from fastlog.native.batch cimport ATTR_CONTROL, BATCH_HEADER, BatchInfo, PEEK_OK, batch_crc_ok, batch_peek
from fastlog.native.batchrecords cimport Marker, batch_marker
from fastlog.native.bytes cimport get64
from fastlog.native.files cimport file_memory, file_read
from fastlog.native.index cimport index_add
from fastlog.native.producers cimport producers_add, producers_end, producers_stable

cdef extern from *:
    """
    #include <errno.h>
    #include <unistd.h>
    """
    int64_t lseek(int fd, int64_t at, int whence) nogil
    int SEEK_DATA

cdef enum:
    WINDOW = 1048576                # read at once when every byte is looked at
    HEADERS = 16384                 # or only headers
    MARKER_MAX = 256                # bytes of a control batch within which its one record is read


cdef struct Window:                 # what of the file is in memory
    uint8_t *buf
    size_t size
    int64_t from_
    int64_t n


cdef inline int64_t least(int64_t a, int64_t b) noexcept nogil:
    return a if a < b else b


cdef int fill(Scan *s, Window *w, int64_t at, size_t need) noexcept nogil:
    """Has [at, at + need) in memory, as far as the file goes. 0 or an errno. Nothing past the scan's end is asked for: a direct read past
    the end of a file fills memory with zeroes, as far as was asked, before it says that there was nothing.
    """
    cdef int64_t from_ = at & ~(<int64_t> BLOCK - 1)
    cdef size_t size = <size_t> (at - from_) + need
    cdef uint8_t *buf
    if at >= w.from_ and at + <int64_t> need <= w.from_ + w.n:
        return 0
    size = <size_t> whole_blocks(<int64_t> size)
    if size > w.size:
        buf = <uint8_t *> file_memory(size)
        if buf == NULL:
            return ENOMEM
        free(w.buf)
        w.buf = buf
        w.size = size
    w.from_ = from_
    w.n = file_read(s.fd, w.buf, <size_t> least(<int64_t> w.size, whole_blocks(s.to - from_)), from_)
    if w.n < 0:
        return <int> -w.n
    return 0


cdef int note_marker(Scan *s, Window *w, const BatchInfo *info) noexcept nogil:
    """Has producer state, and the index, know of the end of a transaction at s.at. 0 or an errno."""
    cdef size_t n = <size_t> info.size if info.size < MARKER_MAX else MARKER_MAX
    cdef int64_t first
    cdef int64_t position
    cdef int64_t stable
    cdef Marker marker
    cdef int err = fill(s, w, s.at, n)
    if err:
        return err
    if w.from_ + w.n - s.at < <int64_t> n or batch_marker(w.buf + (s.at - w.from_), n, &marker) < 0:
        return 0
    stable = producers_stable(s.producers, info.producer_id, info.base_offset)
    if producers_end(s.producers, info, &marker, &first, &position) < 0:
        return ENOMEM
    if first < 0 or marker.commit or s.index == NULL:
        return 0
    if aborted_room(&s.index.aborted, 1) < 0:
        return ENOMEM
    aborted_add(&s.index.aborted, info.producer_id, first, info.base_offset, stable)
    return 0


cdef int scan_run(Scan *s) noexcept nogil:
    cdef Window w
    cdef BatchInfo info
    cdef const uint8_t *p
    cdef int err
    s.why = NULL
    s.gap = False
    s.first_timestamp = -1
    s.batches = 0
    if s.at >= s.to or s.offset >= s.until:
        return 0
    w.size = <size_t> least(WINDOW if s.check else HEADERS, whole_blocks(s.to - (s.at & ~(<int64_t> BLOCK - 1))))
    w.from_ = 0
    w.n = 0
    w.buf = <uint8_t *> file_memory(w.size)
    if w.buf == NULL:
        return ENOMEM
    err = 0
    while s.at < s.to and s.offset < s.until:
        if s.to - s.at < BATCH_HEADER:
            s.why = "less than a batch header"
            break
        err = fill(s, &w, s.at, BATCH_HEADER)
        if err:
            break
        p = w.buf + (s.at - w.from_)
        if w.from_ + w.n - s.at < BATCH_HEADER:
            s.why = "less than a batch header"
            break
        if batch_peek(p, BATCH_HEADER, &info) != PEEK_OK:
            s.why = "no batch header"
            break
        if info.size > s.to - s.at:
            s.why = "a batch that goes past the end"
            break
        if info.base_offset < s.offset or (info.base_offset != s.offset and not s.gaps):
            s.why = "a batch whose offset does not continue the log"
            s.gap = info.base_offset > s.offset
            break
        if s.check:
            err = fill(s, &w, s.at, <size_t> info.size)
            if err:
                break
            if w.from_ + w.n - s.at < info.size:
                s.why = "a batch that goes past the end"
                break
            p = w.buf + (s.at - w.from_)
            if not batch_crc_ok(p, &info):
                s.why = "a batch with a wrong CRC"
                break
        if s.at == 0:
            s.first_timestamp = info.max_timestamp
        s.offset = info.base_offset + info.last_offset_delta
        if s.index != NULL:
            index_add(s.index, s.offset, s.at, info.max_timestamp, s.interval)
        if s.producers != NULL and info.base_offset >= s.producers_from and info.producer_id >= 0:
            if info.attributes & ATTR_CONTROL:
                err = note_marker(s, &w, &info)
            elif producers_add(s.producers, &info, info.base_offset, 0) < 0:
                err = ENOMEM
            if err:
                break
        s.offset += 1
        s.leader_epoch = info.leader_epoch
        s.at += info.size
        s.batches += 1
    free(w.buf)
    return err


cdef int scan_zeroes(int fd, int64_t from_, int64_t to, int64_t *last) noexcept nogil:
    cdef uint8_t *buf = <uint8_t *> file_memory(WINDOW)
    cdef int64_t at = from_ & ~(<int64_t> BLOCK - 1)
    cdef int64_t n
    cdef int64_t i
    cdef int64_t data
    if buf == NULL:
        return ENOMEM
    last[0] = from_
    while at < to:
        data = lseek(fd, at, SEEK_DATA)     # blocks never written need not be read
        if data < 0:
            break
        if data > at:
            at = data & ~(<int64_t> BLOCK - 1)
            if at >= to:
                break
        n = file_read(fd, buf, <size_t> least(WINDOW, whole_blocks(to - at)), at)
        if n <= 0:
            free(buf)
            return <int> -n
        if n > to - at:
            n = to - at
        i = n
        while i >= 8 and get64(buf + i - 8) == 0:
            i -= 8
        while i > 0 and buf[i - 1] == 0:
            i -= 1
        if i > 0 and at + i > last[0]:
            last[0] = at + i
        at += WINDOW
    free(buf)
    return 0
