from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastlog.native.bytes cimport get32, put16, put32, put64

cdef extern from "loadtemplate_crc32c.h":
    ctypedef struct Zeroes "bench_zeroes":
        pass
    uint32_t crc_raw "bench_crc_raw"(uint32_t state, const uint8_t *p, size_t n) noexcept nogil
    uint32_t zeroes_run "bench_zeroes_run"(const Zeroes *z, uint32_t state) noexcept nogil
    void zeroes_make "bench_zeroes_make"(Zeroes *z, size_t n) noexcept nogil
    void crc_init "bench_crc_init"() noexcept nogil

crc_init()


cdef inline uint64_t next_random(uint64_t *state) noexcept nogil:
    """xorshift64* (S. Vigna): incompressible, and the same for the same seed."""
    state[0] ^= state[0] >> 12
    state[0] ^= state[0] << 25
    state[0] ^= state[0] >> 27
    return state[0] * <uint64_t> 0x2545F4914F6CDD1D


cdef bytes varint(long long value):
    """Zigzag base 128."""
    cdef unsigned long long v = (<unsigned long long> value << 1) ^ <unsigned long long> (value >> 63)
    made = bytearray()
    while v >= 0x80:
        made.append(v & 0x7F | 0x80)
        v >>= 7
    made.append(v)
    return bytes(made)


cdef bytes record_prefix(int offset_delta, int record_bytes):
    """Length, attributes, timestamp delta 0, offset delta, null key, value length: what stands before a record's value."""
    body = b"\0" + varint(0) + varint(offset_delta) + varint(-1) + varint(record_bytes)
    return varint(len(body) + record_bytes + 1) + body


cdef int fill_random(Templates *t, list tails, int record_bytes, uint64_t seed) except -1:
    """Every rest: what is left of the first value, and the other records behind it."""
    cdef uint64_t state = seed * 2 + 1
    cdef size_t i
    cdef int f, r, n
    cdef const unsigned char *view
    for f in range(t.fillings):
        t.rest[f] = <uint8_t *> malloc(t.rest_bytes + 8)
        if t.rest[f] == NULL:
            raise MemoryError
        for i in range(0, t.rest_bytes, 8):
            (<uint64_t *> (t.rest[f] + i))[0] = next_random(&state)
        i = record_bytes - STAMP_BYTES
        t.rest[f][i] = 0
        for r in range(1, t.records):
            n = len(tails[r])
            view = tails[r]
            memcpy(t.rest[f] + i + 1, view, n)
            i += 1 + n + record_bytes
            t.rest[f][i] = 0
    return 0


cdef int fill_sections(Templates *t, list sections) except -1:
    cdef int f
    cdef const unsigned char *view
    for f in range(t.fillings):
        t.rest[f] = <uint8_t *> malloc(t.rest_bytes)
        if t.rest[f] == NULL:
            raise MemoryError
        view = sections[f]
        memcpy(t.rest[f], view, t.rest_bytes)
    return 0


cdef int templates_make(Templates *t, int records, int record_bytes, int fillings, uint64_t seed, int codec, list sections) except -1:
    cdef int f
    cdef const unsigned char *view
    if records < 1 or record_bytes < STAMP_BYTES or not 0 < fillings < 65536:
        raise ValueError(f"a batch has at least one record of at least {STAMP_BYTES} bytes, and at least one filling")
    if codec and (len(sections) != fillings or len({len(section) for section in sections}) != 1):
        raise ValueError("compressed batches need one section for each filling, all of one size")
    memset(t, 0, sizeof(Templates))
    prefix = b"" if codec else record_prefix(0, record_bytes)
    # A record ends with its number of headers: none.
    tails = [b""] + [record_prefix(r, record_bytes) for r in range(1, records)]
    t.records = records
    t.fillings = fillings
    t.codec = codec
    if codec:
        t.head_bytes = BATCH_HEADER
        t.rest_bytes = len(sections[0])
    else:
        t.head_bytes = BATCH_HEADER + len(prefix) + STAMP_BYTES
        t.rest_bytes = record_bytes - STAMP_BYTES + 1 + sum(len(tail) + record_bytes + 1 for tail in tails[1:])
    t.batch_bytes = t.head_bytes + t.rest_bytes
    t.head = <uint8_t *> calloc(1, t.head_bytes)
    t.rest = <uint8_t **> calloc(fillings, sizeof(uint8_t *))
    t.rest_crc = <uint32_t *> calloc(fillings, sizeof(uint32_t))
    t.over_rest = calloc(1, sizeof(Zeroes))
    if t.head == NULL or t.rest == NULL or t.rest_crc == NULL or t.over_rest == NULL:
        raise MemoryError
    put32(t.head + 8, <uint32_t> (t.batch_bytes - 12))
    put32(t.head + 12, <uint32_t> -1)                       # partition leader epoch: the broker's to set
    t.head[16] = 2                                          # magic
    t.head[22] = <uint8_t> codec                            # attributes
    put32(t.head + 23, <uint32_t> (records - 1))            # last offset delta
    put32(t.head + 57, <uint32_t> records)
    view = prefix
    memcpy(t.head + BATCH_HEADER, view, len(prefix))
    zeroes_make(<Zeroes *> t.over_rest, t.rest_bytes)
    if codec:
        fill_sections(t, sections)
    else:
        fill_random(t, tails, record_bytes, seed)
    for f in range(fillings):
        t.rest_crc[f] = crc_raw(0, t.rest[f], t.rest_bytes)
    return 0


