"""Record batches as Arrow's record batches, for whoever knows the PyCapsule interface; nothing is copied but headers and validity bits.

Columns: partition, offset, timestamp, key, value, headers. What is exported keeps its chunk alive.
"""
from libc.stdint cimport int64_t
from fastlog.native.clientread cimport Chunk

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

# A chunk's rows: from `first` on, n of them.
cdef struct Rows:
    Chunk *chunk
    int64_t first
    int64_t n

# Capsules: "arrow_schema", "arrow_array", "arrow_array_stream". MemoryError.
cdef object schema_capsule()
cdef object array_capsule(Rows rows)
cdef object stream_capsule(int64_t room)
# The next batch of a stream that was made with room for it. MemoryError.
cdef bint stream_add(object capsule, Rows rows) except False
