"""Records of a batch from Python objects, for what the control plane appends: format v2's records, without their batch's header.

Source: the protocol guide, "Record Batch"; lengths and deltas are zigzag varints.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from fastlog.native.zigzag cimport varint_put, varint_size, zigzag


cdef inline Py_ssize_t width(int64_t v) noexcept nogil:
    return varint_size(zigzag(v))


cdef inline uint8_t *put(uint8_t *at, int64_t v) noexcept nogil:
    return varint_put(at, zigzag(v))


cdef inline Py_ssize_t sized(bytes data):
    """What bytes take with their length; None is a length of -1."""
    if data is None:
        return 1
    return width(PyBytes_GET_SIZE(data)) + PyBytes_GET_SIZE(data)


cdef inline uint8_t *put_bytes(uint8_t *at, bytes data):
    if data is None:
        return put(at, -1)
    at = put(at, PyBytes_GET_SIZE(data))
    memcpy(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return at + PyBytes_GET_SIZE(data)


cdef Py_ssize_t measure(Py_ssize_t delta, tuple record) except -1:
    """Bytes of a record behind its length."""
    cdef Py_ssize_t size
    cdef bytes key, value, name, held
    cdef tuple headers
    after_ms, key, value, headers = record
    size = 1 + width(<int64_t> after_ms) + width(delta) + sized(key) + sized(value) + width(len(headers))
    for name, held in headers:
        size += sized(name) + sized(held)
    return size


def pack_records(list records) -> bytes:
    """records: tuples (milliseconds after the batch's first timestamp, key, value, headers: tuple of (name, value)); texts are bytes, and
    keys and values may be None. Raises TypeError, OverflowError."""
    cdef Py_ssize_t i, n = len(records), total = 0, size
    cdef bytes key, value, name, held, made
    cdef tuple headers
    cdef uint8_t *at
    for i in range(n):
        size = measure(i, records[i])
        total += width(size) + size
    made = PyBytes_FromStringAndSize(NULL, total)
    at = <uint8_t *> PyBytes_AS_STRING(made)
    for i in range(n):
        at = put(at, measure(i, records[i]))
        after_ms, key, value, headers = <tuple> records[i]
        at[0] = 0               # attributes: none are defined
        at = put(at + 1, <int64_t> after_ms)
        at = put(at, i)
        at = put_bytes(put_bytes(at, key), value)
        at = put(at, len(headers))
        for name, held in headers:
            at = put_bytes(put_bytes(at, name), held)
    return made


def pack_pairs(list pairs) -> bytes:
    """`pack_records` for keys and values of one time and without headers."""
    cdef Py_ssize_t i, n = len(pairs), total = 0, size
    cdef bytes key, value, made
    cdef uint8_t *at
    for i in range(n):
        key, value = <tuple> pairs[i]
        size = 3 + width(i) + sized(key) + sized(value)
        total += width(size) + size
    made = PyBytes_FromStringAndSize(NULL, total)
    at = <uint8_t *> PyBytes_AS_STRING(made)
    for i in range(n):
        key, value = <tuple> pairs[i]
        at = put(at, 3 + width(i) + sized(key) + sized(value))
        at[0] = 0               # attributes
        at[1] = 0               # milliseconds after the first
        at = put(at + 2, i)
        at = put_bytes(put_bytes(at, key), value)
        at[0] = 0               # headers
        at += 1
    return made


def pairs_bytes(list pairs) -> int:
    """Bytes of all keys and values."""
    cdef Py_ssize_t total = 0
    cdef bytes key, value
    for item in pairs:
        key, value = <tuple> item
        total += (0 if key is None else PyBytes_GET_SIZE(key)) + (0 if value is None else PyBytes_GET_SIZE(value))
    return total
