"""See clientarrow.pxd. The C data and stream interfaces, and the PyCapsule interface over them (arrow.apache.org/docs/format)."""
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastlog.native.clientheaders cimport take_varint
from fastlog.native.clientread cimport Bytes, Chunk, Strings, chunk_ref, chunk_unref

cdef enum:
    ARROW_NULLABLE = 2


cdef void release_schema(ArrowSchema *schema) noexcept nogil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i].release != NULL:
            schema.children[i].release(schema.children[i])
        free(schema.children[i])
    free(schema.children)
    schema.release = NULL


cdef bint make_schema(ArrowSchema *schema, const char *format, const char *name, int64_t flags, int64_t children) noexcept nogil:
    cdef int64_t i
    memset(schema, 0, sizeof(ArrowSchema))
    schema.format = format
    schema.name = name
    schema.flags = flags
    schema.release = &release_schema
    if children:
        schema.children = <ArrowSchema **> calloc(children, sizeof(void *))
        if schema.children == NULL:
            return False
        for i in range(children):
            schema.children[i] = <ArrowSchema *> calloc(1, sizeof(ArrowSchema))
            if schema.children[i] == NULL:
                return False
            schema.n_children += 1
    return True


cdef bint fill_schema(ArrowSchema *s) noexcept nogil:
    """struct<partition, offset, timestamp, key, value, headers: list<struct<name, value>>>"""
    cdef ArrowSchema *entry
    if not (make_schema(s, b"+s", b"", 0, 6) and make_schema(s.children[0], b"i", b"partition", 0, 0)
            and make_schema(s.children[1], b"l", b"offset", 0, 0) and make_schema(s.children[2], b"tsm:UTC", b"timestamp", 0, 0)
            and make_schema(s.children[3], b"z", b"key", ARROW_NULLABLE, 0) and make_schema(s.children[4], b"z", b"value",
            ARROW_NULLABLE, 0)
            and make_schema(s.children[5], b"+l", b"headers", 0, 1)):
        return False
    entry = s.children[5].children[0]
    return (make_schema(entry, b"+s", b"item", 0, 2) and make_schema(entry.children[0], b"u", b"name", 0, 0)
            and make_schema(entry.children[1], b"z", b"value", ARROW_NULLABLE, 0))


cdef void free_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *> PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef object schema_capsule():
    cdef ArrowSchema *schema = <ArrowSchema *> calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError
    if not fill_schema(schema):
        if schema.release != NULL:
            schema.release(schema)
        free(schema)
        raise MemoryError
    return PyCapsule_New(schema, "arrow_schema", &free_schema_capsule)


cdef struct Kept:                       # what an exported array keeps
    Chunk *chunk
    void *owned[4]                      # malloc'ed buffers of its own


cdef void release_array(ArrowArray *array) noexcept nogil:
    cdef Kept *kept = <Kept *> array.private_data
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i].release != NULL:
            array.children[i].release(array.children[i])
        free(array.children[i])
    free(array.children)
    free(array.buffers)
    if kept != NULL:
        if kept.chunk != NULL:
            chunk_unref(kept.chunk)
        for i in range(4):
            free(kept.owned[i])
        free(kept)
    array.release = NULL


cdef Kept *make_array(ArrowArray *array, int64_t n, int64_t buffers, int64_t children) noexcept nogil:
    cdef int64_t i
    cdef Kept *kept = <Kept *> calloc(1, sizeof(Kept))
    memset(array, 0, sizeof(ArrowArray))
    array.length = n
    array.release = &release_array
    array.private_data = kept
    array.buffers = <const void **> calloc(max(buffers, <int64_t> 1), sizeof(void *))
    array.n_buffers = buffers
    if kept == NULL or array.buffers == NULL:
        return NULL
    if children:
        array.children = <ArrowArray **> calloc(children, sizeof(void *))
        if array.children == NULL:
            return NULL
        for i in range(children):
            array.children[i] = <ArrowArray *> calloc(1, sizeof(ArrowArray))
            if array.children[i] == NULL:
                return NULL
            array.n_children += 1
    return kept


