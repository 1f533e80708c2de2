"""Files of removed segments as space for next ones. See recycle.pxd."""
from libc.errno cimport EBUSY, EINVAL, ENAMETOOLONG, ENOMEM, ENOSPC
from libc.stdint cimport int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset, strlen, strrchr
from fastlog.native.arena cimport BLOCK, whole_blocks
from fastlog.native.batch cimport BATCH_HEADER, BatchInfo, PEEK_OK, batch_peek
from fastlog.native.files cimport (
    PATH_MAX_, dir_sync, file_allocate, file_close, file_memory, file_open, file_read, file_rename, file_room, file_size, file_size_at,
    file_sync, file_trim, file_unlink, file_write, file_zero,
)
from fastlog.native.plant cimport PLANT_RECYCLE_WHOLE, planted
from fastlog.native.threads cimport pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock

cdef extern from *:
    """
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <sys/stat.h>
    static pthread_mutex_t fl_pools = PTHREAD_MUTEX_INITIALIZER;
    /* Whether no other descriptor, mapping or name leads to an open file: a write lease is given only then (fcntl(2), F_SETLEASE). */
    static int fl_alone(int fd)
    {
        struct stat st;
        if (fstat(fd, &st) || st.st_nlink != 1)
            return 0;
        if (fcntl(fd, F_SETSIG, SIGURG))            /* ignored; SIGIO would end the process, should someone open the file just now */
            return 0;
        if (fcntl(fd, F_SETLEASE, F_WRLCK))
            return 0;
        fcntl(fd, F_SETLEASE, F_UNLCK);
        return 1;
    }
    """
    pthread_mutex_t fl_pools                    # of all pools of the process: they are looked at seldom
    bint fl_alone(int fd) nogil

cdef enum:
    SLOTS = 64                      # files that a pool has at most
    LEAST = 65536                   # bytes of a file that is worth it
    NEAR = 131072                   # read at once while batches are small
    FAR = 8192                      # and while they are not
    SMALL = 32768
    MAGIC_AT = 16                   # of a batch's header

cdef const char *MARK = b"fastlog: space of a removed segment\n"


cdef struct Blocks:
    int64_t *at                     # numbers, ascending
    int64_t n
    int64_t cap


cdef int blocks_add(Blocks *b, int64_t number) noexcept nogil:
    cdef int64_t *grown
    if b.n and b.at[b.n - 1] == number:
        return 0
    if b.n == b.cap:
        grown = <int64_t *> realloc(b.at, <size_t> (b.cap * 2 + 1024) * sizeof(int64_t))
        if grown == NULL:
            return ENOMEM
        b.at = grown
        b.cap = b.cap * 2 + 1024
    b.at[b.n] = number
    b.n += 1
    return 0


