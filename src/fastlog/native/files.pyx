"""Blocking file operations for worker threads. See files.pxd."""
from libc.errno cimport EINTR, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOSPC, EOPNOTSUPP, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport rename as k_rename, snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport strcmp, strcpy, strlen, strrchr
from fastlog.native.flaws cimport flaws_note_file

cdef extern from *:
    """
    #include <dirent.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <sys/stat.h>
    #include <sys/statvfs.h>
    #include <unistd.h>
    enum { FL_ZEROES = 1 << 20 };
    static uint8_t fl_zeroes[FL_ZEROES] __attribute__((aligned(4096)));    /* never written: one shared page of the kernel's */
    static int64_t fl_fsize(int fd)
    {
        struct stat st;
        return fstat(fd, &st) ? -errno : (int64_t) st.st_size;
    }
    /* Whether O_DIRECT on fd is content with blocks of 4096 bytes; a kernel that does not say (before 6.1) is believed to be. */
    static int fl_direct_fits(int fd)
    {
    #ifdef STATX_DIOALIGN
        struct statx st;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN))
            return st.stx_dio_offset_align != 0 && st.stx_dio_offset_align <= 4096 && st.stx_dio_mem_align <= 4096;
    #endif
        (void) fd;
        return 1;
    }
    /* Bytes that may be taken of fd's disk when so many, or a twentieth of it if that is less, are to be left free. */
    static int64_t fl_room(int fd, int64_t reserve)
    {
        struct statvfs st;
        int64_t share;
        if (fstatvfs(fd, &st))
            return INT64_MAX;
        share = (int64_t) (st.f_blocks / 20 * st.f_frsize);
        return (int64_t) (st.f_bavail * st.f_frsize) - (reserve < share ? reserve : share);
    }
    static int64_t fl_size_at(const char *path)
    {
        struct stat st;
        return stat(path, &st) ? -errno : (int64_t) st.st_size;
    }
    """
    enum: FL_ZEROES
    uint8_t fl_zeroes[1]
    int64_t fl_fsize(int fd) nogil
    bint fl_direct_fits(int fd) nogil
    int64_t fl_size_at(const char *path) nogil
    int64_t fl_room(int fd, int64_t reserve) nogil
    struct dirent:
        char d_name[256]
    ctypedef struct DIR:
        pass
    DIR *opendir(const char *path) nogil
    dirent *readdir(DIR *d) nogil
    int closedir(DIR *d) nogil
    int k_open "open"(const char *path, int flags, ...) noexcept nogil
    int k_close "close"(int fd) noexcept nogil
    ssize_t k_pwrite "pwrite"(int fd, const void *buf, size_t n, int64_t at) noexcept nogil
    ssize_t k_pread "pread"(int fd, void *buf, size_t n, int64_t at) noexcept nogil
    int k_ftruncate "ftruncate"(int fd, int64_t n) noexcept nogil
    int k_fdatasync "fdatasync"(int fd) noexcept nogil
    int k_fsync "fsync"(int fd) noexcept nogil
    int k_syncfs "syncfs"(int fd) noexcept nogil
    int k_fallocate "fallocate"(int fd, int mode, int64_t at, int64_t n) noexcept nogil
    int k_unlink "unlink"(const char *path) noexcept nogil
    int k_mkdir "mkdir"(const char *path, unsigned mode) noexcept nogil
    int k_rmdir "rmdir"(const char *path) noexcept nogil
    int O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_TRUNC, O_CLOEXEC, O_DIRECT, O_DIRECTORY, O_TMPFILE


cdef int kernel_open(const char *path, int flags, int mode) noexcept nogil:
    return k_open(path, flags, mode)


cdef int kernel_mkdir(const char *path, int mode) noexcept nogil:
    return k_mkdir(path, <unsigned> mode)


cdef int kernel_rename(const char *old, const char *new) noexcept nogil:
    return k_rename(old, new)


cdef void file_calls_reset() noexcept nogil:
    file_calls.open = kernel_open
    file_calls.close = k_close
    file_calls.pwrite = k_pwrite
    file_calls.pread = k_pread
    file_calls.ftruncate = k_ftruncate
    file_calls.fdatasync = k_fdatasync
    file_calls.fsync = k_fsync
    file_calls.syncfs = k_syncfs
    file_calls.fallocate = k_fallocate
    file_calls.rename = kernel_rename
    file_calls.unlink = k_unlink
    file_calls.mkdir = kernel_mkdir
    file_calls.rmdir = k_rmdir


file_calls_reset()


cdef int path_join(char *out, const char *dir, const char *name) noexcept nogil:
    return 0 if snprintf(out, PATH_MAX_, "%s/%s", dir, name) < PATH_MAX_ else ENAMETOOLONG