cdef void templates_free(Templates *t) noexcept:
    cdef int f
    if t.rest != NULL:
        for f in range(t.fillings):
            free(t.rest[f])
    free(t.rest)
    free(t.rest_crc)
    free(t.head)
    free(t.over_rest)
    memset(t, 0, sizeof(Templates))


cdef void write_head(const Templates *t, uint8_t *dst, const Identity *who) noexcept nogil:
    cdef Stamp stamp
    cdef uint32_t state
    memcpy(dst, t.head, t.head_bytes)
    put64(dst + 27, <uint64_t> who.wall_ms)
    put64(dst + 35, <uint64_t> who.wall_ms)
    put64(dst + 43, <uint64_t> who.producer_id)
    put16(dst + 51, <uint16_t> who.producer_epoch)
    put32(dst + 53, <uint32_t> who.sequence)
    if not t.codec:
        stamp.due_ns = who.due_ns
        stamp.filling = <uint16_t> who.filling
        stamp.connection = <uint16_t> who.connection
        stamp.sequence = who.sequence
        memcpy(dst + t.head_bytes - STAMP_BYTES, &stamp, STAMP_BYTES)
    state = crc_raw(<uint32_t> 0xFFFFFFFF, dst + CRC_FROM, t.head_bytes - CRC_FROM)
    state = zeroes_run(<const Zeroes *> t.over_rest, state) ^ t.rest_crc[who.filling]
    put32(dst + CRC_AT, ~state)


cdef Finding inspect_compressed(const Templates *t, const uint8_t *p, size_t n, Stamp *stamp) noexcept nogil:
    cdef uint32_t state = crc_raw(<uint32_t> 0xFFFFFFFF, p + CRC_FROM, n - CRC_FROM)
    cdef uint32_t rest
    cdef int f
    if ~state != get32(p + CRC_AT):
        return BAD_CRC
    if n == t.batch_bytes and p[22] == <uint8_t> t.codec:
        rest = crc_raw(0, p + t.head_bytes, t.rest_bytes)
        memset(stamp, 0, sizeof(Stamp))
        for f in range(t.fillings):
            if rest == t.rest_crc[f]:
                return INTACT
    return FOREIGN


cdef Finding inspect_batch(const Templates *t, const uint8_t *p, size_t n, Stamp *stamp) noexcept nogil:
    cdef uint32_t state, rest
    if t.codec:
        return inspect_compressed(t, p, n, stamp)
    if n != t.batch_bytes or memcmp(p + BATCH_HEADER, t.head + BATCH_HEADER, t.head_bytes - STAMP_BYTES - BATCH_HEADER) != 0:
        state = crc_raw(<uint32_t> 0xFFFFFFFF, p + CRC_FROM, n - CRC_FROM)
        return FOREIGN if ~state == get32(p + CRC_AT) else BAD_CRC
    rest = crc_raw(0, p + t.head_bytes, t.rest_bytes)
    state = crc_raw(<uint32_t> 0xFFFFFFFF, p + CRC_FROM, t.head_bytes - CRC_FROM)
    if ~(zeroes_run(<const Zeroes *> t.over_rest, state) ^ rest) != get32(p + CRC_AT):
        return BAD_CRC
    memcpy(stamp, p + t.head_bytes - STAMP_BYTES, STAMP_BYTES)
    # The contents must be those that were sent, not only contents that their checksum fits.
    if stamp.filling >= t.fillings or rest != t.rest_crc[stamp.filling] or stamp.sequence != <int32_t> get32(p + 53):
        return FOREIGN
    return INTACT


def make_batch(int records, int record_bytes, *, int filling=0, int fillings=1, uint64_t seed=1, int connection=0, uint64_t due_ns=0,
               int64_t wall_ms=0, int64_t producer_id=-1, int16_t producer_epoch=-1, int32_t sequence=-1, int codec=0, list sections=None):
    """One whole batch, as the generator sends it (for single produces, and for tests)."""
    cdef Templates t
    cdef Identity who = Identity(filling, connection, due_ns, wall_ms, producer_id, producer_epoch, sequence)
    cdef bytearray made
    cdef unsigned char[::1] view
    if not 0 <= filling < fillings:
        raise ValueError(f"no filling {filling} of {fillings}")
    memset(&t, 0, sizeof(Templates))
    try:
        templates_make(&t, records, record_bytes, fillings, seed, codec, sections or [])
        made = bytearray(t.batch_bytes)
        view = made
        write_head(&t, &view[0], &who)
        memcpy(&view[t.head_bytes], t.rest[filling], t.rest_bytes)
        return bytes(made)
    finally:
        templates_free(&t)


def inspect(const unsigned char[::1] batch, int records, int record_bytes, *, int fillings=1, uint64_t seed=1, int codec=0,
            list sections=None):
    """`(finding, due_ns, connection)` of a batch read back: finding 0 intact, 1 a wrong CRC, 2 not one of these templates."""
    cdef Templates t
    cdef Stamp stamp
    cdef Finding found
    if batch.shape[0] < BATCH_HEADER:
        raise ValueError("shorter than a batch's header")
    memset(&t, 0, sizeof(Templates))
    memset(&stamp, 0, sizeof(Stamp))
    try:
        templates_make(&t, records, record_bytes, fillings, seed, codec, sections or [])
        found = inspect_batch(&t, &batch[0], batch.shape[0], &stamp)
        return <int> found, stamp.due_ns, stamp.connection
    finally:
        templates_free(&t)


def checksum(const unsigned char[::1] data):
    """CRC-32C of the data."""
    if not data.shape[0]:
        return 0
    return <uint32_t> ~crc_raw(<uint32_t> 0xFFFFFFFF, &data[0], data.shape[0])
