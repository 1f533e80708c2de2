"""Disk reads in turns. See loadline.pxd."""
from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport free
from fastlog.native.ring cimport Op, ring_readv
from fastlog.native.store cimport LOADLINES, LoadLine, Loading, StoreState

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)


cdef LoadLine *loadline_of(StoreState *s, uint64_t device) noexcept nogil:
    cdef LoadLine *line
    cdef int32_t i
    for i in range(LOADLINES):
        line = &s.lines[i]
        if line.store == NULL:
            line.store = s
            line.device = device
        if line.device == device:
            return line
    return &s.lines[device % LOADLINES]


cdef void append(LoadLine *line, Loading *chain) noexcept nogil:
    chain.next = NULL
    if line.last != NULL:
        line.last.next = chain
    else:
        line.first = chain
    line.last = chain


cdef void step(LoadLine *line) noexcept nogil:
    """Begins what may begin: of the chain whose turn it is a piece, then the chain goes to the end of the line."""
    cdef Loading *piece
    while line.first != NULL and line.under_way < LOADING_BYTES:
        piece = line.first
        line.first = piece.next
        if line.first == NULL:
            line.last = NULL
        if piece.following != NULL:
            piece.following.last = piece.last
            append(line, piece.following)
        line.under_way += piece.length
        piece.op.done = done
        ring_readv(line.store.config.ring, &piece.op, piece.fd, piece.iov, piece.n, piece.from_)


cdef void done(Op *op) noexcept nogil:
    cdef Loading *piece = <Loading *> op
    cdef LoadLine *line = piece.line
    line.under_way -= piece.length
    step(line)
    piece.ended(piece, op.res)


cdef void loadline_put(LoadLine *line, Loading *chain) noexcept nogil:
    cdef Loading *before = line.first
    cdef Loading *last = chain
    while True:
        FL_ASSERT(last.length <= LOADING_PIECE)
        last.line = line
        if last.following == NULL:
            break
        last = last.following
    chain.last = last
    while before != NULL:
        if before.last.fd == chain.fd and before.last.from_ + before.last.length == chain.from_:
            before.last.following = chain
            before.last = last
            return
        before = before.next
    append(line, chain)
    step(line)


cdef void loadline_leave(LoadLine *line, const void *owner) noexcept nogil:
    cdef Loading *chain = line.first
    cdef Loading *following
    cdef Loading *left = NULL
    line.first = NULL
    line.last = NULL
    while chain != NULL:                        # a chain is a reader's, so all of it is one owner's
        following = chain.next
        if chain.owner == owner:
            chain.next = left
            left = chain
        else:
            append(line, chain)
        chain = following
    while left != NULL:
        chain = left
        left = left.next
        while chain != NULL:
            following = chain.following
            chain.ended(chain, -ECANCELED)
            chain = following


cdef void loadlines_free(StoreState *s) noexcept nogil:
    cdef Loading *chain
    cdef Loading *piece
    cdef int32_t i
    for i in range(LOADLINES):
        while s.lines[i].first != NULL:
            chain = s.lines[i].first
            s.lines[i].first = chain.next
            while chain != NULL:
                piece = chain
                chain = chain.following
                free(piece)
