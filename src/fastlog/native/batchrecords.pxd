"""The records of a batch, one after the other, decompressed in pieces as they are read. Reading one is inline: that is what takes time."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from fastlog.native.batch cimport BatchInfo
from fastlog.native.compression cimport FlInflate
from fastlog.native.zigzag cimport unzigzag

# The records' bytes: one piece of memory, or pieces as they are decompressed. As in bytes.pxd, the first read that can't be done
# sets `bad`, and every read from then on yields zero.
cdef struct Source:
    const uint8_t *p
    const uint8_t *end
    const uint8_t *piece            # start of this piece
    uint64_t before                 # bytes in the pieces before it
    FlInflate *inflate              # NULL: there is one piece only
    int status                      # of the last inflate_next
    bint bad

cdef struct Record:
    int64_t timestamp_delta
    int32_t offset_delta
    bint has_key

# Starts at the first record. Where it gives 0, records_close must follow; else a Kafka error code, which records_why explains. `scratch`:
# BATCH_SCRATCH bytes, in use until then; inflate_max: bytes that may come out at most.
cdef int16_t records_open(Source *s, FlInflate *inflate, const uint8_t *p, const BatchInfo *info, void *scratch, size_t scratch_len,
                          uint64_t inflate_max) noexcept nogil
cdef void records_close(Source *s) noexcept nogil
# Goes to the next piece when this one is used up; False when there is none.
cdef bint source_next(Source *s) noexcept nogil
# Over n bytes that are not all in this piece.
cdef void source_skip(Source *s, uint64_t n) noexcept nogil
# The Kafka error code for what a codec said (compression.pxd), and an English reason for it.
cdef int16_t records_error(int status) noexcept nogil
cdef const char *records_why(int16_t error) noexcept nogil

cdef struct Marker:                 # what a control batch of a coordinator says (Kafka's EndTransactionMarker)
    bint commit                     # or aborted
    int32_t coordinator_epoch

# Reads the end of a transaction from the n bytes of a control batch. 0, or -1: it has no record, or one that ends none.
cdef int batch_marker(const uint8_t *p, size_t n, Marker *out) noexcept nogil

# The first record at or after `timestamp` in a whole valid batch: fills its absolute offset and timestamp and returns 1; 0 when there
# is none; -1 when the batch cannot be decoded. With log-append time every record has max_timestamp.
cdef int batch_find_time(const uint8_t *p, size_t n, int64_t timestamp, void *scratch, size_t scratch_len,
                         int64_t *offset, int64_t *found_ms) noexcept nogil


cdef inline uint64_t source_at(const Source *s) noexcept nogil:
    return s.before + <uint64_t> (s.p - s.piece)


cdef inline uint64_t take_long_varint(Source *s, int bytes_max) noexcept nogil:
    cdef uint64_t v = 0
    cdef uint8_t byte
    cdef int i
    for i in range(bytes_max):
        if s.p == s.end and not source_next(s):
            break
        byte = s.p[0]
        s.p += 1
        v |= <uint64_t> (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return v
    s.bad = True
    return 0


cdef inline int64_t take_varlong(Source *s) noexcept nogil:
    """Zigzag, at most 10 bytes; bits past the 64th are dropped, as everywhere."""
    cdef const uint8_t *at = s.p
    if at != s.end and at[0] < 0x80:
        s.p += 1
        return unzigzag(at[0])
    return unzigzag(take_long_varint(s, 10))


cdef inline int32_t take_varint(Source *s) noexcept nogil:
    """Zigzag, at most 5 bytes. Bits past the 32nd are refused: clients differ in how they read them."""
    cdef const uint8_t *at = s.p
    cdef uint64_t v
    if at != s.end and at[0] < 0x80:
        s.p += 1
        return <int32_t> unzigzag(at[0])
    if s.end - at >= 2 and at[1] < 0x80:
        s.p += 2
        return <int32_t> unzigzag((at[0] & 0x7F) | <uint64_t> at[1] << 7)
    v = take_long_varint(s, 5)
    if v >> 32:
        s.bad = True
        return 0
    return <int32_t> unzigzag(v)


cdef inline int32_t skip_bytes(Source *s, int32_t within) noexcept nogil:
    """Over a length and as many bytes. Returns the length; negative, it stands for null. It can't be more than `within`."""
    cdef int32_t n = take_varint(s)
    if n <= 0:
        return n
    if n <= s.end - s.p:
        s.p += n
    elif n <= within:
        source_skip(s, <uint64_t> n)
    else:
        s.bad = True
    return n


cdef inline bint record_read(Source *s, Record *out) noexcept nogil:
    """Reads one record; False when it is not one, or not of the length that it says."""
    cdef int32_t length = take_varint(s)
    cdef uint64_t start = source_at(s)
    cdef int32_t headers
    if s.p == s.end and not source_next(s):
        return False
    s.p += 1                        # attributes: none are defined
    out.timestamp_delta = take_varlong(s)
    out.offset_delta = take_varint(s)
    out.has_key = skip_bytes(s, length) >= 0
    skip_bytes(s, length)
    headers = take_varint(s)
    if headers < 0 or headers > length:     # a header takes two bytes at least
        return False
    while headers and not s.bad:
        if skip_bytes(s, length) < 0:       # a header's name is never null
            return False
        skip_bytes(s, length)
        headers -= 1
    return not s.bad and length >= 0 and source_at(s) - start == <uint64_t> length
