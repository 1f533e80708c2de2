"""What this machine's loopback gives: an echo, and plain receiving with and without a checksum. Blocking sockets, one thread a side."""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, TIMER_ABSTIME, clock_gettime, clock_nanosleep, timespec

from fastlog.native.loadclock cimport now_ns
from fastlog.native.loadhistogram cimport Histogram, histogram_summary, record

cdef extern from "loadtemplate_crc32c.h":
    uint32_t crc_raw "bench_crc_raw"(uint32_t state, const uint8_t *p, size_t n) noexcept nogil
    void crc_init "bench_crc_init"() noexcept nogil

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t n, int flags)
    ssize_t recv(int fd, void *buffer, size_t n, int flags)
    int MSG_NOSIGNAL

cdef extern from "<time.h>" nogil:
    int CLOCK_THREAD_CPUTIME_ID

crc_init()


cdef uint64_t thread_cpu_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <uint64_t> t.tv_sec * 1000000000 + <uint64_t> t.tv_nsec


cdef bint send_all(int fd, const uint8_t *p, size_t n) noexcept nogil:
    cdef ssize_t sent
    while n:
        sent = send(fd, p, n, MSG_NOSIGNAL)
        if sent < 0 and errno != EINTR:
            return False
        if sent > 0:
            p += sent
            n -= <size_t> sent
    return True


cdef bint receive_all(int fd, uint8_t *p, size_t n) noexcept nogil:
    cdef ssize_t got
    while n:
        got = recv(fd, p, n, 0)
        if got == 0 or (got < 0 and errno != EINTR):
            return False
        if got > 0:
            p += got
            n -= <size_t> got
    return True


def serve_echo(int fd, size_t size):
    """Sends back each message of `size` bytes until the other side closes."""
    cdef uint8_t *buffer = <uint8_t *> malloc(size)
    if buffer == NULL:
        raise MemoryError
    with nogil:
        while receive_all(fd, buffer, size) and send_all(fd, buffer, size):
            pass
    free(buffer)


def ping(int fd, size_t size, double rate, double seconds):
    """Round trips of `size` bytes, one at a time, `rate` a second by the clock (0: one after the other); the histogram's summary.

    The time at which a message was to be sent counts. Raises OSError when the connection breaks.
    """
    cdef uint8_t *buffer = <uint8_t *> calloc(1, size)
    cdef Histogram *h = <Histogram *> calloc(1, sizeof(Histogram))
    cdef uint64_t start, due, i = 0
    cdef timespec t
    cdef bint well = True
    if buffer == NULL or h == NULL:
        free(buffer)
        free(h)
        raise MemoryError
    with nogil:
        start = due = now_ns()
        while well and due - start < <uint64_t> (seconds * 1e9):
            while rate > 0 and now_ns() < due:
                t.tv_sec = (due - 30000) // 1000000000
                t.tv_nsec = (due - 30000) % 1000000000
                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL)
            well = send_all(fd, buffer, size) and receive_all(fd, buffer, size)
            record(h, now_ns() - due)
            i += 1
            due = start + <uint64_t> (i * 1e9 / rate) if rate > 0 else now_ns()
    summary = histogram_summary(h)
    free(buffer)
    free(h)
    if not well:
        raise OSError("the echo's connection broke")
    return summary


def pour(int fd, size_t size, double seconds):
    """Sends `size` bytes again and again for the time; how many bytes."""
    cdef uint8_t *buffer = <uint8_t *> malloc(size)
    cdef uint64_t start, total = 0
    if buffer == NULL:
        raise MemoryError
    memset(buffer, 0xA5, size)
    with nogil:
        start = now_ns()
        while now_ns() - start < <uint64_t> (seconds * 1e9) and send_all(fd, buffer, size):
            total += size
    free(buffer)
    return total


def catch(int fd, size_t size, bint checksum):
    """Receives pieces of `size` bytes until the other side closes: `(bytes, seconds, cpu_seconds)`, each piece checksummed when asked."""
    cdef uint8_t *buffer = <uint8_t *> calloc(1, size)
    cdef uint64_t start, cpu, total = 0
    cdef uint32_t state = 0
    if buffer == NULL:
        raise MemoryError
    with nogil:
        start = now_ns()
        cpu = thread_cpu_ns()
        while receive_all(fd, buffer, size):
            total += size
            if checksum:
                state ^= crc_raw(0, buffer, size)
        start = now_ns() - start
        cpu = thread_cpu_ns() - cpu
        # The checksum is used, so that it is computed.
        buffer[0] = <uint8_t> state
    free(buffer)
    return total, start / 1e9, cpu / 1e9


def copy_rate(size_t size, double seconds):
    """MB/s of copying `size` bytes from one place to another, again and again."""
    cdef uint8_t *source = <uint8_t *> malloc(size)
    cdef uint8_t *target = <uint8_t *> malloc(size)
    cdef uint64_t start, took, total = 0
    if source == NULL or target == NULL:
        free(source)
        free(target)
        raise MemoryError
    memset(source, 1, size)
    memset(target, 2, size)
    with nogil:
        start = now_ns()
        while now_ns() - start < <uint64_t> (seconds * 1e9):
            memcpy(target, source, size)
            source[total % size] = target[size - 1]             # each copy depends on the last: none is left out
            total += size
        took = now_ns() - start
    free(source)
    free(target)
    return total / 1e6 / (took / 1e9)


def checksum_rate(size_t size, double seconds):
    """MB/s of CRC-32C over `size` bytes."""
    cdef uint8_t *source = <uint8_t *> malloc(size)
    cdef uint64_t start, took, total = 0
    cdef uint32_t state = 0
    if source == NULL:
        raise MemoryError
    memset(source, 1, size)
    with nogil:
        start = now_ns()
        while now_ns() - start < <uint64_t> (seconds * 1e9):
            state = crc_raw(state, source, size)
            total += size
        took = now_ns() - start
        source[0] = <uint8_t> state                             # it is used, so that it is computed
    free(source)
    return total / 1e6 / (took / 1e9)
