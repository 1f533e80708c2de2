"""See clientcolumn.pxd. What is taken:

    None                           nulls
    list, tuple of bytes or None   (also bytearray and memoryview, slower; and NumPy's object arrays)
    (data, offsets)                one buffer, and n + 1 offsets into it: int32 or int64 in any buffer
    a NumPy array, any buffer      rows of one width: one dimension of numbers, S or V; two dimensions of bytes
    an Arrow array                 through __arrow_c_array__: binary, string, large_*, *_view and fixed-size binary
    bytes                          the same value for every row (keys)
"""
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastlog.native.clientarrow cimport ArrowArray, ArrowArrayStream, ArrowSchema


cdef class Held:
    """A buffer that is held until this object goes."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, given, bint plain):
        self.held = False
        if plain:
            PyObject_GetBuffer(given, &self.view, PyBUF_SIMPLE)
        else:
            PyObject_GetBuffer(given, &self.view, PyBUF_STRIDES | PyBUF_FORMAT)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class ArrowColumn:
    """A column of Arrow data, as it lies in its array; `owner` keeps the array."""
    cdef ArrowSchema *schema
    cdef ArrowArray *array
    cdef object owner
    cdef int64_t at                 # rows that the arrays around it skip
    cdef int64_t n

    def __len__(self):
        return self.n


cdef class Values:
    def __dealloc__(self):
        free(self.pointers)
        free(self.widths)

    def __len__(self):
        return self.c.n

    def to_list(self) -> list:
        """The values as bytes; None for null."""
        cdef const uint8_t *p
        cdef int64_t i, n
        made = []
        for i in range(self.c.n):
            n = column_get(&self.c, i, &p)
            made.append(None if n < 0 else (<const char *> p)[:n] if n else b"")
        return made


cdef bint of_list(Values made, object given) except False:
    cdef Py_ssize_t n = len(given), i
    cdef const uint8_t **pointers = <const uint8_t **> malloc(max(n, 1) * sizeof(void *))
    cdef int64_t *widths = <int64_t *> malloc(max(n, 1) * sizeof(int64_t))
    cdef Held held
    made.pointers = pointers
    made.widths = widths
    if pointers == NULL or widths == NULL:
        raise MemoryError
    for i in range(n):
        item = given[i]
        if PyBytes_Check(item):
            pointers[i] = <const uint8_t *> PyBytes_AS_STRING(item)
            widths[i] = PyBytes_GET_SIZE(item)
        elif item is None:
            pointers[i] = NULL
            widths[i] = -1
        elif PyObject_CheckBuffer(item):
            held = Held(item, True)
            made.buffers.append(held)
            pointers[i] = <const uint8_t *> held.view.buf
            widths[i] = held.view.len
        else:
            raise TypeError(f"row {i}: expected bytes or None, not {type(item).__name__}; a serializer turns objects into bytes")
    made.c.kind = COLUMN_POINTERS
    made.c.pointers = pointers
    made.c.widths = widths
    made.c.n = n
    return True


cdef bint of_offsets(Values made, object data, object offsets) except False:
    cdef Held held, at
    if not PyObject_CheckBuffer(data) or not PyObject_CheckBuffer(offsets):
        raise TypeError(f"(data, offsets): expected a buffer and an array of int32 or int64, not {type(data).__name__} and "
                        f"{type(offsets).__name__}")
    held, at = Held(data, True), Held(offsets, False)
    cdef int64_t n, i, last
    if at.view.ndim != 1 or at.view.itemsize not in (4, 8) or not is_integer(at.view.format):
        raise TypeError("offsets: expected one dimension of int32 or int64")
    if at.view.strides != NULL and at.view.strides[0] != at.view.itemsize:
        raise TypeError("offsets: expected a contiguous array")
    n = at.view.len // at.view.itemsize - 1
    if n < 0:
        raise ValueError("offsets: expected one more than there are values")
    made.buffers += [held, at]
    made.c.base = <const uint8_t *> held.view.buf
    made.c.n = n
    made.c.kind = COLUMN_OFFSETS_32 if at.view.itemsize == 4 else COLUMN_OFFSETS_64
    made.c.offsets32 = <const int32_t *> at.view.buf
    made.c.offsets64 = <const int64_t *> at.view.buf
    last = 0
    for i in range(n + 1):
        if at.view.itemsize == 4:
            if made.c.offsets32[i] < last:
                raise ValueError(f"offsets: number {i} is less than the one before it")
            last = made.c.offsets32[i]
        else:
            if made.c.offsets64[i] < last:
                raise ValueError(f"offsets: number {i} is less than the one before it")
            last = made.c.offsets64[i]
    if last > held.view.len:
        raise ValueError(f"offsets: the last is {last}, but the buffer has {held.view.len} bytes")
    return True


cdef bint is_integer(const char *format) noexcept:
    cdef bytes text = b"B" if format == NULL else format
    return text.lstrip(b"@=<") in (b"i", b"l", b"q", b"n", b"I", b"L", b"Q")


cdef bint of_buffer(Values made, object given) except False:
    cdef Held held = Held(given, False)
    cdef bytes format = b"B" if held.view.format == NULL else held.view.format
    if held.view.ndim == 1:
        if format.lstrip(b"@=<>|").endswith((b"O", b"w")):
            raise TypeError(f"an array of format {format.decode()}: expected bytes, numbers, or an array of objects that are bytes")
        made.c.kind = COLUMN_TRIMMED if format.endswith(b"s") else COLUMN_FIXED
        made.c.width = held.view.itemsize
    elif held.view.ndim == 2 and held.view.itemsize == 1:
        if held.view.strides[1] != 1:
            raise TypeError("the bytes of a row must lie beside each other")
        made.c.kind = COLUMN_FIXED
        made.c.width = held.view.shape[1]
    else:
        raise TypeError(f"an array of {held.view.ndim} dimensions: expected one, or two of bytes")
    made.c.base = <const uint8_t *> held.view.buf
    made.c.stride = held.view.strides[0]
    made.c.n = held.view.shape[0]
    made.buffers.append(held)
    return True


cdef ArrowColumn imported(object given):
    """Asks for Arrow's C data interface."""
    cdef ArrowColumn made = ArrowColumn()
    schema, array = given.__arrow_c_array__()
    made.owner = (schema, array)
    made.schema = <ArrowSchema *> PyCapsule_GetPointer(schema, "arrow_schema")
    made.array = <ArrowArray *> PyCapsule_GetPointer(array, "arrow_array")
    made.at = 0
    made.n = made.array.length
    return made


