"""Taking appends into a log: producer checks, offsets, the copy into chunks, the index; or parking them, in order, until there is room."""
from fastlog.native.arena cimport Chunk
from fastlog.native.log cimport Append
from fastlog.native.store cimport LogState, StoreState

cdef void accept_append(LogState *log, Append *a) noexcept nogil
# Takes parked appends again, as many as can be.
cdef void accept_parked(LogState *log) noexcept nogil
# Lets logs that wait for chunks try again, in the order in which they came.
cdef void accept_chunk_line(StoreState *s) noexcept nogil
# Takes a log out of that line.
cdef void leave_chunk_line(LogState *log) noexcept nogil
# What the arena calls before it evicts a log's newest chunk: the last partial block is kept aside.
cdef void tail_evicting(Chunk *c) noexcept nogil