cdef int path_of(char *out, const char *dir, int64_t base_offset, const char *suffix) noexcept nogil:
    return 0 if snprintf(out, PATH_MAX_, "%s/%020lld%s", dir, <long long> base_offset, suffix) < PATH_MAX_ else ENAMETOOLONG


cdef int file_open(const char *path, bint write, bint create, bint *direct) noexcept nogil:
    cdef int flags = (O_RDWR if write else O_RDONLY) | O_CLOEXEC | (O_CREAT if create else 0)
    cdef int fd = file_calls.open(path, flags | O_DIRECT, 0o644)
    direct[0] = fd >= 0 and fl_direct_fits(fd)
    if fd >= 0 and not direct[0]:
        file_calls.close(fd)
    if (fd < 0 and errno == EINVAL) or (fd >= 0 and not direct[0]):
        fd = file_calls.open(path, flags, 0o644)
    return fd if fd >= 0 else -errno


cdef int file_open_buffered(const char *path, bint write) noexcept nogil:
    cdef int fd = file_calls.open(path, (O_RDWR if write else O_RDONLY) | O_CLOEXEC, 0)
    return fd if fd >= 0 else -errno


cdef void file_close(int fd) noexcept nogil:
    if fd >= 0:
        file_calls.close(fd)


cdef int64_t file_size(int fd) noexcept nogil:
    return fl_fsize(fd)


cdef int64_t file_size_at(const char *path) noexcept nogil:
    return fl_size_at(path)


cdef bint file_exists(const char *path) noexcept nogil:
    return fl_size_at(path) >= 0


cdef int file_write(int fd, const void *buf, size_t n, int64_t at) noexcept nogil:
    cdef ssize_t done
    cdef const uint8_t *p = <const uint8_t *> buf
    while n:
        done = file_calls.pwrite(fd, p, n, at)
        if done < 0:
            if errno == EINTR:
                continue
            return errno
        if done == 0:
            return EIO
        p += done
        at += done
        n -= <size_t> done
    return 0


cdef int64_t file_read(int fd, void *buf, size_t n, int64_t at) noexcept nogil:
    cdef ssize_t done
    cdef int64_t total = 0
    while n:
        done = file_calls.pread(fd, <uint8_t *> buf + total, n, at + total)
        if done < 0:
            if errno == EINTR:
                continue
            return -errno
        total += done
        n -= <size_t> done
        if done == 0 or done & 511:     # the end of the file; an unaligned count is no place to go on from with O_DIRECT
            break
    return total


cdef int file_zero(int fd, int64_t from_, int64_t to) noexcept nogil:
    cdef int err
    cdef int64_t n
    while from_ < to:
        n = to - from_ if to - from_ < FL_ZEROES else FL_ZEROES
        err = file_write(fd, fl_zeroes, <size_t> n, from_)
        if err:
            return err
        from_ += n
    return file_sync(fd)


cdef int64_t file_room(int fd, int64_t reserve) noexcept nogil:
    return fl_room(fd, reserve)


cdef int file_allocate(int fd, int64_t from_, int64_t to, int64_t least, int64_t reserve, int64_t *got) noexcept nogil:
    cdef int64_t room = fl_room(fd, reserve) if reserve > 0 else to - from_
    if room < least - from_:
        return ENOSPC
    if room < to - from_:
        to = least
    while True:
        got[0] = to
        if file_calls.fallocate(fd, 0, from_, to - from_) == 0:
            return 0
        if errno == EINTR:
            continue
        if errno == EOPNOTSUPP:         # blocks come with the writes, then; the file must still be long enough for them
            return 0 if file_size(fd) >= to or file_calls.ftruncate(fd, to) == 0 else errno
        if errno != ENOSPC or to <= least:
            return errno
        to = least


cdef int unflushed(int fd) noexcept nogil:
    """The errno of a flush that failed, which concerns all that is on its device."""
    cdef int err = errno
    flaws_note_file(fd, err)
    return err


cdef int file_sync_whole(int fd) noexcept nogil:
    return 0 if file_calls.fsync(fd) == 0 else unflushed(fd)


cdef int file_sync(int fd) noexcept nogil:
    return 0 if file_calls.fdatasync(fd) == 0 else unflushed(fd)


cdef int file_cut(int fd, int64_t size) noexcept nogil:
    return 0 if file_calls.ftruncate(fd, size) == 0 else errno


cdef int file_trim(int fd, int64_t size) noexcept nogil:
    cdef int err = file_cut(fd, size)
    return err if err else file_sync_whole(fd)


cdef int dir_sync(const char *path) noexcept nogil:
    cdef int fd = file_calls.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    cdef int err
    if fd < 0:
        return errno
    err = file_sync_whole(fd)
    file_calls.close(fd)
    return err


