"""Mail between threads: a bounded single-producer single-consumer ring of small items, with a spill of the sender's behind it.

A MailBox carries items from one thread to one other. Sending never waits: what finds the ring full is kept, in order, in the
sender's spill and moves over on the sender's next `mail_flush`. The spill is bounded by what the sender can have asked for:
every item stands for a request (or its answer), and those are bounded where they are taken in. So no shard ever waits for
another, and an answer always finds room.
"""
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    MAIL_SIZE = 1024                # items in the ring; a power of two

cdef struct MailItem:
    uint32_t kind
    uint32_t number
    void *what

cdef struct MailBox:
    # the consumer's line
    uint64_t head
    uint64_t _pad_head[7]
    # the producer's line
    uint64_t tail
    uint64_t head_seen
    MailItem *spill
    uint64_t spill_first
    uint64_t spill_n
    uint64_t spill_capacity
    uint64_t sent
    uint64_t _pad_tail
    MailItem items[1024]

cdef int mail_init(MailBox *box) noexcept nogil
cdef void mail_free(MailBox *box) noexcept nogil
cdef void mail_send(MailBox *box, uint32_t kind, uint32_t number, void *what) noexcept nogil    # producer; aborts without memory
cdef bint mail_take(MailBox *box, MailItem *out) noexcept nogil                                 # consumer; False when empty
cdef bint mail_flush(MailBox *box) noexcept nogil                                               # producer; True: some still wait
cdef bint mail_empty(MailBox *box) noexcept nogil                                               # any thread's view of the ring
