"""See vouch.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.string cimport memcpy
from fastlog.native.arena cimport CHUNK, CHUNK_COLD, Chunk, arena_drop, arena_find
from fastlog.native.batch cimport BATCH_CRC_FROM, BATCH_HEADER, BATCH_PREFIX
from fastlog.native.bytes cimport get32, get64
from fastlog.native.crc32c cimport crc32c
from fastlog.native.log cimport Read
from fastlog.native.store cimport CORRUPT_MESSAGE, LogState, Segment

cdef enum:
    HEAD = 27                       # bytes of a batch header up to the last offset delta
    AT_LENGTH = 8
    AT_MAGIC = 16
    AT_CRC = 17
    AT_LAST_OFFSET_DELTA = 23


cdef inline Chunk *chunk_at(LogState *log, Segment *seg, int64_t at) noexcept nogil:
    return arena_find(log.store.arena, &seg.chunks, at & ~(<int64_t> CHUNK - 1))


cdef inline int64_t piece_of(int64_t at, int64_t left) noexcept nogil:
    """How many of `left` bytes at a file position lie in its chunk."""
    cdef int64_t inside = CHUNK - (at & (CHUNK - 1))
    return inside if inside < left else left


cdef void head_at(LogState *log, Segment *seg, int64_t at, uint8_t *out) noexcept nogil:
    cdef int64_t n = piece_of(at, HEAD)
    memcpy(out, chunk_at(log, seg, at).data + (at & (CHUNK - 1)), <size_t> n)
    if n < HEAD:
        memcpy(out + n, chunk_at(log, seg, at + n).data, <size_t> (HEAD - n))


cdef bint doubted(LogState *log, Segment *seg, int64_t at, int64_t size) noexcept nogil:
    """Whether some of the batch came from the disk and was not checked since."""
    cdef Chunk *c
    cdef int64_t from_
    cdef int64_t n
    while size:
        n = piece_of(at, size)
        c = chunk_at(log, seg, at)
        from_ = at - c.window
        if from_ < c.doubt_to and from_ + n > c.doubt_from:
            return True
        at += n
        size -= n
    return False


cdef uint32_t crc_of(LogState *log, Segment *seg, int64_t at, int64_t size) noexcept nogil:
    cdef uint32_t crc = 0
    cdef int64_t n
    while size:
        n = piece_of(at, size)
        crc = crc32c(crc, chunk_at(log, seg, at).data + (at & (CHUNK - 1)), <size_t> n)
        at += n
        size -= n
    return crc


cdef void trust(LogState *log, Segment *seg, int64_t at, int64_t size) noexcept nogil:
    """What was checked is no longer in doubt, where one range can say so: a batch from the middle of a doubted range is checked again when
    the next reader comes."""
    cdef Chunk *c
    cdef int64_t from_
    cdef int64_t n
    while size:
        n = piece_of(at, size)
        c = chunk_at(log, seg, at)
        from_ = at - c.window
        if from_ <= c.doubt_from and from_ + n > c.doubt_from:
            c.doubt_from = <uint32_t> (from_ + n)
        elif from_ + n >= c.doubt_to and from_ < c.doubt_to:
            c.doubt_to = <uint32_t> from_
        if c.doubt_from >= c.doubt_to:
            c.doubt_from = 0
            c.doubt_to = 0
        at += n
        size -= n


cdef int64_t offsets_end(const LogState *log, const Segment *seg) noexcept nogil:
    """Below which all offsets of a segment's batches are."""
    cdef int32_t i
    for i in range(log.segments_n - 1, 0, -1):
        if log.segments[i - 1] == seg:
            return log.segments[i].base_offset
    return log.part.at.log_end


cdef int64_t vouch(LogState *log, Segment *seg, int64_t at, int64_t length, const char **why) noexcept nogil:
    cdef uint8_t head[HEAD]
    cdef int64_t position = at
    cdef int64_t end = at + length
    cdef int64_t offset = seg.base_offset
    cdef int64_t offset_limit = offsets_end(log, seg)
    cdef int64_t checked = 0
    cdef int64_t size
    cdef int64_t base
    cdef int64_t last
    why[0] = NULL
    while end - position >= BATCH_HEADER:
        head_at(log, seg, position, head)
        size = <int64_t> <int32_t> get32(head + AT_LENGTH) + BATCH_PREFIX
        base = <int64_t> get64(head)
        last = base + <int32_t> get32(head + AT_LAST_OFFSET_DELTA)
        if size < BATCH_HEADER or head[AT_MAGIC] != 2:
            why[0] = "no record batch"
            break
        if size > end - position:
            break
        if doubted(log, seg, position, size):
            if position > at and checked + size > VOUCH_MAX:
                break
            if crc_of(log, seg, position + BATCH_CRC_FROM, size - BATCH_CRC_FROM) != get32(head + AT_CRC):
                why[0] = "a record batch with a wrong CRC"
                break
            checked += size
        if base < offset or last < base or last >= offset_limit:
            why[0] = "a record batch with offsets that are not those of its place"
            break
        if end - position - size >= HEAD:
            head_at(log, seg, position + size, head)
            if <int64_t> get64(head) <= last:
                why[0] = "a record batch that reaches into the next one's offsets"
                break
        trust(log, seg, position, size)
        offset = last + 1
        position += size
    log.store.stats.read_bytes_verified += <uint64_t> checked
    return position - at


cdef bint vouch_for_one(LogState *log, const uint8_t *p) noexcept nogil:
    cdef int64_t size = <int64_t> <int32_t> get32(p + AT_LENGTH) + BATCH_PREFIX
    log.store.stats.read_bytes_verified += <uint64_t> size
    return p[AT_MAGIC] == 2 and crc32c(0, p + BATCH_CRC_FROM, <size_t> (size - BATCH_CRC_FROM)) == get32(p + AT_CRC)


cdef bint vouch_forget(LogState *log, Segment *seg, int64_t at, int64_t length) noexcept nogil:
    cdef Chunk *c
    cdef int64_t n
    cdef bint any = False
    while length:
        n = piece_of(at, length)
        c = chunk_at(log, seg, at)
        if c != NULL and c.kind == CHUNK_COLD and not c.busy:
            arena_drop(log.store.arena, c)
            any = True
        at += n
        length -= n
    return any


cdef void vouch_deny(LogState *log, Segment *seg, int64_t at, Read *r, const char *why) noexcept nogil:
    r.error = CORRUPT_MESSAGE
    log.store.stats.reads_damaged += 1
    if log.damage_said == seg.start + at:
        return
    log.damage_said = seg.start + at
    fprintf(stderr, "fastlog: %s/%020lld.log: byte %lld: %s, where offset %lld was looked for; who reads there gets CORRUPT_MESSAGE\n",
            log.path, <long long> seg.base_offset, <long long> at, why, <long long> r.offset)
