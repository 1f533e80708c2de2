"""See clientrecords.pxd. Arrow: the C data and stream interfaces, and the PyCapsule interface over them (arrow.apache.org/docs/format)."""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastlog.native.clientheaders cimport decode_headers, take_varint
from fastlog.native.clientread cimport Bytes, Chunk, Strings, chunk_ref, chunk_unref

from fastlog.native.clientheaders import encode_headers

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    struct ArrowSchema {
        const char *format; const char *name; const char *metadata; int64_t flags; int64_t n_children;
        struct ArrowSchema **children; struct ArrowSchema *dictionary; void (*release)(struct ArrowSchema *); void *private_data;
    };
    struct ArrowArray {
        int64_t length; int64_t null_count; int64_t offset; int64_t n_buffers; int64_t n_children; const void **buffers;
        struct ArrowArray **children; struct ArrowArray *dictionary; void (*release)(struct ArrowArray *); void *private_data;
    };
    struct ArrowArrayStream {
        int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *); int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
        const char *(*get_last_error)(struct ArrowArrayStream *); void (*release)(struct ArrowArrayStream *); void *private_data;
    };
    """
    ctypedef struct ArrowSchema "struct ArrowSchema":
        const char *format
        const char *name
        const char *metadata
        int64_t flags
        int64_t n_children
        ArrowSchema **children
        void (*release)(ArrowSchema *) noexcept nogil
        void *private_data
    ctypedef struct ArrowArray "struct ArrowArray":
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data
    ctypedef struct ArrowArrayStream "struct ArrowArrayStream":
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
        void (*release)(ArrowArrayStream *) noexcept nogil
        void *private_data

cdef enum:
    ARROW_NULLABLE = 2


@cython.final
@cython.freelist(1024)
cdef class Record:
    """One record. `timestamp`: milliseconds since the epoch. `key` and `value`: bytes or None, or what a deserializer made of them."""
    cdef readonly str topic
    cdef readonly int partition
    cdef readonly int64_t offset
    cdef readonly int64_t timestamp
    cdef readonly object key
    cdef readonly object value
    cdef bytes raw_headers
    cdef readonly bint append_time      # the timestamp is the broker's

    def __init__(self, topic, partition, offset, timestamp, key, value, headers=()):
        """For tests of what handles records; those of a consumer are made otherwise."""
        self.topic, self.partition, self.offset, self.timestamp = topic, partition, offset, timestamp
        self.key, self.value = key, value
        self.raw_headers = encode_headers(headers)

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """[(name, value), ...]; names that are not UTF-8 have surrogates (PEP 383)."""
        return decode_headers(self.raw_headers)

    @property
    def timestamp_type(self) -> str:
        """create or append."""
        return "append" if self.append_time else "create"

    def __repr__(self) -> str:
        return f"Record(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, key={self.key!r}, value={self.value!r})"


@cython.final
cdef class Column:
    """Memory of a batch, read-only, for the buffer protocol: `memoryview(column)`, `numpy.asarray(column)`."""
    cdef Chunk *chunk
    cdef void *p
    cdef Py_ssize_t n
    cdef Py_ssize_t width
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]
    cdef const char *format

    def __dealloc__(self):
        if self.chunk != NULL:
            chunk_unref(self.chunk)

    def __len__(self):
        return self.n

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.p, self.n * self.width, 1, flags)
        self.shape[0] = self.n
        self.strides[0] = self.width
        view.itemsize = self.width
        view.ndim = 1
        view.format = <char *> self.format
        view.shape = self.shape
        view.strides = self.strides


cdef object column_of(Chunk *chunk, void *p, Py_ssize_t n, Py_ssize_t width, const char *format):
    cdef Column made = Column.__new__(Column)
    chunk_ref(chunk)
    made.chunk = chunk
    made.p = p if p != NULL else <void *> <char *> EMPTY
    made.n = n
    made.width = width
    made.format = format
    return memoryview(made)


cdef bytes EMPTY = b"\0" * 16


cdef RecordBatch batch_of(Chunk *chunk, str topic, object key_deserializer, object value_deserializer):
    cdef RecordBatch made = RecordBatch.__new__(RecordBatch)
    made.chunk = chunk
    made.topic = topic
    made.first = 0
    made.n = chunk.n
    made.key_deserializer = key_deserializer
    made.value_deserializer = value_deserializer
    return made


cdef inline object cell(Strings *s, int64_t i):
    """Row i; None for null."""
    cdef const int32_t *ends = <const int32_t *> s.ends.p
    if s.nulls and s.valid.used > <size_t> (i >> 3) and not (s.valid.p[i >> 3] >> (i & 7)) & 1:
        return None
    return PyBytes_FromStringAndSize(<char *> s.data.p + ends[i] if s.data.p != NULL else NULL, ends[i + 1] - ends[i])


@cython.final
cdef class RecordBatch:
    """Records of one partition, in order, as columns. Nothing is copied to take them: views keep the batch's memory alive.

    It is an Arrow record batch for whoever knows the PyCapsule interface (`pyarrow.record_batch(batch)`, `polars.DataFrame(batch)`,
    DuckDB), with
    the columns partition, offset, timestamp, key, value and headers. Deserializers apply to records only, not to columns.
    """

    def __dealloc__(self):
        if self.chunk != NULL:
            chunk_unref(self.chunk)

    @property
    def partition(self) -> int:
        return self.chunk.number

    @property
    def offsets(self) -> memoryview:
        """int64"""
        return column_of(self.chunk, <int64_t *> self.chunk.offsets.p + self.first, self.n, 8, b"q")

    @property
    def timestamps(self) -> memoryview:
        """int64, milliseconds since the epoch"""
        return column_of(self.chunk, <int64_t *> self.chunk.times.p + self.first, self.n, 8, b"q")

    cdef tuple strings(self, Strings *s):
        return (column_of(self.chunk, s.data.p, <Py_ssize_t> s.data.used, 1, b"B"),
                column_of(self.chunk, <int32_t *> s.ends.p + self.first, self.n + 1, 4, b"i"))

    @property
    def values(self) -> tuple[memoryview, memoryview]:
        """(data, offsets): value i is data[offsets[i]:offsets[i + 1]]; offsets are int32. A null is empty: see `value_nulls`."""
        return self.strings(&self.chunk.values)

    @property
    def keys(self) -> tuple[memoryview, memoryview]:
        """As `values`."""
        return self.strings(&self.chunk.keys)

    cdef object null_rows(self, Strings *s):
        cdef int64_t i
        if not s.nulls:
            return []
        return [i - self.first for i in range(self.first, self.first + self.n)
                if s.valid.used > <size_t> (i >> 3) and not (s.valid.p[i >> 3] >> (i & 7)) & 1]

    @property
    def value_nulls(self) -> list[int]:
        """The rows whose value is null."""
        return self.null_rows(&self.chunk.values)

    @property
    def key_nulls(self) -> list[int]:
        return self.null_rows(&self.chunk.keys)

    @property
    def next_offset(self) -> int:
        """Where to go on reading after this batch."""
        if self.first + self.n == self.chunk.n:
            return self.chunk.next_offset
        return (<int64_t *> self.chunk.offsets.p)[self.first + self.n]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        cdef const int32_t *k = <const int32_t *> self.chunk.keys.ends.p
        cdef const int32_t *v = <const int32_t *> self.chunk.values.ends.p
        return k[self.first + self.n] - k[self.first] + v[self.first + self.n] - v[self.first]

    def __len__(self) -> int:
        return self.n

    cdef object record(self, int64_t i):
        cdef Record made = Record.__new__(Record)
        i += self.first
        made.topic = self.topic
        made.partition = self.chunk.number
        made.offset = (<int64_t *> self.chunk.offsets.p)[i]
        made.timestamp = (<int64_t *> self.chunk.times.p)[i]
        made.append_time = self.chunk.append_times
        made.key = cell(&self.chunk.keys, i)
        made.value = cell(&self.chunk.values, i)
        if self.chunk.has_headers:
            made.raw_headers = cell(&self.chunk.headers, i)
        if self.key_deserializer is not None and made.key is not None:
            made.key = self.key_deserializer(made.key)
        if self.value_deserializer is not None and made.value is not None:
            made.value = self.value_deserializer(made.value)
        return made

    def __getitem__(self, i):
        """A Record, or for a slice (step 1) a batch of its own over the same memory."""
        cdef RecordBatch part
        if isinstance(i, slice):
            start, stop, step = i.indices(self.n)
            if step != 1:
                raise ValueError("a batch's slice has no step")
            part = RecordBatch.__new__(RecordBatch)
            chunk_ref(self.chunk)
            part.chunk = self.chunk
            part.topic = self.topic
            part.key_deserializer = self.key_deserializer
            part.value_deserializer = self.value_deserializer
            part.first = self.first + <int64_t> start
            part.n = max(<int64_t> 0, <int64_t> stop - <int64_t> start)
            return part
        if i < 0:
            i += self.n
        if not 0 <= i < self.n:
            raise IndexError(i)
        return self.record(i)

    def __iter__(self):
        cdef int64_t i
        for i in range(self.n):
            yield self.record(i)

    def value_list(self) -> list[bytes | None]:
        """All values as bytes: faster than by records where nothing else is wanted."""
        cdef int64_t i
        return [cell(&self.chunk.values, i) for i in range(self.first, self.first + self.n)]

    def to_numpy(self) -> dict:
        """NumPy arrays over the batch's memory: offsets, timestamps (datetime64[ms]), value_data, value_offsets, key_data, key_offsets."""
        import numpy

        values, keys = self.values, self.keys
        return {
            "offsets": numpy.asarray(self.offsets), "timestamps": numpy.asarray(self.timestamps).view("datetime64[ms]"),
            "value_data": numpy.asarray(values[0]), "value_offsets": numpy.asarray(values[1]),
            "key_data": numpy.asarray(keys[0]), "key_offsets": numpy.asarray(keys[1]),
        }

    def to_arrow(self):
        """A pyarrow.RecordBatch over the batch's memory; needs pyarrow."""
        import pyarrow

        return pyarrow.record_batch(self)

    def __arrow_c_schema__(self):
        return schema_capsule()

    def __arrow_c_array__(self, requested_schema=None):
        cdef ArrowArray *array = <ArrowArray *> calloc(1, sizeof(ArrowArray))
        if array == NULL or not export(self, array):
            free(array)
            raise MemoryError
        return schema_capsule(), PyCapsule_New(array, "arrow_array", &free_array_capsule)

    def __arrow_c_stream__(self, requested_schema=None):
        return stream_of([self])

    def __repr__(self) -> str:
        return f"RecordBatch(topic={self.topic!r}, partition={self.chunk.number}, records={self.n})"