cdef bint strings_array(ArrowArray *array, Chunk *chunk, Strings *s, int64_t first, int64_t n) noexcept nogil:
    """A binary column over the chunk's memory, its rows from `first` on."""
    cdef Kept *kept = make_array(array, n, 3, 0)
    cdef size_t wanted = <size_t> ((chunk.n + 7) // 8)
    cdef uint8_t *valid
    if kept == NULL:
        return False
    chunk_ref(chunk)
    kept.chunk = chunk
    array.offset = first
    array.buffers[1] = s.ends.p
    array.buffers[2] = s.data.p if s.data.p != NULL else s.ends.p
    if s.nulls:
        array.null_count = -1 if n != chunk.n else s.nulls
        if s.valid.used < wanted:           # rows behind the last null have no bits yet
            valid = <uint8_t *> malloc(wanted)
            if valid == NULL:
                return False
            memset(valid, 0xFF, wanted)
            memcpy(valid, s.valid.p, s.valid.used)
            kept.owned[0] = valid
            array.buffers[0] = valid
        else:
            array.buffers[0] = s.valid.p
    return True


cdef bint numbers_array(ArrowArray *array, Chunk *chunk, Bytes *numbers, int64_t first, int64_t n) noexcept nogil:
    cdef Kept *kept = make_array(array, n, 2, 0)
    if kept == NULL:
        return False
    chunk_ref(chunk)
    kept.chunk = chunk
    array.offset = first
    array.buffers[1] = numbers.p
    return True


cdef bint constant_array(ArrowArray *array, int32_t value, int64_t n) noexcept nogil:
    cdef Kept *kept = make_array(array, n, 2, 0)
    cdef int32_t *numbers
    cdef int64_t i
    if kept == NULL:
        return False
    numbers = <int32_t *> malloc(max(n, <int64_t> 1) * 4)
    if numbers == NULL:
        return False
    kept.owned[0] = numbers
    for i in range(n):
        numbers[i] = value
    array.buffers[1] = numbers
    return True


cdef bint headers_array(ArrowArray *array, Chunk *chunk, int64_t first, int64_t n) noexcept nogil:
    """list<struct<name, value>>, taken apart into memory of its own."""
    cdef Kept *kept = make_array(array, n, 2, 1)
    cdef Kept *names
    cdef Kept *values
    cdef ArrowArray *entry
    cdef int32_t *ends
    cdef int32_t *name_ends
    cdef int32_t *value_ends
    cdef uint8_t *name_data
    cdef uint8_t *value_data
    cdef uint8_t *valid
    cdef const uint8_t *p
    cdef const int32_t *raw = <const int32_t *> chunk.headers.ends.p
    cdef int64_t i, k, count, size, total = 0, nulls = 0
    cdef size_t bytes_ = <size_t> (raw[first + n] - raw[first])
    if kept == NULL:
        return False
    for i in range(first, first + n):
        if raw[i + 1] > raw[i]:
            p = chunk.headers.data.p + raw[i]
            total += take_varint(&p)
    ends = <int32_t *> malloc((n + 1) * 4)
    kept.owned[0] = ends
    array.buffers[1] = ends
    entry = array.children[0]
    if ends == NULL or make_array(entry, total, 1, 2) == NULL:
        return False
    names = make_array(entry.children[0], total, 3, 0)
    values = make_array(entry.children[1], total, 3, 0)
    if names == NULL or values == NULL:
        return False
    names.owned[0] = name_ends = <int32_t *> malloc((total + 1) * 4)
    names.owned[1] = name_data = <uint8_t *> malloc(bytes_ + 1)
    values.owned[0] = value_ends = <int32_t *> malloc((total + 1) * 4)
    values.owned[1] = value_data = <uint8_t *> malloc(bytes_ + 1)
    values.owned[2] = valid = <uint8_t *> calloc(total // 8 + 1, 1)
    if name_ends == NULL or name_data == NULL or value_ends == NULL or value_data == NULL or valid == NULL:
        return False
    ends[0] = name_ends[0] = value_ends[0] = 0
    k = 0
    for i in range(first, first + n):
        if raw[i + 1] > raw[i]:
            p = chunk.headers.data.p + raw[i]
            count = take_varint(&p)
            while count > 0:
                count -= 1
                size = take_varint(&p)
                memcpy(name_data + name_ends[k], p, size)
                name_ends[k + 1] = name_ends[k] + <int32_t> size
                p += size
                size = take_varint(&p)
                value_ends[k + 1] = value_ends[k]
                if size >= 0:
                    memcpy(value_data + value_ends[k], p, size)
                    value_ends[k + 1] += <int32_t> size
                    valid[k >> 3] |= <uint8_t> (1 << (k & 7))
                    p += size
                else:
                    nulls += 1
                k += 1
        ends[i - first + 1] = <int32_t> k
    entry.children[0].buffers[1] = name_ends
    entry.children[0].buffers[2] = name_data
    entry.children[1].buffers[0] = valid if nulls else NULL
    entry.children[1].null_count = nulls
    entry.children[1].buffers[1] = value_ends
    entry.children[1].buffers[2] = value_data
    return True


cdef bint export(Rows rows, ArrowArray *array) noexcept nogil:
    """Fills the array; False without memory, with nothing left behind."""
    cdef Chunk *c = rows.chunk
    if make_array(array, rows.n, 1, 6) == NULL or not (
        constant_array(array.children[0], c.number, rows.n) and numbers_array(array.children[1], c, &c.offsets, rows.first, rows.n)
        and numbers_array(array.children[2], c, &c.times, rows.first, rows.n)
        and strings_array(array.children[3], c, &c.keys, rows.first, rows.n)
        and strings_array(array.children[4], c, &c.values, rows.first, rows.n) and headers_array(array.children[5], c, rows.first, rows.n)
    ):
        if array.release != NULL:
            array.release(array)
        return False
    return True


cdef void free_array_capsule(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *> PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef object array_capsule(Rows rows):
    cdef ArrowArray *array = <ArrowArray *> calloc(1, sizeof(ArrowArray))
    if array == NULL or not export(rows, array):
        free(array)
        raise MemoryError
    return PyCapsule_New(array, "arrow_array", &free_array_capsule)


cdef struct Stream:
    int64_t room
    int64_t n
    int64_t at
    ArrowArray *arrays


cdef int stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept nogil:
    if fill_schema(out):
        return 0
    if out.release != NULL:
        out.release(out)
    return ENOMEM


cdef int stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept nogil:
    cdef Stream *s = <Stream *> stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    if s.at < s.n:                      # moved: the C data interface allows that
        out[0] = s.arrays[s.at]
        s.arrays[s.at].release = NULL
        s.at += 1
    return 0


cdef const char *stream_error(ArrowArrayStream *stream) noexcept nogil:
    return NULL


cdef void release_stream(ArrowArrayStream *stream) noexcept nogil:
    cdef Stream *s = <Stream *> stream.private_data
    cdef int64_t i
    if s != NULL:
        for i in range(s.n):
            if s.arrays[i].release != NULL:
                s.arrays[i].release(s.arrays + i)
        free(s.arrays)
        free(s)
    stream.release = NULL


cdef void free_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *> PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef object stream_capsule(int64_t room):
    cdef ArrowArrayStream *stream = <ArrowArrayStream *> calloc(1, sizeof(ArrowArrayStream))
    cdef Stream *s = <Stream *> calloc(1, sizeof(Stream))
    if stream == NULL or s == NULL:
        free(stream)
        free(s)
        raise MemoryError
    stream.get_schema = &stream_schema
    stream.get_next = &stream_next
    stream.get_last_error = &stream_error
    stream.release = &release_stream
    stream.private_data = s
    capsule = PyCapsule_New(stream, "arrow_array_stream", &free_stream_capsule)
    s.arrays = <ArrowArray *> calloc(<size_t> max(room, <int64_t> 1), sizeof(ArrowArray))
    if s.arrays == NULL:
        raise MemoryError
    s.room = room
    return capsule


cdef bint stream_add(object capsule, Rows rows) except False:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *> PyCapsule_GetPointer(capsule, "arrow_array_stream")
    cdef Stream *s = <Stream *> stream.private_data
    if s.n == s.room or not export(rows, s.arrays + s.n):
        raise MemoryError
    s.n += 1
    return True
