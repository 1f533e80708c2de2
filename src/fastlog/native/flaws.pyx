"""Flushes that failed, by device. See flaws.pxd."""
from libc.errno cimport EBADF, EINTR, EINVAL, ENOSPC
from libc.stdint cimport int64_t, uint64_t
from fastlog.native.ring cimport Ring, ring_wake
from fastlog.native.threads cimport pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <sys/stat.h>
    static pthread_mutex_t fl_flaws_mutex = PTHREAD_MUTEX_INITIALIZER;
    static int64_t fl_flaws_all;
    static int64_t fl_flaws_load(void) { return __atomic_load_n(&fl_flaws_all, __ATOMIC_ACQUIRE); }
    static void fl_flaws_add(void) { __atomic_fetch_add(&fl_flaws_all, 1, __ATOMIC_RELEASE); }
    static uint64_t fl_device(int fd)
    {
        struct stat st;
        return fstat(fd, &st) ? 0 : (uint64_t) st.st_dev;
    }
    """
    pthread_mutex_t fl_flaws_mutex
    int64_t fl_flaws_load() nogil
    void fl_flaws_add() nogil
    uint64_t fl_device(int fd) nogil
    int EDQUOT

cdef enum:
    DEVICES_MAX = 64                # that had a failure; those of more count for all
    RINGS_MAX = 128

cdef struct Flaws:
    uint64_t device[DEVICES_MAX]
    int64_t count[DEVICES_MAX]
    int devices
    int64_t everywhere
    Ring *rings[RINGS_MAX]

cdef Flaws flaws


cdef uint64_t flaws_device(int fd) noexcept nogil:
    return fl_device(fd)


cdef int place_of(uint64_t device) noexcept nogil:
    cdef int i
    for i in range(flaws.devices):
        if flaws.device[i] == device:
            return i
    return -1


cdef void flaws_note(uint64_t device, int error) noexcept nogil:
    cdef int i
    if error in (0, ENOSPC, EDQUOT, EINTR, EINVAL, EBADF):
        return
    pthread_mutex_lock(&fl_flaws_mutex)
    i = place_of(device)
    if i < 0 and device != 0 and flaws.devices < DEVICES_MAX:
        i = flaws.devices
        flaws.device[i] = device
        flaws.devices += 1
    if i < 0:
        flaws.everywhere += 1
    else:
        flaws.count[i] += 1
    fl_flaws_add()
    for i in range(RINGS_MAX):
        if flaws.rings[i] != NULL:
            ring_wake(flaws.rings[i])
    pthread_mutex_unlock(&fl_flaws_mutex)


cdef void flaws_note_file(int fd, int error) noexcept nogil:
    flaws_note(fl_device(fd), error)


cdef int64_t flaws_count() noexcept nogil:
    return fl_flaws_load()


cdef int64_t flaws_of(uint64_t device) noexcept nogil:
    cdef int i
    cdef int64_t n
    pthread_mutex_lock(&fl_flaws_mutex)
    i = place_of(device)
    n = flaws.everywhere + (flaws.count[i] if i >= 0 else 0)
    pthread_mutex_unlock(&fl_flaws_mutex)
    return n


cdef void change(Ring *old, Ring *new) noexcept nogil:
    cdef int i
    pthread_mutex_lock(&fl_flaws_mutex)
    for i in range(RINGS_MAX):
        if flaws.rings[i] == old:
            flaws.rings[i] = new
            break
    pthread_mutex_unlock(&fl_flaws_mutex)


cdef void flaws_listen(Ring *ring) noexcept nogil:
    change(NULL, ring)


cdef void flaws_unlisten(Ring *ring) noexcept nogil:
    change(ring, NULL)
