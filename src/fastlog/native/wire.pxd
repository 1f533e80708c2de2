"""What the hand-written decoders share: Kafka's strings, arrays and tagged fields in both encodings (KIP-482)."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from fastlog.native.bytes cimport Reader, Writer, read_i16, read_i32, read_uvarint, reader_left, reader_take, write_bytes, write_i16, \
    write_i32, write_uvarint, write_i8


cdef inline int64_t wire_length(Reader *r, bint flexible) noexcept nogil:
    """Of an array or of bytes: -1 for null. A count beyond the bytes that are left is bad, so it can bound a loop."""
    cdef int64_t n = <int64_t> read_uvarint(r) - 1 if flexible else <int64_t> read_i32(r)
    if n < -1 or n > <int64_t> reader_left(r):
        r.bad = True
        return -1
    return n


cdef inline int64_t wire_count(Reader *r, bint flexible) noexcept nogil:
    """Of an array that can't be null: null is bad."""
    cdef int64_t n = wire_length(r, flexible)
    if n < 0:
        r.bad = True
    return n


cdef inline const uint8_t *wire_string(Reader *r, bint flexible, int32_t *length) noexcept nogil:
    """A string; length -1 and NULL for null."""
    cdef int64_t n = <int64_t> read_uvarint(r) - 1 if flexible else <int64_t> read_i16(r)
    length[0] = -1
    if n < 0:
        if n < -1:
            r.bad = True
        return NULL
    length[0] = <int32_t> n
    return reader_take(r, <uint64_t> n)


cdef inline void wire_skip_tags(Reader *r, bint flexible) noexcept nogil:
    cdef uint32_t n
    if not flexible:
        return
    n = read_uvarint(r)
    while n and not r.bad:
        read_uvarint(r)
        reader_take(r, read_uvarint(r))
        n -= 1


cdef inline void wire_put_length(Writer *w, bint flexible, int64_t n) noexcept nogil:
    if flexible:
        write_uvarint(w, <uint32_t> (n + 1))
    else:
        write_i32(w, <int32_t> n)


cdef inline void wire_put_string(Writer *w, bint flexible, const void *p, int32_t n) noexcept nogil:
    """n = -1: null."""
    if flexible:
        write_uvarint(w, <uint32_t> (n + 1))
    else:
        write_i16(w, <short> n)
    if n > 0:
        write_bytes(w, p, n)


cdef inline void wire_put_tags(Writer *w, bint flexible) noexcept nogil:
    if flexible:
        write_i8(w, 0)
