"""The line of disk reads in front of a device: so many bytes of them are under way at once, the rest waits its turn.

A device answers in the order it is asked in, or nearly: a producer's durable write waits for the reads that were handed over before it.
A reader that is far behind asks for 10 MiB or more at once, which took a write's time from 0.2 to 8 ms; yet a disk gives all that it has
with one or two MiB asked for. So a read is begun while fewer than LOADING_BYTES are under way, a write waits for less than that and one
more (LOADING_BYTES + LOADING_PIECE), and what is left waits here, where it can also be given up.

Whoever reads puts a *chain*: what is wanted, in pieces of at most LOADING_PIECE, in order. Chains take turns, a piece each, so that one
that asks for little waits for at most a piece of each other, however much those want. A chain that goes on where another ends becomes a
part of it: a reader that asks again before all came stays one reader.

The bound is one of a store (a shard) and a device; data directories on one device share it.
"""
from libc.stdint cimport int64_t, uint64_t
from fastlog.native.store cimport LoadLine, Loading, StoreState

cdef extern from "<errno.h>" nogil:
    int ECANCELED

cdef enum:
    LOADING_BYTES = 1048576
    LOADING_PIECE = 524288

# The line of a device. There are LOADLINES of them: devices past that many share one.
cdef LoadLine *loadline_of(StoreState *s, uint64_t device) noexcept nogil
# Puts a chain of pieces, linked by `following`, into the line; the first may begin in here. Of each piece everything but `op`, `line`,
# `next` and `last` is set, and stays as it is until its `ended` was called: once, from inside ring_wait or `loadline_leave`, with the bytes
# read or -errno. `ended` may free the piece and may put others.
cdef void loadline_put(LoadLine *line, Loading *chain) noexcept nogil
# Ends the pieces of an owner that have not begun, with -ECANCELED.
cdef void loadline_leave(LoadLine *line, const void *owner) noexcept nogil
# Frees the pieces that have not begun, as they are: nothing is called.
cdef void loadlines_free(StoreState *s) noexcept nogil
