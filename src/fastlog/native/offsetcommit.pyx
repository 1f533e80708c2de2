"""OffsetCommit requests as they nearly always are, with no Python object for each partition: read, packed for the log, answered.

A group of consumers with many partitions commits all of them, all the time; as dictionaries, a commit of ten partitions costs more to read
and to answer than to store. What is unusual (no topic, one named twice, text that is no UTF-8, a body that can't be read) is left to the
codec, which serves all of the protocol: `read_commit` returns None for it.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc

from fastlog.native.bytes cimport (
    Reader, Writer, read_i32, read_i64, reader_init, reader_left, reader_take, write_bytes, write_i16, write_i32, writer_init, writer_used,
)
from fastlog.native.offsetpack cimport expiring_value_of, key_of, key_prefix, utf16_units, value_of
from fastlog.native.wire cimport wire_count, wire_put_length, wire_put_tags, wire_skip_tags, wire_string

from uuid import UUID

cdef enum:
    VERSION_FIRST = 2
    VERSION_LAST = 10
    RETENTION_LAST = 4              # retention_time_ms until this version
    THROTTLE_FIRST = 3
    EPOCH_FIRST = 6
    INSTANCE_FIRST = 7
    FLEXIBLE_FIRST = 8
    IDS_FIRST = 10                  # topics by id from this version on
    ROW_LEAST = 13                  # bytes of a partition in a request, at least

cdef object NO_TOPIC_ID = UUID(int=0)

ctypedef struct Row:
    int32_t index
    int32_t epoch
    int64_t offset

ctypedef struct Named:
    const uint8_t *given            # a topic's name or id as the request has it, which is how the response does
    size_t given_length
    int32_t rows


cdef str text(const uint8_t *at, int32_t n):
    """Raises UnicodeDecodeError. None for a null."""
    if at == NULL:
        return None
    return PyUnicode_DecodeUTF8(<const char *> at, n, NULL) if n else ""


cdef class Commit:
    """What `read_commit` found. It holds the request's memory.

    head:   dict, the request's fields but `topics`, by their names in the protocol
    topics: list of (name, UUID, least partition, greatest), one for each topic; of name and id the request has one, the other is "" or zero
    """
    cdef readonly dict head
    cdef readonly list topics
    cdef Py_buffer body
    cdef Row *rows
    cdef list metadata              # str of each row
    cdef Named *named
    cdef int32_t rows_n
    cdef int32_t named_n
    cdef int version
    cdef bint held

    def __dealloc__(self):
        free(self.rows)
        free(self.named)
        if self.held:
            PyBuffer_Release(&self.body)

    cdef bint read(self) except -1:
        """Whether it is of the usual kind."""
        cdef Reader r
        cdef bint flexible = self.version >= FLEXIBLE_FIRST
        cdef int64_t n, _i
        cdef int32_t length = 0
        cdef const uint8_t *p
        reader_init(&r, self.body.buf, <size_t> self.body.len)
        p = wire_string(&r, flexible, &length)
        if p == NULL:
            return False
        self.head = {"group_id": text(p, length), "generation_id_or_member_epoch": read_i32(&r)}
        p = wire_string(&r, flexible, &length)
        if p == NULL:
            return False
        self.head["member_id"] = text(p, length)
        if self.version >= INSTANCE_FIRST:
            p = wire_string(&r, flexible, &length)
            self.head["group_instance_id"] = text(p, length)
        if self.version <= RETENTION_LAST:
            self.head["retention_time_ms"] = read_i64(&r)
        n = wire_count(&r, flexible)
        if r.bad or n == 0:
            return False
        self.topics = []
        self.metadata = []
        self.named = <Named *> malloc(<size_t> n * sizeof(Named) + 1)
        if self.named == NULL:
            raise MemoryError
        for _i in range(n):
            if not self.read_topic(&r, flexible):
                return False
        wire_skip_tags(&r, flexible)
        return not r.bad and reader_left(&r) == 0

    cdef bint read_topic(self, Reader *r, bint flexible) except -1:
        cdef Named *named = self.named + self.named_n
        cdef Row *grown
        cdef Row *row
        cdef int32_t least = 0, greatest = 0
        cdef int64_t n, at
        cdef int32_t length = 0
        cdef const uint8_t *p
        named.given = r.p
        if self.version >= IDS_FIRST:
            p = reader_take(r, 16)
            name = ""
            topic_id = UUID(bytes=p[:16]) if p != NULL else None
        else:
            p = wire_string(r, flexible, &length)
            name = text(p, length)
            topic_id = NO_TOPIC_ID
        named.given_length = <size_t> (r.p - named.given)
        n = wire_count(r, flexible)
        if r.bad or name is None or topic_id is None or n == 0 or n * ROW_LEAST > <int64_t> reader_left(r):
            return False
        grown = <Row *> realloc(self.rows, <size_t> (self.rows_n + n) * sizeof(Row))
        if grown == NULL:
            raise MemoryError
        self.rows = grown
        named.rows = <int32_t> n
        for at in range(n):
            row = self.rows + self.rows_n
            row.index = read_i32(r)
            row.offset = read_i64(r)
            row.epoch = read_i32(r) if self.version >= EPOCH_FIRST else -1
            p = wire_string(r, flexible, &length)
            self.metadata.append(text(p, length) or "")
            wire_skip_tags(r, flexible)
            if at == 0 or row.index < least:
                least = row.index
            if at == 0 or row.index > greatest:
                greatest = row.index
            self.rows_n += 1
        wire_skip_tags(r, flexible)
        self.named_n += 1
        self.topics.append((name, topic_id, least, greatest))
        return not r.bad

    def pack(self, list names, int64_t now_ms, int64_t expire_ms, Py_ssize_t metadata_max, object check, type record_type,
             type value_type) -> tuple:
        """What `pack_commit` returns but the answer: (records, their keys and values as the log has them); None where a partition has more
        metadata than it may. names: of the topics, in the request's order. Raises ValueError, and what `check` raises."""
        cdef list records = [], pairs = []
        cdef str group = self.head["group_id"]
        cdef str name, metadata
        cdef bytes prefix, id_bytes, value
        cdef Row *row = self.rows
        cdef Row *end
        cdef int32_t i
        for metadata in self.metadata:
            if utf16_units(metadata) > metadata_max:
                return None
        for i in range(self.named_n):
            name = names[i]
            topic_id = self.topics[i][1]
            id_bytes = self.named[i].given[:16] if self.version >= IDS_FIRST else None
            prefix = key_prefix(group, name)
            end = row + self.named[i].rows
            while row < end:
                metadata = self.metadata[row - self.rows]
                index = row.index
                if check is not None:
                    check(name, topic_id, index)
                if expire_ms == -1:
                    value = value_of(row.offset, row.epoch, metadata, now_ms, id_bytes)
                else:
                    value = expiring_value_of(row.offset, metadata, now_ms, expire_ms)
                pairs.append((key_of(prefix, row.index), value))
                held = tuple.__new__(value_type, (row.offset, row.epoch, metadata, now_ms, expire_ms, topic_id))
                records.append(tuple.__new__(record_type, (group, name, index, held)))
                row += 1
        return records, pairs

    def answer(self, int16_t error) -> bytes:
        """The response's body: this error code for every partition."""
        cdef bint flexible = self.version >= FLEXIBLE_FIRST
        cdef Writer w
        cdef Row *row = self.rows
        cdef Row *end
        cdef Py_ssize_t room = 16
        cdef int32_t i
        cdef bytes made
        for i in range(self.named_n):
            room += 8 + <Py_ssize_t> self.named[i].given_length + 7 * <Py_ssize_t> self.named[i].rows
        made = PyBytes_FromStringAndSize(NULL, room)
        writer_init(&w, PyBytes_AS_STRING(made), <size_t> room)
        if self.version >= THROTTLE_FIRST:
            write_i32(&w, 0)
        wire_put_length(&w, flexible, self.named_n)
        for i in range(self.named_n):
            write_bytes(&w, self.named[i].given, self.named[i].given_length)
            wire_put_length(&w, flexible, self.named[i].rows)
            end = row + self.named[i].rows
            while row < end:
                write_i32(&w, row.index)
                write_i16(&w, error)
                wire_put_tags(&w, flexible)
                row += 1
            wire_put_tags(&w, flexible)
        wire_put_tags(&w, flexible)
        return made[:<Py_ssize_t> writer_used(&w)]


def read_commit(int version, object body):
    """version: 2 to 10. body: the request's, anything with a buffer of bytes. A `Commit`, or None for what the codec has to look at."""
    cdef Commit commit
    if not VERSION_FIRST <= version <= VERSION_LAST:
        return None
    commit = Commit.__new__(Commit)
    PyObject_GetBuffer(body, &commit.body, PyBUF_SIMPLE)
    commit.held = True
    commit.version = version
    try:
        if not commit.read() or len({topic[:2] for topic in commit.topics}) < commit.named_n:
            return None
    except UnicodeDecodeError:
        return None
    return commit


def hold_commits(dict topics, object records) -> int:
    """Applies OffsetRecords with values to {topic: {partition: value}}; returns how many partitions were not there before."""
    cdef Py_ssize_t added = 0
    cdef dict partitions
    cdef str last = None
    for record in records:
        _, name, index, value = record
        if name is not last:
            last = name
            partitions = topics.get(name)
            if partitions is None:
                partitions = topics[name] = {}
        added += index not in partitions
        partitions[index] = value
    return added
