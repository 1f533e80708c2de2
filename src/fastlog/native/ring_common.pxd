"""What the ring's front and its two engines share: kinds and states of an Op, lists of Ops, and the wake-up.

An engine is a room with the functions open, start, close, submit, cancel, wait and stats; the front fills an Op's fields and hands it
over. An Op is on at most one list at a time.
"""
from libc.stdint cimport uint32_t, uint64_t
from fastlog.native.ring cimport Op

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition)

cdef extern from "ring_wake.h" nogil:
    ctypedef struct Wake "struct fl_wake":
        int fd
    void wake_up "fl_wake_up"(Wake *w)
    bint wake_may_sleep "fl_wake_may_sleep"(Wake *w)
    bint wake_awake "fl_wake_awake"(Wake *w)

cdef enum OpKind:
    OP_ACCEPT = 1
    OP_RECV = 2
    OP_RECV_ANY = 3
    OP_SENDMSG = 4
    OP_WRITE = 5
    OP_READ = 6
    OP_FDATASYNC = 7

cdef enum OpState:                  # bits of Op.state
    STATE_ACTIVE = 1                # submitted, done not yet called for the last time
    STATE_LISTED = 2                # on one of the engine's lists
    STATE_CANCEL = 4                # asked to end
    STATE_DRAINED = 8               # survives `done`: the last receive took all there was, so the next one may as well poll first
    STATE_POLL = 16                 # io_uring: poll first (accept: one shot); epoll: parked at its descriptor, or taken by a thread
    STATE_THREAD = 32               # file operation: io_uring: must not be tried in line; epoll: given to the threads

cdef enum:
    RUN_MAX = 512                   # completions that one ring_wait runs before its caller gets its turn

cdef struct OpList:
    Op *first
    Op *last
    uint64_t count


cdef inline void list_append(OpList *list, Op *op) noexcept nogil:
    op.next = NULL
    op.prev = list.last
    if list.last != NULL:
        list.last.next = op
    else:
        list.first = op
    list.last = op
    list.count += 1
    op.state |= STATE_LISTED


cdef inline void list_remove(OpList *list, Op *op) noexcept nogil:
    if op.prev != NULL:
        op.prev.next = op.next
    else:
        list.first = op.next
    if op.next != NULL:
        op.next.prev = op.prev
    else:
        list.last = op.prev
    list.count -= 1
    op.state &= ~STATE_LISTED


cdef inline Op *list_pop(OpList *list) noexcept nogil:
    cdef Op *op = list.first
    if op != NULL:
        list_remove(list, op)
    return op


cdef inline void op_finish(Op *op, int res, uint32_t flags) noexcept nogil:
    """Calls done. Without OP_MORE the Op is its owner's again from here on, and may be gone afterwards."""
    op.res = res
    op.flags = flags
    if not flags:
        op.state &= STATE_DRAINED
    op.done(op)


cdef inline void note_drained(Op *op, bint drained) noexcept nogil:
    if drained:
        op.state |= STATE_DRAINED
    else:
        op.state &= ~STATE_DRAINED
