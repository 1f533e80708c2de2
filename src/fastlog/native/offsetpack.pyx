"""What an OffsetCommit brings, partition by partition: records in Kafka's format, the state they stand for, and their part of the answer.

A commit of ten partitions is ten times all of that, so it is one pass in compiled code. The formats are those of OffsetCommitKey version 1
and OffsetCommitValue version 4, or 1 where a commit has an expiry of its own (the protocol's schemas have them; tests compare).
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from fastlog.native.bytes cimport put16, put32, put64

from uuid import UUID

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    uint32_t PyUnicode_MAX_CHAR_VALUE(object text)

cdef enum:
    KEY_VERSION = 1
    VALUE_VERSION = 4
    VALUE_VERSION_EXPIRING = 1
    TOPIC_ID_TAG = 0
    STRING_MAX = 32767

cdef object NO_TOPIC_ID = UUID(int=0)


cdef Py_ssize_t utf16_units(str text) except -1:
    if PyUnicode_MAX_CHAR_VALUE(text) <= 0xFFFF:
        return PyUnicode_GET_LENGTH(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


cdef inline const char *utf8(str text, Py_ssize_t *size) except NULL:
    cdef const char *at = PyUnicode_AsUTF8AndSize(text, size)
    if size[0] > STRING_MAX:
        raise ValueError(f"a string of {size[0]} bytes, more than {<int> STRING_MAX}")
    return at


cdef bytes key_prefix(str group, str topic):
    """A key without the partition at its end."""
    cdef Py_ssize_t n = 0, m = 0
    cdef const char *g = utf8(group, &n)
    cdef const char *t = utf8(topic, &m)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 6 + n + m)
    cdef uint8_t *at = <uint8_t *> PyBytes_AS_STRING(made)
    put16(at, KEY_VERSION)
    put16(at + 2, <uint16_t> n)
    memcpy(at + 4, g, n)
    put16(at + 4 + n, <uint16_t> m)
    memcpy(at + 6 + n, t, m)
    return made


cdef bytes key_of(bytes prefix, int32_t partition):
    cdef Py_ssize_t n = PyBytes_GET_SIZE(prefix)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, n + 4)
    cdef uint8_t *at = <uint8_t *> PyBytes_AS_STRING(made)
    memcpy(at, PyBytes_AS_STRING(prefix), n)
    put32(at + n, <uint32_t> partition)
    return made


cdef bytes value_of(int64_t offset, int32_t epoch, str metadata, int64_t commit_ms, bytes topic_id):
    """topic_id: 16 bytes, or None."""
    cdef Py_ssize_t n = 0, room
    cdef const char *text = utf8(metadata, &n)
    cdef uint32_t length = <uint32_t> n + 1     # compact: of one more
    cdef bytes made
    cdef uint8_t *at
    room = 2 + 8 + 4 + (1 if length < 0x80 else 2 if length < 0x4000 else 3) + n + 8 + (1 if topic_id is None else 19)
    made = PyBytes_FromStringAndSize(NULL, room)
    at = <uint8_t *> PyBytes_AS_STRING(made)
    put16(at, VALUE_VERSION)
    put64(at + 2, <uint64_t> offset)
    put32(at + 10, <uint32_t> epoch)
    at += 14
    while length >= 0x80:
        at[0] = <uint8_t> (length | 0x80)
        length >>= 7
        at += 1
    at[0] = <uint8_t> length
    memcpy(at + 1, text, n)
    at += 1 + n
    put64(at, <uint64_t> commit_ms)
    at += 8
    if topic_id is None:
        at[0] = 0               # no tagged fields
    else:
        at[0] = 1
        at[1] = TOPIC_ID_TAG
        at[2] = 16
        memcpy(at + 3, PyBytes_AS_STRING(topic_id), 16)
    return made


cdef bytes expiring_value_of(int64_t offset, str metadata, int64_t commit_ms, int64_t expire_ms):
    cdef Py_ssize_t n = 0
    cdef const char *text = utf8(metadata, &n)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 28 + n)
    cdef uint8_t *at = <uint8_t *> PyBytes_AS_STRING(made)
    put16(at, VALUE_VERSION_EXPIRING)
    put64(at + 2, <uint64_t> offset)
    put16(at + 10, <uint16_t> n)
    memcpy(at + 12, text, n)
    put64(at + 12 + n, <uint64_t> commit_ms)
    put64(at + 20 + n, <uint64_t> expire_ms)
    return made


def pack_commit(str group, list topics, int64_t now_ms, int64_t expire_ms, Py_ssize_t metadata_max, object too_large, object good,
                object check, type record_type, type value_type) -> tuple:
    """topics: of an OffsetCommit request. expire_ms: -1, or when these commits expire. metadata_max: UTF-16 units; a partition with more
    gets the error `too_large`, others `good`. check: None, or called with (topic, topic id, partition), may raise. record_type and
    value_type: OffsetRecord and OffsetValue (coordinator/records.py).

    Returns (records, their keys and values as the log has them, topics of the response). Raises ValueError.
    """
    cdef list records = [], pairs = [], answered = [], answers
    cdef dict topic, partition
    cdef str name, metadata
    cdef bytes prefix, id_bytes, value
    cdef int64_t offset
    cdef int32_t epoch, index
    for topic in topics:
        name = topic["name"]
        topic_id = topic.get("topic_id", NO_TOPIC_ID)
        id_bytes = None if topic_id is NO_TOPIC_ID or topic_id == NO_TOPIC_ID else topic_id.bytes
        prefix = key_prefix(group, name)
        answers = []
        for partition in topic["partitions"]:
            at = partition["partition_index"]
            metadata = partition["committed_metadata"] or ""
            if utf16_units(metadata) > metadata_max:
                answers.append({"partition_index": at, "error_code": too_large})
                continue
            if check is not None:
                check(name, topic_id, at)
            index = at
            given = partition["committed_offset"]
            offset = given
            leader_epoch = partition.get("committed_leader_epoch", -1)
            epoch = leader_epoch
            if expire_ms == -1:
                value = value_of(offset, epoch, metadata, now_ms, id_bytes)
            else:
                value = expiring_value_of(offset, metadata, now_ms, expire_ms)
            pairs.append((key_of(prefix, index), value))
            held = tuple.__new__(value_type, (given, leader_epoch, metadata, now_ms, expire_ms, topic_id))
            records.append(tuple.__new__(record_type, (group, name, at, held)))
            answers.append({"partition_index": at, "error_code": good})
        answered.append({"name": name, "topic_id": topic_id, "partitions": answers})
    return records, pairs, answered