cdef int disk_open(const char *dir) noexcept nogil:
    cdef int fd = file_calls.open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0o600)
    if fd < 0:
        return -errno
    file_calls.syncfs(fd)               # tells of failures of long ago, perhaps of other programs, that nobody was told of yet
    return fd


cdef int disk_sync(int fd) noexcept nogil:
    """The flush of the file is for the device: XFS (xfs_fs_sync_fs) leaves that out of syncfs when its journal has nothing to write, though
    data may have been written over blocks that were there; and fsync of a directory (xfs_dir_fsync) leaves it out too.
    """
    return file_sync_whole(fd) if file_calls.syncfs(fd) == 0 else unflushed(fd)


cdef int file_put(const char *dir, const char *name, const void *data, size_t n) noexcept nogil:
    cdef char beside[PATH_MAX_]
    cdef char path[PATH_MAX_]
    cdef int fd
    cdef int err
    if snprintf(beside, PATH_MAX_, "%s/%s.tmp", dir, name) >= PATH_MAX_ or path_join(path, dir, name):
        return ENAMETOOLONG
    fd = file_calls.open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    if fd < 0:
        return errno
    err = file_write(fd, data, n, 0)
    if not err:
        err = file_sync_whole(fd)
    file_calls.close(fd)
    if not err and file_calls.rename(beside, path) != 0:
        err = errno
    if err:
        file_calls.unlink(beside)
    return err


cdef int file_put_at(const char *path, const void *data, size_t n, int64_t at) noexcept nogil:
    cdef int fd = file_calls.open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
    cdef int err
    if fd < 0:
        return errno
    err = file_write(fd, data, n, at)
    if not err and file_calls.ftruncate(fd, at + <int64_t> n) != 0:
        err = errno
    if not err:
        err = file_sync_whole(fd)
    file_calls.close(fd)
    return err


cdef int file_get(const char *path, size_t limit, uint8_t **data, size_t *n) noexcept nogil:
    cdef int fd = file_calls.open(path, O_RDONLY | O_CLOEXEC, 0)
    cdef int64_t size
    cdef int64_t got
    if fd < 0:
        return errno
    size = fl_fsize(fd)
    if size < 0 or <uint64_t> size > limit:
        file_calls.close(fd)
        return <int> -size if size < 0 else 27          # EFBIG
    data[0] = <uint8_t *> malloc(<size_t> size + 1)
    if data[0] == NULL:
        file_calls.close(fd)
        return 12                                       # ENOMEM
    got = file_read(fd, data[0], <size_t> size, 0)
    file_calls.close(fd)
    if got < 0:
        free(data[0])
        data[0] = NULL
        return <int> -got
    n[0] = <size_t> got
    return 0


cdef int file_rename(const char *old, const char *new) noexcept nogil:
    return 0 if file_calls.rename(old, new) == 0 else errno


cdef int file_unlink(const char *path) noexcept nogil:
    return 0 if file_calls.unlink(path) == 0 or errno == ENOENT else errno


cdef void files_drop_indexes(const char *dir, int64_t base_offset, const char *ending) noexcept nogil:
    cdef char suffix[NAME_MAX_]
    cdef char path[PATH_MAX_]
    cdef const char *kinds[3]
    cdef int i
    kinds[0] = ".index"
    kinds[1] = ".timeindex"
    kinds[2] = ".txnindex"
    for i in range(3):
        snprintf(suffix, NAME_MAX_, "%s%s", kinds[i], ending)
        if path_of(path, dir, base_offset, suffix) == 0:
            file_unlink(path)


cdef int dir_remove(const char *path) noexcept nogil:
    cdef char inside[PATH_MAX_]
    cdef DIR *d = opendir(path)
    cdef dirent *entry
    cdef int err = 0
    if d == NULL:
        return 0 if errno == ENOENT else errno
    while True:
        entry = readdir(d)
        if entry == NULL:
            break
        if strcmp(entry.d_name, ".") == 0 or strcmp(entry.d_name, "..") == 0:
            continue
        if path_join(inside, path, entry.d_name) == 0 and file_calls.unlink(inside) != 0 and errno != ENOENT:
            err = errno
    closedir(d)
    if file_calls.rmdir(path) != 0 and errno != ENOENT:
        return err if err else errno
    return 0


cdef int dir_make(const char *path) noexcept nogil:
    cdef char parent[PATH_MAX_]
    cdef char *slash
    if strlen(path) >= PATH_MAX_:
        return ENAMETOOLONG
    if file_calls.mkdir(path, 0o755) != 0:
        return errno
    strcpy(parent, path)
    slash = strrchr(parent, b'/')
    if slash == NULL:
        return dir_sync(".")
    if slash == parent:
        slash += 1
    slash[0] = 0
    return dir_sync(parent)