cdef class Owned:
    """A schema, or an array, that is ours to release; kept by the columns that lie in it."""
    cdef ArrowSchema schema
    cdef ArrowArray array

    def __cinit__(self):
        memset(&self.schema, 0, sizeof(ArrowSchema))
        memset(&self.array, 0, sizeof(ArrowArray))

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)
        if self.schema.release != NULL:
            self.schema.release(&self.schema)


def arrow_chunks(given) -> list[ArrowColumn]:
    """The arrays of an Arrow stream (a table, a chunked array, a data frame)."""
    cdef ArrowArrayStream *stream
    cdef Owned schema = Owned(), array
    cdef ArrowColumn column
    capsule = given.__arrow_c_stream__()
    stream = <ArrowArrayStream *> PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.get_schema(stream, &schema.schema):
        raise ValueError("the Arrow stream has no schema")
    made = []
    while True:
        array = Owned()
        if stream.get_next(stream, &array.array):
            said = stream.get_last_error(stream)
            raise ValueError(f"the Arrow stream ended: {'unknown' if said == NULL else said.decode()}")
        if array.array.release == NULL:
            return made
        column = ArrowColumn()
        column.owner = (schema, array)
        column.schema = &schema.schema
        column.array = &array.array
        column.n = array.array.length
        made.append(column)


def arrow_array(given) -> ArrowColumn:
    """An Arrow array, or record batch."""
    return imported(given)


