"""See mail.pxd."""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition) noexcept

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t fl_mail_load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void fl_mail_store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    uint64_t load "fl_mail_load"(const uint64_t *p) noexcept nogil
    void store "fl_mail_store"(uint64_t *p, uint64_t v) noexcept nogil


cdef int mail_init(MailBox *box) noexcept nogil:
    memset(box, 0, sizeof(MailBox))
    return 0


cdef void mail_free(MailBox *box) noexcept nogil:
    free(box.spill)
    box.spill = NULL


cdef inline bint put(MailBox *box, uint32_t kind, uint32_t number, void *what) noexcept nogil:
    cdef MailItem *item
    if box.tail - box.head_seen == MAIL_SIZE:
        box.head_seen = load(&box.head)
        if box.tail - box.head_seen == MAIL_SIZE:
            return False
    item = &box.items[box.tail & (MAIL_SIZE - 1)]
    item.kind = kind
    item.number = number
    item.what = what
    store(&box.tail, box.tail + 1)
    return True


cdef void mail_send(MailBox *box, uint32_t kind, uint32_t number, void *what) noexcept nogil:
    cdef MailItem *item
    cdef MailItem *grown
    cdef uint64_t capacity
    box.sent += 1
    if not box.spill_n and put(box, kind, number, what):
        return
    if box.spill_first + box.spill_n == box.spill_capacity:
        if box.spill_first > box.spill_capacity // 2:
            memmove(box.spill, box.spill + box.spill_first, box.spill_n * sizeof(MailItem))
            box.spill_first = 0
        else:
            capacity = box.spill_capacity * 2 if box.spill_capacity else 256
            grown = <MailItem *> realloc(box.spill, capacity * sizeof(MailItem))
            FL_ASSERT(grown != NULL)
            box.spill = grown
            box.spill_capacity = capacity
    item = &box.spill[box.spill_first + box.spill_n]
    item.kind = kind
    item.number = number
    item.what = what
    box.spill_n += 1


cdef bint mail_flush(MailBox *box) noexcept nogil:
    cdef MailItem *item
    while box.spill_n:
        item = &box.spill[box.spill_first]
        if not put(box, item.kind, item.number, item.what):
            return True
        box.spill_first += 1
        box.spill_n -= 1
    box.spill_first = 0
    return False


cdef bint mail_take(MailBox *box, MailItem *out) noexcept nogil:
    if load(&box.tail) == box.head:
        return False
    out[0] = box.items[box.head & (MAIL_SIZE - 1)]
    store(&box.head, box.head + 1)
    return True


cdef bint mail_empty(MailBox *box) noexcept nogil:
    return load(&box.tail) == load(&box.head)
