"""Finding the offset of a time. See timequery.pxd.

The candidates' bytes are read as a consumer's would be, copied, and looked through in the worker pool, as a batch may have to be
decompressed; from there the search goes on behind them.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from fastlog.native.batch cimport BATCH_HEADER, BATCH_SCRATCH, BatchInfo, PEEK_OK, batch_peek
from fastlog.native.batchrecords cimport batch_find_time
from fastlog.native.bytes cimport get32, get64
from fastlog.native.files cimport PATH_MAX_, file_get, path_of
from fastlog.native.index cimport TIME_ENTRY, Index, index_time
from fastlog.native.log cimport Pin, Read, TimeQuery
from fastlog.native.read cimport read_release, read_start
from fastlog.native.segment cimport segment_failed, segment_ready, segment_time_index
from fastlog.native.store cimport (
    KAFKA_STORAGE_ERROR, LogJob, LogState, Segment, StoreState, TIME_UNKNOWN, UNKNOWN_TOPIC_OR_PARTITION, log_ready,
)
from fastlog.native.work cimport Job, WORK_SOON, work_submit

cdef enum:
    MAX_TIMESTAMP = -3              # ListOffsets: the record with the largest timestamp (KIP-734)
    SEARCHES_MAX = 32               # reading at once in a store
    SEARCH_BYTES = 262144           # of one read
    INDEX_MAX = 1073741824


cdef struct Search:
    Read read                       # first: a Read * is a Search *
    Job job
    LogState *log
    TimeQuery *q
    int64_t timestamp
    int64_t from_                   # offset
    uint8_t *data
    size_t n
    int found                       # 1, 0: not here, -1: undecodable
    int64_t offset
    int64_t found_ms
    int64_t next_offset


cdef inline Search *search_of(Job *job) noexcept nogil:
    return <Search *> (<uint8_t *> job - <size_t> &(<Search *> NULL).job)


cdef void answer(TimeQuery *q, int16_t error, int64_t offset, int64_t found_ms) noexcept nogil:
    q.error = error
    q.offset = offset
    q.found_ms = found_ms
    q.next = NULL
    q.done(q)


cdef void times_run(Job *job) noexcept nogil:
    """The last time entry of each rolled segment whose largest timestamp is not known; those that have none stay unknown."""
    cdef LogJob *j = <LogJob *> job
    cdef int64_t *row = <int64_t *> j.data          # base offset, timestamp, offset
    cdef char path[PATH_MAX_]
    cdef uint8_t *data
    cdef size_t n
    cdef size_t _i
    for _i in range(j.len):
        data = NULL
        n = 0
        path_of(path, j.log.path, row[0], ".timeindex")
        if file_get(path, INDEX_MAX, &data, &n) == 0 and n >= TIME_ENTRY and n % TIME_ENTRY == 0 and \
                <int64_t> get64(data + n - TIME_ENTRY) > 0:
            row[1] = <int64_t> get64(data + n - TIME_ENTRY)
            row[2] = row[0] + get32(data + n - 4)
        free(data)
        row += 3


cdef void times_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef int64_t *row = <int64_t *> j.data
    cdef size_t _i
    cdef int32_t k = 0
    for _i in range(j.len):
        while k < log.segments_n and log.segments[k].base_offset < row[0]:
            k += 1
        if k < log.segments_n and log.segments[k].base_offset == row[0] and log.segments[k].max_timestamp == TIME_UNKNOWN:
            log.segments[k].max_timestamp = row[1]
            log.segments[k].max_timestamp_offset = row[2]
        row += 3
    log.jobs -= 1
    log.times_busy = False
    log.times_known = True
    log.reads_due = True
    log_ready(log)
    free(j.data)
    free(j)


cdef bint times_ready(LogState *log) noexcept nogil:
    """Whether the largest timestamp of every rolled segment is known; else has it looked up."""
    cdef LogJob *j
    cdef int64_t *row
    cdef int32_t unknown = 0
    cdef int32_t i
    for i in range(log.segments_n - 1):
        if log.segments[i].max_timestamp == TIME_UNKNOWN:
            if log.times_known:
                if not segment_ready(log, log.segments[i]) and not segment_failed(log.segments[i]):
                    return False                # its index is made anew, which tells
            else:
                unknown += 1
    if unknown == 0:
        return True
    if log.times_busy:
        return False
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j != NULL:
        j.data = <uint8_t *> malloc(<size_t> unknown * 3 * sizeof(int64_t))
    if j == NULL or j.data == NULL:
        free(j)
        return True
    row = <int64_t *> j.data
    for i in range(log.segments_n - 1):
        if log.segments[i].max_timestamp == TIME_UNKNOWN:
            row[0] = log.segments[i].base_offset
            row[1] = TIME_UNKNOWN
            row[2] = -1
            row += 3
    j.job.run = times_run
    j.job.done = times_done
    j.log = log
    j.len = <size_t> unknown
    log.times_busy = True
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)
    return False


cdef inline int64_t largest(const LogState *log, const Segment *seg) noexcept nogil:
    return seg.index.max_timestamp if seg == log.active else seg.max_timestamp


cdef bint choose(LogState *log, TimeQuery *q, int64_t *timestamp, int64_t *from_) noexcept nogil:
    """Where to search: True when known. *from_ is -1 when no record can match."""
    cdef Segment *seg
    cdef Segment *best = NULL
    cdef const Index *ix
    cdef int32_t i
    if not times_ready(log):
        return False
    for i in range(log.segments_n):
        seg = log.segments[i]
        if q.timestamp == MAX_TIMESTAMP:
            if largest(log, seg) >= 0 and (best == NULL or largest(log, seg) > largest(log, best)):
                best = seg
        elif largest(log, seg) >= q.timestamp:
            best = seg
            break
    from_[0] = -1
    if best == NULL:
        return True
    timestamp[0] = q.timestamp
    if q.timestamp == MAX_TIMESTAMP:
        timestamp[0] = largest(log, best)
        from_[0] = best.index.max_timestamp_offset if best == log.active else best.max_timestamp_offset
    else:
        from_[0] = best.base_offset
        if segment_ready(log, best):
            ix = segment_time_index(log, best, q.timestamp)
            if ix != NULL:
                from_[0] = index_time(ix, q.timestamp)
            elif not segment_failed(best):
                return False
        elif not segment_failed(best):
            return False
    if from_[0] < log.part.at.log_start:
        from_[0] = log.part.at.log_start
    return True


cdef void finish(Search *f, int16_t error, int64_t offset, int64_t found_ms) noexcept nogil:
    cdef TimeQuery *q = f.q
    cdef StoreState *s = f.log.store
    f.log.jobs -= 1
    log_ready(f.log)
    s.searches -= 1
    free(f.data)
    free(f)
    answer(q, error, offset, found_ms)
    while s.search_line != NULL and s.searches < SEARCHES_MAX:
        q = s.search_line
        s.search_line = q.next
        if s.search_line == NULL:
            s.search_line_last = NULL
        timequery_start(<LogState *> q.part.log, q)


cdef void look_run(Job *job) noexcept nogil:
    """Looks through the batches that were copied."""
    cdef Search *f = search_of(job)
    cdef BatchInfo info
    cdef uint8_t *scratch = NULL
    cdef size_t at = 0
    f.found = 0
    f.next_offset = f.from_
    while f.found == 0 and batch_peek(f.data + at, f.n - at, &info) == PEEK_OK and <size_t> info.size <= f.n - at:
        f.next_offset = info.base_offset + info.last_offset_delta + 1
        if info.max_timestamp >= f.timestamp and f.next_offset > f.from_:
            if scratch == NULL:
                scratch = <uint8_t *> malloc(BATCH_SCRATCH)
            f.found = -1 if scratch == NULL else batch_find_time(f.data + at, <size_t> info.size, f.timestamp, scratch, BATCH_SCRATCH,
                                                                 &f.offset, &f.found_ms)
        at += <size_t> info.size
        if f.n - at < BATCH_HEADER:
            break
    free(scratch)


cdef void look_done(Job *job) noexcept nogil:
    cdef Search *f = search_of(job)
    free(f.data)
    f.data = NULL
    if f.found < 0:
        finish(f, KAFKA_STORAGE_ERROR, -1, -1)
    elif f.found:
        if f.offset >= f.log.part.at.high_watermark:
            finish(f, 0, -1, -1)
        else:
            finish(f, 0, f.offset if f.offset > f.log.part.at.log_start else f.log.part.at.log_start, f.found_ms)
    elif f.next_offset <= f.from_:
        finish(f, 0, -1, -1)
    else:
        f.from_ = f.next_offset
        search_read(f)


cdef void search_arrived(Read *r) noexcept nogil:
    cdef Search *f = <Search *> r
    cdef Pin *p = r.pins
    if r.error or r.bytes == 0:
        read_release(f.log.store, r)
        finish(f, r.error, -1, -1)
        return
    f.n = r.bytes
    f.data = <uint8_t *> malloc(f.n)
    if f.data == NULL:
        read_release(f.log.store, r)
        finish(f, KAFKA_STORAGE_ERROR, -1, -1)
        return
    f.n = 0
    while p != NULL:
        memcpy(f.data + f.n, p.base, p.length)
        f.n += p.length
        p = p.next
    read_release(f.log.store, r)
    f.job.run = look_run
    f.job.done = look_done
    work_submit(f.log.store.config.pool, f.log.store.config.home, &f.job, WORK_SOON)


cdef void search_read(Search *f) noexcept nogil:
    f.read.part = f.log.part
    f.read.offset = f.from_
    f.read.bytes_max = SEARCH_BYTES
    f.read.whole_first = True
    f.read.done = search_arrived
    read_start(f.log, &f.read)


cdef void timequery_start(LogState *log, TimeQuery *q) noexcept nogil:
    cdef StoreState *s = log.store
    cdef Search *f
    cdef int64_t timestamp = 0
    cdef int64_t from_ = 0
    q.error = 0
    q.next = NULL
    if log.closing:
        answer(q, UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
        return
    if log.part.at.offline:
        answer(q, <int16_t> log.part.at.offline, -1, -1)
        return
    if not choose(log, q, &timestamp, &from_):
        q.next = log.queries
        log.queries = q
        return
    if from_ < 0 or from_ >= log.part.at.high_watermark:
        answer(q, 0, -1, -1)
        return
    if s.searches >= SEARCHES_MAX:
        if s.search_line_last != NULL:
            s.search_line_last.next = q
        else:
            s.search_line = q
        s.search_line_last = q
        return
    f = <Search *> calloc(1, sizeof(Search))
    if f == NULL:
        answer(q, KAFKA_STORAGE_ERROR, -1, -1)
        return
    f.log = log
    f.q = q
    f.timestamp = timestamp
    f.from_ = from_
    s.searches += 1
    log.jobs += 1
    search_read(f)


cdef void timequeries_retry(LogState *log) noexcept nogil:
    cdef TimeQuery *q = log.queries
    cdef TimeQuery *following
    log.queries = NULL
    while q != NULL:
        following = q.next
        timequery_start(log, q)
        q = following


cdef void timequeries_fail(LogState *log, int16_t error) noexcept nogil:
    cdef TimeQuery *q
    while log.queries != NULL:
        q = log.queries
        log.queries = q.next
        answer(q, error, -1, -1)
