"""Headers of a record as they stand in it: a count, and names and values behind their lengths (protocol guide, "Record Header")."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t


cdef void put_varint(bytearray out, int64_t v):
    cdef unsigned long long z = (<unsigned long long> v << 1) ^ <unsigned long long> (v >> 63)
    while z >= 0x80:
        out.append(<uint8_t> (z & 0x7F | 0x80))
        z >>= 7
    out.append(<uint8_t> z)


def encode_headers(headers) -> bytes:
    """Headers as they stand in a record: [(name, value), ...] or a mapping; names are str, values bytes or None. TypeError for others."""
    cdef bytearray made = bytearray()
    if isinstance(headers, (str, bytes)) or not hasattr(headers, "__iter__"):
        raise TypeError(f"headers: expected (name, value) pairs or a mapping, not {type(headers).__name__}")
    items = list(headers.items() if hasattr(headers, "items") else headers)
    put_varint(made, len(items))
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"headers: expected (name, value) pairs, not {item!r}")
        name, value = item
        if not isinstance(name, str):
            raise TypeError(f"a header's name is a str, not {type(name).__name__}")
        encoded = name.encode(errors="surrogateescape")
        put_varint(made, len(encoded))
        made += encoded
        if value is None:
            put_varint(made, -1)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            value = bytes(value)        # a view's length is not that of its bytes
            put_varint(made, len(value))
            made += value
        else:
            raise TypeError(f"a header's value is bytes or None, not {type(value).__name__}")
    return bytes(made)


cdef list decode_headers(bytes raw):
    """Checked already when the record was read."""
    cdef const uint8_t *p
    cdef int64_t count, n
    if not raw:
        return []
    p = <const uint8_t *> <char *> raw
    count = take_varint(&p)
    made = []
    while count > 0:
        count -= 1
        n = take_varint(&p)
        name = PyBytes_FromStringAndSize(<char *> p, n).decode(errors="surrogateescape")
        p += n
        n = take_varint(&p)
        made.append((name, PyBytes_FromStringAndSize(<char *> p, n) if n >= 0 else None))
        p += max(n, <int64_t> 0)
    return made


cdef int64_t take_varint(const uint8_t **p) noexcept nogil:
    cdef unsigned long long v = 0
    cdef int shift = 0
    while True:
        v |= <unsigned long long> (p[0][0] & 0x7F) << shift
        shift += 7
        p[0] += 1
        if (p[0] - 1)[0] < 0x80:
            return <int64_t> ((v >> 1) ^ (~(v & 1) + 1))
