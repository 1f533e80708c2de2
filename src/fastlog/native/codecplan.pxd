"""The tables of a message in one version, which decoding and encoding walk: `Layout`s (structs) and their `Op`s (fields)."""
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t

cdef enum:
    MAX_DEPTH = 16          # structs within structs; Kafka's deepest message has 5

cdef enum Kind:
    BOOL
    INT8
    INT16
    UINT16
    INT32
    UINT32
    INT64
    FLOAT64
    UUID_
    STRING
    BYTES
    STRUCT

ctypedef struct Op:
    Kind kind               # of the field, or of an array's elements
    bint array
    bint nullable
    bint compact            # lengths are unsigned varints of one more than the length
    bint tagged
    int32_t tag
    int32_t layout          # of a struct: index among layouts; else -1
    int64_t least           # bytes that the value, or an array's element, takes at the least
    PyObject *name          # borrowed, as all objects here: `keep` owns them
    PyObject *default

ctypedef struct Layout:
    int32_t first           # its untagged fields: ops[first : first + count]
    int32_t count
    int32_t tagged          # and, behind them, its tagged fields in the order of their tags
    bint flexible
    PyObject *defaults      # dict of all fields, in order: what decoding starts from
    PyObject *shared        # list of (name, default) that messages must not share; NULL if none
    PyObject *known         # frozenset of the names that this version has
    PyObject *absent        # dict of those that it lacks: name -> (default, ignorable)

ctypedef struct Frame:
    const Op *op            # the field entered
    Py_ssize_t index        # the array's element, or -1

ctypedef struct Trail:
    int depth
    Frame frames[MAX_DEPTH]


cdef class Tables:
    """Made once from a plan (codec.pyi) and not changed, so any thread may use it."""

    cdef str name               # of the message, for errors
    cdef Op *ops
    cdef Layout *layouts
    cdef int32_t root
    cdef list keep              # owns every object that the tables point to


# The field's name with all it lies in; op NULL: what was entered last.
cdef str path_of(const Trail *trail, const Op *op)


cdef inline void enter(Trail *trail, const Op *op, Py_ssize_t index) noexcept:
    trail.frames[trail.depth].op = op
    trail.frames[trail.depth].index = index
    trail.depth += 1