def arrow_fields(ArrowColumn whole) -> dict[str, ArrowColumn] | None:
    """The columns of a record batch (an array of structs) by name; None for an array of anything else."""
    cdef ArrowColumn part
    cdef int64_t i
    if bytes(whole.schema.format) != b"+s":
        return None
    made = {}
    for i in range(whole.schema.n_children):
        part = ArrowColumn()
        part.owner = whole
        part.schema = whole.schema.children[i]
        part.array = whole.array.children[i]
        part.at = whole.array.offset + whole.at
        part.n = whole.n
        made[part.schema.name.decode()] = part
    return made


def header_rows(ArrowColumn column) -> list:
    """The rows of a column of headers: a list (or map) of structs of a string and a binary each; None where there is none."""
    cdef ArrowArray *entries
    cdef ArrowSchema *inner
    cdef bytes format = column.schema.format
    cdef int64_t i, at = column.array.offset + column.at
    cdef const void *ends
    cdef ArrowColumn part
    if format not in (b"+l", b"+L", b"+m") or column.schema.n_children != 1 or column.schema.children[0].n_children != 2:
        raise TypeError("headers: expected an Arrow list of structs of name and value, or a map")
    inner = column.schema.children[0]
    entries = column.array.children[0]
    ends = column.array.buffers[1]
    pair = []
    for i in range(2):
        part = ArrowColumn()
        part.owner = column
        part.schema = inner.children[i]
        part.array = entries.children[i]
        part.at = entries.offset
        part.n = entries.length
        pair.append(values_of(part, -1).to_list())
    names, values = pair
    if format == b"+L":
        bounds = [(<const int64_t *> ends)[at + i] for i in range(column.n + 1)]
    else:
        bounds = [(<const int32_t *> ends)[at + i] for i in range(column.n + 1)]
    pairs = [(name.decode(), value) for name, value in zip(names, values)]
    return [pairs[bounds[i]:bounds[i + 1]] for i in range(column.n)]


cdef bint of_arrow(Values made, ArrowColumn column) except False:
    cdef bytes format = column.schema.format
    cdef ArrowArray *array = column.array
    cdef int64_t at = array.offset + column.at
    made.owner = column
    made.c.n = column.n
    if format == b"n":
        made.c.kind = COLUMN_NULL
        return True
    if array.null_count != 0 and array.buffers[0] != NULL:
        made.c.valid = <const uint8_t *> array.buffers[0]
        made.c.valid_at = at
    if format in (b"z", b"u"):
        made.c.kind = COLUMN_OFFSETS_32
        made.c.offsets32 = <const int32_t *> array.buffers[1] + at
        made.c.base = <const uint8_t *> array.buffers[2]
    elif format in (b"Z", b"U"):
        made.c.kind = COLUMN_OFFSETS_64
        made.c.offsets64 = <const int64_t *> array.buffers[1] + at
        made.c.base = <const uint8_t *> array.buffers[2]
    elif format in (b"vz", b"vu"):
        made.c.kind = COLUMN_VIEWS
        made.c.base = <const uint8_t *> array.buffers[1] + at * 16
        made.c.buffers = <const uint8_t **> (array.buffers + 2)
    elif format.startswith(b"w:"):
        made.c.kind = COLUMN_FIXED
        made.c.width = made.c.stride = int(format[2:])
        made.c.base = <const uint8_t *> array.buffers[1] + at * made.c.width
    else:
        raise TypeError(f"an Arrow column of type {format.decode()}: expected binary or string")
    if column.n == 0:
        made.c.kind = COLUMN_NULL
    return True