class RecordBatches:
    """A sequence of RecordBatch that is an Arrow stream: `polars.DataFrame(batches)`, `pyarrow.table(batches)`.

    No list and no registered Sequence: both of those look at these before they look for the stream, and take the items for rows.
    """

    def __init__(self, batches=()):
        self._batches = list(batches)

    def append(self, batch):
        """Adds one at the end."""
        self._batches.append(batch)

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, at):
        return self._batches[at]

    def __iter__(self):
        return iter(self._batches)

    def __repr__(self):
        return f"RecordBatches({self._batches!r})"

    def __arrow_c_stream__(self, requested_schema=None):
        return stream_of(self)


# ---- Arrow -----------------------------------------------------------------------------------------------------------------------

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


cdef bint export(RecordBatch batch, ArrowArray *array):
    """Fills the array; False without memory, with nothing left behind."""
    cdef Chunk *c = batch.chunk
    cdef int64_t first = batch.first, n = batch.n
    if make_array(array, n, 1, 6) == NULL or not (
        constant_array(array.children[0], c.number, n) and numbers_array(array.children[1], c, &c.offsets, first, n)
        and numbers_array(array.children[2], c, &c.times, first, n) and strings_array(array.children[3], c, &c.keys, first, n)
        and strings_array(array.children[4], c, &c.values, first, n) and headers_array(array.children[5], c, first, n)
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


cdef struct Stream:
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


cdef object stream_of(batches):
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
    s.arrays = <ArrowArray *> calloc(max(len(batches), 1), sizeof(ArrowArray))
    if s.arrays == NULL:
        raise MemoryError
    for batch in batches:
        if not export(batch, s.arrays + s.n):
            raise MemoryError
        s.n += 1
    return capsule
