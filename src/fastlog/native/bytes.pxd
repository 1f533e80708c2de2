"""Bounded big-endian reading and writing of memory: the one place where the wire's integers are taken apart.

A `Reader` never reads past `end`: the first read that would sets `bad`, and every read from then on yields zero or NULL.
So a decoder reads a whole structure and asks once. A `Writer` is the same for output (`full`). Neither allocates; neither
owns its memory. Encodings: Kafka protocol guide, "Protocol Primitive Types"; KIP-482 for the compact forms.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <endian.h>
    #include <stdint.h>
    #include <string.h>
    static inline uint16_t fl_get16(const void *p) { uint16_t v; memcpy(&v, p, 2); return be16toh(v); }
    static inline uint32_t fl_get32(const void *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
    static inline uint64_t fl_get64(const void *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
    static inline void fl_put16(void *p, uint16_t v) { v = htobe16(v); memcpy(p, &v, 2); }
    static inline void fl_put32(void *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
    static inline void fl_put64(void *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
    """
    uint16_t get16 "fl_get16"(const void *p) noexcept nogil
    uint32_t get32 "fl_get32"(const void *p) noexcept nogil
    uint64_t get64 "fl_get64"(const void *p) noexcept nogil
    void put16 "fl_put16"(void *p, uint16_t v) noexcept nogil
    void put32 "fl_put32"(void *p, uint32_t v) noexcept nogil
    void put64 "fl_put64"(void *p, uint64_t v) noexcept nogil


ctypedef struct Reader:
    const uint8_t *p
    const uint8_t *end
    bint bad


cdef inline void reader_init(Reader *r, const void *p, size_t n) noexcept nogil:
    r.p = <const uint8_t *> p
    r.end = r.p + n
    r.bad = False


cdef inline size_t reader_left(const Reader *r) noexcept nogil:
    return <size_t> (r.end - r.p)


cdef inline const uint8_t *reader_take(Reader *r, uint64_t n) noexcept nogil:
    """The next n bytes, or NULL (and `bad`) when fewer are left."""
    cdef const uint8_t *at = r.p
    if r.bad or n > <uint64_t> (r.end - r.p):
        r.bad = True
        return NULL
    r.p += n
    return at


cdef inline int8_t read_i8(Reader *r) noexcept nogil:
    cdef const uint8_t *at = reader_take(r, 1)
    return <int8_t> at[0] if at != NULL else 0


cdef inline int16_t read_i16(Reader *r) noexcept nogil:
    cdef const uint8_t *at = reader_take(r, 2)
    return <int16_t> get16(at) if at != NULL else 0


cdef inline int32_t read_i32(Reader *r) noexcept nogil:
    cdef const uint8_t *at = reader_take(r, 4)
    return <int32_t> get32(at) if at != NULL else 0


cdef inline int64_t read_i64(Reader *r) noexcept nogil:
    cdef const uint8_t *at = reader_take(r, 8)
    return <int64_t> get64(at) if at != NULL else 0


cdef inline uint32_t read_uvarint(Reader *r) noexcept nogil:
    """Unsigned base-128 of at most 5 bytes; more, or bits past the 32nd, set `bad`."""
    cdef uint64_t v = 0
    cdef uint32_t shift = 0
    while shift <= 28:
        if r.bad or r.p == r.end:
            r.bad = True
            return 0
        v |= <uint64_t> (r.p[0] & 0x7F) << shift
        r.p += 1
        if not (r.p - 1)[0] & 0x80:
            if v >> 32:
                r.bad = True
                return 0
            return <uint32_t> v
        shift += 7
    r.bad = True
    return 0


cdef inline int32_t read_varint(Reader *r) noexcept nogil:
    """Zigzag, at most 5 bytes."""
    cdef uint32_t v = read_uvarint(r)
    return <int32_t> ((v >> 1) ^ (~(v & 1) + 1))


cdef inline int64_t read_varlong(Reader *r) noexcept nogil:
    """Zigzag, at most 10 bytes."""
    cdef uint64_t v = 0
    cdef uint32_t shift = 0
    while shift <= 63:
        if r.bad or r.p == r.end:
            r.bad = True
            return 0
        v |= <uint64_t> (r.p[0] & 0x7F) << shift
        r.p += 1
        if not (r.p - 1)[0] & 0x80:
            return <int64_t> ((v >> 1) ^ (~(v & 1) + 1))
        shift += 7
    r.bad = True
    return 0


ctypedef struct Writer:
    uint8_t *start
    uint8_t *p
    uint8_t *end
    bint full


cdef inline void writer_init(Writer *w, void *p, size_t n) noexcept nogil:
    w.start = <uint8_t *> p
    w.p = w.start
    w.end = w.start + n
    w.full = False


cdef inline size_t writer_used(const Writer *w) noexcept nogil:
    return <size_t> (w.p - w.start)


cdef inline uint8_t *writer_room(Writer *w, uint64_t n) noexcept nogil:
    """Where the next n bytes go, or NULL (and `full`) when they don't fit."""
    cdef uint8_t *at = w.p
    if w.full or n > <uint64_t> (w.end - w.p):
        w.full = True
        return NULL
    w.p += n
    return at


cdef inline void write_i8(Writer *w, int8_t v) noexcept nogil:
    cdef uint8_t *at = writer_room(w, 1)
    if at != NULL:
        at[0] = <uint8_t> v


cdef inline void write_i16(Writer *w, int16_t v) noexcept nogil:
    cdef uint8_t *at = writer_room(w, 2)
    if at != NULL:
        put16(at, <uint16_t> v)


cdef inline void write_i32(Writer *w, int32_t v) noexcept nogil:
    cdef uint8_t *at = writer_room(w, 4)
    if at != NULL:
        put32(at, <uint32_t> v)


cdef inline void write_i64(Writer *w, int64_t v) noexcept nogil:
    cdef uint8_t *at = writer_room(w, 8)
    if at != NULL:
        put64(at, <uint64_t> v)


cdef inline void write_bytes(Writer *w, const void *src, size_t n) noexcept nogil:
    cdef uint8_t *at = writer_room(w, n)
    if at != NULL:
        memcpy(at, src, n)


cdef inline void write_uvarint(Writer *w, uint32_t v) noexcept nogil:
    while v >= 0x80:
        write_i8(w, <int8_t> ((v & 0x7F) | 0x80))
        v >>= 7
    write_i8(w, <int8_t> v)
