"""A partition's directory. See directory.pxd."""
from libc.errno cimport ENOENT, ENOMEM, errno
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, qsort, realloc, strtoll
from libc.string cimport memcmp, strcmp, strerror, strlen, strncmp
from fastlog.native.files cimport PATH_MAX_, file_get, file_put, file_unlink, path_join, path_of
from fastlog.native.log cimport LOG_WHY

cdef extern from *:
    """
    #include <dirent.h>
    """
    struct dirent:
        char d_name[256]
    ctypedef struct DIR:
        pass
    DIR *opendir(const char *path) nogil
    dirent *readdir(DIR *d) nogil
    int closedir(DIR *d) nogil

cdef enum:
    STORAGE = 56                    # KAFKA_STORAGE_ERROR
    INCONSISTENT_TOPIC_ID = 103
    DIGITS = 20
    ID_LENGTH = 22                  # of a topic id as text
    METADATA_MAX = 4096             # bytes


cdef int16_t failed(char *why, const char *what, int err) noexcept nogil:
    snprintf(why, LOG_WHY, "%s: %s", what, strerror(err))
    return STORAGE


cdef int add(Numbers *list, int64_t v) noexcept nogil:
    cdef int64_t *grown
    if list.n == list.cap:
        grown = <int64_t *> realloc(list.at, <size_t> (list.cap * 2 + 8) * sizeof(int64_t))
        if grown == NULL:
            return ENOMEM
        list.at = grown
        list.cap = list.cap * 2 + 8
    list.at[list.n] = v
    list.n += 1
    return 0


cdef int directory_add(Listing *list, int64_t base_offset) noexcept nogil:
    return add(&list.logs, base_offset)


cdef void directory_free(Listing *list) noexcept nogil:
    free(list.logs.at)
    free(list.snapshots.at)


cdef int by_number(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<const int64_t *> a)[0]
    cdef int64_t y = (<const int64_t *> b)[0]
    return -1 if x < y else (1 if x > y else 0)


cdef bint ends(const char *name, const char *suffix) noexcept nogil:
    cdef size_t n = strlen(name)
    cdef size_t m = strlen(suffix)
    return n >= m and memcmp(name + n - m, suffix, m) == 0


cdef bint numbered(const char *name, const char *suffix, int64_t *out) noexcept nogil:
    cdef int i
    if strlen(name) < DIGITS or strcmp(name + DIGITS, suffix) != 0:
        return False
    for i in range(DIGITS):
        if name[i] < b'0' or name[i] > b'9':
            return False
    out[0] = strtoll(name, NULL, 10)
    return True


cdef int16_t directory_list(const char *path, Listing *list, char *why) noexcept nogil:
    cdef DIR *d = opendir(path)
    cdef dirent *entry
    cdef char inside[PATH_MAX_]
    cdef int64_t number
    cdef int err = 0
    if d == NULL:
        return failed(why, "cannot list the directory", errno)
    while not err:
        entry = readdir(d)
        if entry == NULL:
            break
        if numbered(entry.d_name, ".log", &number):
            err = add(&list.logs, number)
        elif numbered(entry.d_name, ".snapshot", &number):
            err = add(&list.snapshots, number)
        elif strcmp(entry.d_name, "next.segment") == 0:
            list.next_segment = True
        elif ends(entry.d_name, ".swap"):
            list.swaps = True
        elif ends(entry.d_name, ".deleted") or ends(entry.d_name, ".tmp") or ends(entry.d_name, ".cleaned"):
            err = path_join(inside, path, entry.d_name)
            if not err:
                err = file_unlink(inside)
    closedir(d)
    if err:
        return failed(why, "cannot list the directory", err)
    if list.logs.n:
        qsort(list.logs.at, <size_t> list.logs.n, sizeof(int64_t), by_number)
    if list.snapshots.n:
        qsort(list.snapshots.at, <size_t> list.snapshots.n, sizeof(int64_t), by_number)
    return 0


cdef bint has(const Numbers *list, int64_t v) noexcept nogil:
    cdef int32_t i
    for i in range(list.n):
        if list.at[i] == v:
            return True
    return False


cdef bint directory_has_snapshot(const Listing *list, int64_t offset) noexcept nogil:
    return has(&list.snapshots, offset)


cdef void directory_clean_snapshots(const char *path, const Listing *list, int64_t end) noexcept nogil:
    cdef char name[PATH_MAX_]
    cdef int64_t at
    cdef int32_t i
    for i in range(list.snapshots.n):
        at = list.snapshots.at[i]
        if at <= end and (i + 1 == list.snapshots.n or list.snapshots.at[i + 1] > end or has(&list.logs, at)):
            continue
        if path_of(name, path, at, ".snapshot") == 0:
            file_unlink(name)


cdef void text_of(const uint8_t *id, char *out) noexcept nogil:
    """A topic id as Kafka prints it: URL-safe base64 without padding."""
    cdef const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cdef uint64_t bits = 0
    cdef int held = 0
    cdef int i
    cdef int n = 0
    for i in range(16):
        bits = (bits << 8) | id[i]
        held += 8
        while held >= 6:
            held -= 6
            out[n] = digits[(bits >> held) & 63]
            n += 1
    out[n] = digits[(bits << (6 - held)) & 63]
    out[n + 1] = 0


cdef int16_t directory_check_topic(const char *path, const uint8_t *topic_id, char *why) noexcept nogil:
    cdef char name[PATH_MAX_]
    cdef char id[32]
    cdef char text[128]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef size_t length
    cdef size_t i = 0
    cdef int err
    text_of(topic_id, id)
    length = <size_t> snprintf(text, sizeof(text), "version: 0\ntopic_id: %s", id)
    path_join(name, path, "partition.metadata")
    err = file_get(name, METADATA_MAX, &data, &n)
    if err == ENOENT:
        err = file_put(path, "partition.metadata", text, length)
        if err:
            return failed(why, "cannot write partition.metadata", err)
        return 0
    if err:
        return failed(why, "cannot read partition.metadata", err)
    length = strlen("topic_id: ")
    while i + length + ID_LENGTH <= n and strncmp(<const char *> data + i, "topic_id: ", length) != 0:
        i += 1
    if i + length + ID_LENGTH > n or memcmp(data + i + length, id, ID_LENGTH) != 0:
        snprintf(why, LOG_WHY, "the directory belongs to another topic: partition.metadata does not name topic id %s", id)
        free(data)
        return INCONSISTENT_TOPIC_ID
    free(data)
    return 0
