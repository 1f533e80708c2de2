"""See clientrecords.pxd."""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t

from fastlog.native.clientarrow cimport Rows, array_capsule, schema_capsule, stream_add, stream_capsule
from fastlog.native.clientheaders cimport decode_headers
from fastlog.native.clientread cimport Chunk, Strings, chunk_ref, chunk_unref

from fastlog.native.clientheaders import encode_headers


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
        return schema_capsule(), array_capsule(Rows(self.chunk, self.first, self.n))

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


cdef object stream_of(batches):
    cdef RecordBatch batch
    capsule = stream_capsule(len(batches))
    for batch in batches:
        stream_add(capsule, Rows(batch.chunk, batch.first, batch.n))
    return capsule