cdef Values values_of(object given, int64_t n):
    """`n`: how many rows there must be; -1 where the column itself says it. TypeError or ValueError for what is not such a column."""
    cdef Values made = Values.__new__(Values)
    memset(&made.c, 0, sizeof(Column))
    made.owner = given
    made.buffers = []
    if given is None:
        made.c.kind = COLUMN_NULL
        made.c.n = max(n, <int64_t> 0)
    elif isinstance(given, Values):
        return given
    elif PyBytes_Check(given):
        if n < 0:
            raise TypeError("values: bytes are one value; give a list of them, or (data, offsets)")
        made.c.kind = COLUMN_SAME
        made.c.base = <const uint8_t *> PyBytes_AS_STRING(given)
        made.c.width = PyBytes_GET_SIZE(given)
        made.c.n = n
    elif isinstance(given, list):
        made.owner = tuple(given)       # the caller's list may change while its values are read without the interpreter's lock
        of_list(made, made.owner)
    elif isinstance(given, tuple) and len(given) == 2 and not isinstance(given[1], (bytes, bytearray, type(None))):
        of_offsets(made, given[0], given[1])
    elif isinstance(given, tuple):
        of_list(made, given)
    elif isinstance(given, ArrowColumn):
        of_arrow(made, given)
    elif hasattr(given, "__arrow_c_array__"):
        of_arrow(made, imported(given))
    elif getattr(getattr(given, "dtype", None), "kind", "") == "O":
        made.owner = tuple(given.tolist())
        of_list(made, made.owner)
    elif PyObject_CheckBuffer(given):
        of_buffer(made, given)
    else:
        raise TypeError(f"{type(given).__name__} is no column: expected a list of bytes, (data, offsets), an array or an Arrow array")
    if n >= 0 and made.c.n != n:
        raise ValueError(f"a column of {made.c.n} rows beside one of {n}")
    return made


cdef Integers integers_of(object given, int64_t n, bint wide):
    """Timestamps (`wide`) or partitions, one for each of n rows, from a list, a buffer or an Arrow array. None gives None."""
    cdef Integers made
    cdef ArrowColumn column
    cdef Held held
    cdef bytes format
    cdef int64_t i
    if given is None:
        return None
    made = Integers.__new__(Integers)
    made.buffers = []
    if hasattr(given, "__arrow_c_array__"):
        given = imported(given)
    if isinstance(given, ArrowColumn):
        column = given
        format = column.schema.format
        if format not in ((b"l", b"tsm:UTC", b"tsm:") if wide else (b"i",)):
            raise TypeError(f"an Arrow column of type {format.decode()}: expected {'int64 or timestamp[ms]' if wide else 'int32'}")
        if column.array.null_count > 0:
            raise ValueError("nulls among timestamps or partitions")
        made.owner = column
        made.n = column.n
        made.p64 = <int64_t *> column.array.buffers[1] + column.array.offset + column.at if wide else NULL
        made.p32 = NULL if wide else <int32_t *> column.array.buffers[1] + column.array.offset + column.at
    else:
        if isinstance(given, (list, tuple)):
            import array

            try:
                given = array.array("q" if wide else "i", given)
            except (TypeError, OverflowError) as error:
                raise type(error)(f"{'timestamps' if wide else 'partitions'}: {error}") from None
        if not PyObject_CheckBuffer(given):
            raise TypeError(f"{'timestamps' if wide else 'partitions'}: expected a number, a list or an array, not {type(given).__name__}")
        held = Held(given, False)
        if held.view.ndim != 1 or held.view.itemsize != (8 if wide else 4) or held.view.strides[0] != held.view.itemsize \
                or not is_integer(held.view.format):
            raise TypeError(f"expected contiguous {'int64 milliseconds' if wide else 'int32 partitions'}")
        made.buffers.append(held)
        made.n = held.view.shape[0]
        made.p64 = <int64_t *> held.view.buf if wide else NULL
        made.p32 = NULL if wide else <int32_t *> held.view.buf
    if made.n != n:
        raise ValueError(f"a column of {made.n} rows beside one of {n}")
    if wide:
        for i in range(n):
            if made.p64[i] < 0:
                raise ValueError(f"row {i}: timestamp {made.p64[i]}: expected milliseconds since the epoch")
    return made


def column(given, n: int = -1) -> Values:
    """The column that `given` is taken for; see the module's docstring."""
    return values_of(given, n)