cdef int find_heads(int fd, int64_t size, uint8_t *buf, Blocks *out) noexcept nogil:
    """The blocks without which no batch of the file is whole. EINVAL: it is not whole itself, or that would be more than half of it."""
    cdef BatchInfo info
    cdef int64_t at = 0
    cdef int64_t from_ = 0
    cdef int64_t n = 0
    cdef int err
    info.size = 0
    while at < size:
        if at < from_ or at + BATCH_HEADER > from_ + n:
            from_ = at & ~(<int64_t> BLOCK - 1)
            n = file_read(fd, buf, NEAR if info.size < SMALL else FAR, from_)
            if n < 0:
                return <int> -n
            if at + BATCH_HEADER > from_ + n:
                return EINVAL
        if batch_peek(buf + (at - from_), BATCH_HEADER, &info) != PEEK_OK or info.size > size - at:
            return EINVAL
        err = blocks_add(out, (at + MAGIC_AT) // BLOCK)
        if not err:
            err = blocks_add(out, (at + BATCH_HEADER - 1) // BLOCK)
        if err:
            return err
        at += info.size
        if out.n * BLOCK > at // 2 + NEAR or out.n * BLOCK > size // 2:
            return EINVAL
    return 0


cdef int mark(int fd, int64_t end, uint8_t *buf) noexcept nogil:
    memset(buf, 0, BLOCK)
    memcpy(buf, MARK, strlen(MARK))
    return file_write(fd, buf, BLOCK, end - BLOCK)


cdef int unmake(int fd, int64_t size, int64_t bytes, int64_t reserve, int64_t *written) noexcept nogil:
    """Has a segment's file be blocks for `bytes`, all written before, that hold no batch, durably."""
    cdef uint8_t *buf = <uint8_t *> file_memory(NEAR)
    cdef Blocks heads
    cdef int64_t got
    cdef int64_t i
    cdef int err
    memset(&heads, 0, sizeof(Blocks))
    if buf == NULL:
        return ENOMEM
    err = find_heads(fd, size, buf, &heads)
    if not err and bytes > whole_blocks(size):
        err = file_allocate(fd, whole_blocks(size), bytes, bytes, reserve, &got)
    memset(buf, 0, BLOCK)
    i = 0
    if planted & PLANT_RECYCLE_WHOLE:
        heads.n = 0
    while i < heads.n and not err:
        err = file_write(fd, buf, BLOCK, heads.at[i] * BLOCK)
        i += 1
    if not err:
        err = mark(fd, bytes, buf)
    if not err:
        err = file_zero(fd, whole_blocks(size), bytes - BLOCK)        # flushes all of it
    written[0] = (heads.n + 1) * BLOCK + (bytes - BLOCK - whole_blocks(size) if bytes - BLOCK > whole_blocks(size) else 0)
    free(heads.at)
    free(buf)
    return err


cdef int directory_of(char *out, const char *home) noexcept nogil:
    """The data directory of a partition's."""
    cdef const char *slash = strrchr(home, b'/')
    if slash == NULL or slash == home:
        return EINVAL
    if snprintf(out, PATH_MAX_, "%.*s", <int> (slash - home), home) >= PATH_MAX_:
        return ENAMETOOLONG
    return 0


cdef void slot_path(char *out, const char *directory, int slot) noexcept nogil:
    if snprintf(out, PATH_MAX_, "%s/%02d.recycled", directory, slot) >= PATH_MAX_:
        out[0] = 0                  # no file has that name


cdef int free_slot(const char *directory, int64_t bytes, int64_t limit, int64_t *total) noexcept nogil:
    """A slot for a file of so many bytes, or -1; *total: what the pool then has. The pools are locked."""
    cdef char path[PATH_MAX_]
    cdef int found = -1
    cdef int64_t size
    cdef int i
    for i in range(SLOTS):
        slot_path(path, directory, i)
        size = file_size_at(path)
        if size >= 0:
            bytes += size
        elif found < 0:
            found = i
    total[0] = bytes
    return found if bytes <= limit else -1


cdef int recycle_put(const char *path, const char *home, int64_t bytes, int64_t limit, int64_t reserve, int64_t *written) noexcept nogil:
    cdef char directory[PATH_MAX_]
    cdef char name[PATH_MAX_]
    cdef bint direct
    cdef int64_t total = 0
    cdef int64_t size
    cdef int slot
    cdef int fd
    cdef int err = directory_of(directory, home)
    written[0] = 0
    bytes = whole_blocks(bytes)
    if err or bytes > limit:
        return err if err else ENOSPC
    pthread_mutex_lock(&fl_pools)
    slot = free_slot(directory, bytes, limit, &total)
    pthread_mutex_unlock(&fl_pools)
    if slot < 0:
        return ENOSPC
    fd = file_open(path, True, False, &direct)
    if fd < 0:
        return -fd
    size = file_size(fd)
    if size < LEAST or size > bytes or bytes - size > bytes // 4:
        err = EINVAL
    elif file_room(fd, reserve) < total:     # what is free is worth more
        err = ENOSPC
    elif not fl_alone(fd):
        err = EBUSY
    else:
        err = unmake(fd, size, bytes, reserve, written)
    file_close(fd)
    if err:
        return err
    pthread_mutex_lock(&fl_pools)
    slot = free_slot(directory, bytes, limit, &total)
    if slot < 0:
        err = ENOSPC
    else:
        slot_path(name, directory, slot)
        err = file_rename(path, name)
        # Before another takes it: a rename that is made durable must not rest on one that is not.
        if not err:
            err = dir_sync(home)
        if not err:
            err = dir_sync(directory)
        if err:
            file_unlink(name)
    pthread_mutex_unlock(&fl_pools)
    return err


cdef bint recycle_take(const char *path, const char *home, int64_t bytes, int *fd, bint *direct) noexcept nogil:
    cdef char directory[PATH_MAX_]
    cdef char name[PATH_MAX_]
    cdef uint8_t *buf
    cdef int64_t size = -1
    cdef int err
    cdef int i
    bytes = whole_blocks(bytes)
    if directory_of(directory, home):
        return False
    pthread_mutex_lock(&fl_pools)
    for i in range(SLOTS):
        slot_path(name, directory, i)
        size = file_size_at(name)
        if bytes <= size <= 2 * bytes and file_rename(name, path) == 0:
            break
        size = -1
    pthread_mutex_unlock(&fl_pools)
    if size < 0:
        return False
    fd[0] = file_open(path, True, False, direct)
    err = -fd[0] if fd[0] < 0 else 0
    if not err and size > bytes:
        buf = <uint8_t *> file_memory(BLOCK)
        err = file_trim(fd[0], bytes) if buf != NULL else ENOMEM
        if not err:
            err = mark(fd[0], bytes, buf)
        if not err:
            err = file_sync(fd[0])
        free(buf)
    if not err:
        err = dir_sync(directory)
    if not err:
        err = dir_sync(home)
    if err:
        file_close(fd[0])
        file_unlink(path)
    return err == 0


cdef bint recycle_give_back(const char *home) noexcept nogil:
    cdef char directory[PATH_MAX_]
    cdef char name[PATH_MAX_]
    cdef bint found = False
    cdef int i
    if directory_of(directory, home):
        return False
    pthread_mutex_lock(&fl_pools)
    for i in range(SLOTS):
        slot_path(name, directory, i)
        if file_size_at(name) >= 0 and file_unlink(name) == 0:
            found = True
    pthread_mutex_unlock(&fl_pools)
    return found


cdef bint recycle_marked(int fd, int64_t size) noexcept nogil:
    cdef uint8_t *buf
    cdef bint found
    if size < LEAST or size % BLOCK:
        return False
    buf = <uint8_t *> file_memory(BLOCK)
    found = buf != NULL and file_read(fd, buf, BLOCK, size - BLOCK) == BLOCK and memcmp(buf, MARK, strlen(MARK)) == 0
    free(buf)
    return found
