"""See clientbatch.pxd. The format: Kafka protocol guide, "Record Batch"."""
from libc.stdint cimport INT32_MAX, int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlog.native.batch cimport ATTR_CODEC, BATCH_CRC_FROM, BATCH_HEADER, BATCH_PREFIX
from fastlog.native.bytes cimport put16, put32, put64
from fastlog.native.compression cimport FL_END, FlDeflate, deflate_add, deflate_begin, deflate_drop, deflate_end
from fastlog.native.crc32c cimport crc32c
from fastlog.native.zigzag cimport varint_put, varint_size, zigzag


cdef void batch_add(OutBatch *b, int64_t ms, const uint8_t *key, int64_t key_n, const uint8_t *value, int64_t value_n,
                    const uint8_t *headers, int64_t headers_n) noexcept nogil:
    cdef uint64_t when, nth, keys, values
    cdef int64_t size
    cdef uint8_t *p = b.data + b.used
    if b.count == 0:
        b.base_ms = b.max_ms = ms
    elif ms > b.max_ms:
        b.max_ms = ms
    when = zigzag(ms - b.base_ms)
    nth = zigzag(b.count)
    keys = zigzag(key_n)
    values = zigzag(value_n)
    size = 1 + varint_size(when) + varint_size(nth) + varint_size(keys) + varint_size(values) + (headers_n if headers != NULL else 1)
    if key_n > 0:
        size += key_n
    if value_n > 0:
        size += value_n
    p = varint_put(p, zigzag(size))
    p[0] = 0
    p = varint_put(p + 1, when)
    p = varint_put(p, nth)
    p = varint_put(p, keys)
    if key_n > 0:
        memcpy(p, key, key_n)
        p += key_n
        b.payload += key_n
    p = varint_put(p, values)
    if value_n > 0:
        memcpy(p, value, value_n)
        p += value_n
        b.payload += value_n
    if headers == NULL:
        p[0] = 0
        p += 1
    else:
        memcpy(p, headers, headers_n)
        p += headers_n
    b.used = <size_t> (p - b.data)
    b.count += 1


cdef void batch_number(OutBatch *b) noexcept nogil:
    put64(b.data + 43, <uint64_t> b.producer_id)
    put16(b.data + 51, <uint16_t> b.producer_epoch)
    put32(b.data + 53, <uint32_t> b.sequence)
    put32(b.data + 17, crc32c(0, b.data + BATCH_CRC_FROM, b.used - BATCH_CRC_FROM))


cdef int batch_seal(OutBatch *b, int codec, int level, int16_t attributes) noexcept nogil:
    cdef FlDeflate deflate
    cdef size_t body = b.used - BATCH_HEADER
    cdef int status
    if codec:
        status = deflate_begin(&deflate, codec, level, body, BATCH_HEADER, INT32_MAX)
        if status == FL_END:
            status = deflate_add(&deflate, b.data + BATCH_HEADER, body)
        if status == FL_END:
            status = deflate_end(&deflate)
        if status == FL_END and deflate.used < b.used:      # otherwise it is sent as it is
            memcpy(b.data + BATCH_HEADER, deflate.out + BATCH_HEADER, deflate.used - BATCH_HEADER)
            b.used = deflate.used
            attributes |= <int16_t> (codec & ATTR_CODEC)
        deflate_drop(&deflate)
    put64(b.data, 0)
    put32(b.data + 8, <uint32_t> (b.used - BATCH_PREFIX))
    put32(b.data + 12, <uint32_t> -1)
    b.data[16] = 2
    put16(b.data + 21, <uint16_t> attributes)
    put32(b.data + 23, <uint32_t> (b.count - 1))
    put64(b.data + 27, <uint64_t> b.base_ms)
    put64(b.data + 35, <uint64_t> b.max_ms)
    put32(b.data + 57, <uint32_t> b.count)
    batch_number(b)
    b.sealed = True
    return 0


cdef uint32_t murmur2(const uint8_t *p, size_t n) noexcept nogil:
    """MurmurHash2, 32 bits, seed 0x9747b28c, as Kafka's default partitioner has it (Austin Appleby, public domain)."""
    cdef uint32_t m = 0x5BD1E995, h = <uint32_t> 0x9747B28C ^ <uint32_t> n, k
    cdef size_t i, whole = n & ~<size_t> 3
    for i in range(0, whole, 4):
        memcpy(&k, p + i, 4)
        k *= m
        k ^= k >> 24
        k *= m
        h *= m
        h ^= k
    if n & 3:
        if n & 3 == 3:
            h ^= <uint32_t> p[whole + 2] << 16
        if n & 3 >= 2:
            h ^= <uint32_t> p[whole + 1] << 8
        h ^= p[whole]
        h *= m
    h ^= h >> 13
    h *= m
    h ^= h >> 15
    return h
