"""See clientlink.pxd."""
from libc.errno cimport EAGAIN, EBADMSG, EINTR, ENOMEM, EPIPE, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove, memset

from fastlog.native.bytes cimport get32

import os

cdef extern from "<sys/socket.h>" nogil:
    ctypedef struct msghdr "struct msghdr":
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recv(int fd, void *buffer, size_t n, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT

cdef enum:
    PIECES_PER_CALL = 1024          # IOV_MAX
    INBOX_MIN = 65536
    RECEIVE_MAX = 1 << 20           # at a time, so that one broker can't keep the others waiting


def _forked() -> None:
    global forks
    forks += 1


os.register_at_fork(after_in_child=_forked)


cdef int link_open(Link *link, int fd, int32_t node, int epoll, size_t frame_max) noexcept nogil:
    memset(link, 0, sizeof(Link))
    link.fd = fd
    link.node = node
    link.epoll = epoll
    link.frame_max = frame_max
    link.inbox = <uint8_t *> malloc(INBOX_MIN)
    if link.inbox == NULL:
        return -ENOMEM
    link.inbox_capacity = INBOX_MIN
    link.heard_us = clock_us(CLOCK_MONOTONIC)
    if epoll_set(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, link) < 0:
        return -errno
    return 0


cdef void link_close(Link *link) noexcept nogil:
    if link.fd >= 0:
        epoll_set(link.epoll, EPOLL_CTL_DEL, link.fd, 0, NULL)
        close(link.fd)
    free(link.pieces)
    free(link.inbox)
    memset(link, 0, sizeof(Link))
    link.fd = -1


cdef int link_push(Link *link, const void *p, size_t n) noexcept nogil:
    cdef iovec *last
    cdef iovec *grown
    if n == 0:
        return 0
    link.queued += n
    if link.pieces_n > link.pieces_first:
        last = link.pieces + link.pieces_n - 1
        if <uint8_t *> last.iov_base + last.iov_len == <const uint8_t *> p:
            last.iov_len += n
            return 0
    if link.pieces_n == link.pieces_capacity:
        if link.pieces_first > link.pieces_capacity // 2:
            memmove(link.pieces, link.pieces + link.pieces_first, (link.pieces_n - link.pieces_first) * sizeof(iovec))
            link.pieces_n -= link.pieces_first
            link.pieces_first = 0
        else:
            grown = <iovec *> realloc(link.pieces, (link.pieces_capacity * 2 + 64) * sizeof(iovec))
            if grown == NULL:
                return -ENOMEM
            link.pieces = grown
            link.pieces_capacity = link.pieces_capacity * 2 + 64
    link.pieces[link.pieces_n].iov_base = <void *> p
    link.pieces[link.pieces_n].iov_len = n
    link.pieces_n += 1
    return 0


cdef int link_flush(Link *link) noexcept nogil:
    cdef msghdr message
    cdef ssize_t sent
    cdef iovec *piece
    memset(&message, 0, sizeof(msghdr))
    while link.pieces_first < link.pieces_n:
        message.msg_iov = link.pieces + link.pieces_first
        message.msg_iovlen = <size_t> min(link.pieces_n - link.pieces_first, <int> PIECES_PER_CALL)
        sent = sendmsg(link.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                return -errno
            if not link.wants_write:
                link.wants_write = True
                epoll_set(link.epoll, EPOLL_CTL_MOD, link.fd, EPOLLIN | EPOLLOUT, link)
            return 0
        link.sent += <uint64_t> sent
        while sent > 0:
            piece = link.pieces + link.pieces_first
            if <size_t> sent < piece.iov_len:
                piece.iov_base = <uint8_t *> piece.iov_base + sent
                piece.iov_len -= <size_t> sent
                break
            sent -= <ssize_t> piece.iov_len
            link.pieces_first += 1
    link.pieces_first = link.pieces_n = 0
    if link.wants_write:
        link.wants_write = False
        epoll_set(link.epoll, EPOLL_CTL_MOD, link.fd, EPOLLIN, link)
    return 0


cdef int make_room(Link *link) noexcept nogil:
    """Room for the rest of the frame that has begun, as far as its length may be believed: twice what came of it."""
    cdef size_t whole, wanted
    cdef uint8_t *grown
    if link.inbox_at:
        memmove(link.inbox, link.inbox + link.inbox_at, link.inbox_used - link.inbox_at)
        link.inbox_used -= link.inbox_at
        link.inbox_at = 0
    if link.inbox_used < 4:
        return 0
    whole = <size_t> get32(link.inbox) + 4
    if whole - 4 > link.frame_max:
        return -EBADMSG
    wanted = min(whole, max(2 * link.inbox_used, <size_t> INBOX_MIN))
    if wanted > link.inbox_capacity:
        grown = <uint8_t *> realloc(link.inbox, wanted)
        if grown == NULL:
            return -ENOMEM
        link.inbox = grown
        link.inbox_capacity = wanted
    return 0


cdef int link_receive(Link *link) noexcept nogil:
    cdef ssize_t got
    cdef size_t total = 0
    cdef int error
    while total < RECEIVE_MAX:
        error = make_room(link)
        if error < 0:
            return error
        if link.inbox_used == link.inbox_capacity:      # a whole frame, and more: they are taken first
            return 0
        got = recv(link.fd, link.inbox + link.inbox_used, link.inbox_capacity - link.inbox_used, MSG_DONTWAIT)
        if got == 0:
            return -EPIPE
        if got < 0:
            if errno == EINTR:
                continue
            return 0 if errno == EAGAIN else -errno
        link.heard_us = clock_us(CLOCK_MONOTONIC)
        link.inbox_used += <size_t> got
        total += <size_t> got
        if link.inbox_used < link.inbox_capacity:       # the socket is empty, as a rule: epoll says when it is not
            return 0 if link.inbox_used < 4 or <size_t> get32(link.inbox) <= link.frame_max else -EBADMSG
    return 0


cdef bint link_next(Link *link, const uint8_t **frame, size_t *n) noexcept nogil:
    cdef size_t left = link.inbox_used - link.inbox_at
    cdef uint32_t size
    if left < 4:
        return False
    size = get32(link.inbox + link.inbox_at)
    if size > left - 4:
        return False
    frame[0] = link.inbox + link.inbox_at + 4
    n[0] = size
    link.inbox_at += 4 + <size_t> size
    return True
