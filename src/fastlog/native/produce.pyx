"""See produce.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, strlen

from fastlog.native.batch cimport ATTR_CODEC, ATTR_TRANSACTIONAL, BATCH_SCRATCH, CODEC_ZSTD, PEEK_OK, BatchInfo, batch_peek
from fastlog.native.batchcheck cimport BATCH_UNDECIDED, batch_check, batch_check_quick, batch_is_slow, batch_needs_recode, batch_refused
from fastlog.native.batchrecode cimport batch_recode
from fastlog.native.bytes cimport Reader, Writer, read_i16, read_i32, reader_take, write_bytes, write_i16, write_i32, write_i64, \
    writer_init, writer_used
from fastlog.native.command cimport TxnCheck, TxnCheckPart, TxnVerdict
from fastlog.native.conn cimport conn_close, conn_resume, request_count, request_ready, response_plain, response_room
from fastlog.native.log cimport Append, log_append, log_ask, position_get
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport MAIL_APPEND, MAIL_APPENDED, MAIL_TXN_ASK, MAIL_TXN_ASKED, MAIL_TXN_CHECK, counter_add
from fastlog.native.quota cimport QUOTA_PRODUCE, quota_on
from fastlog.native.slab cimport slab_free, slab_get, slab_put
from fastlog.native.table cimport Topic, table_by_id, table_by_name, topic_drop, topic_hold
from fastlog.native.wire cimport wire_count, wire_length, wire_put_length, wire_put_string, wire_put_tags, wire_skip_tags, wire_string
from fastlog.native.work cimport WORK_SOON, Job, work_submit

cdef enum:                          # Kafka's error codes that are decided here
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    NETWORK_EXCEPTION = 13
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC = 17
    NOT_ENOUGH_REPLICAS = 19
    INVALID_REQUIRED_ACKS = 21
    INVALID_TIMESTAMP = 32
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    KAFKA_STORAGE_ERROR = 56
    UNSUPPORTED_COMPRESSION_TYPE = 76
    INVALID_RECORD = 87
    PRODUCER_FENCED = 90
    UNKNOWN_TOPIC_ID = 100
    TRANSACTION_ABORTABLE = 120

cdef enum:
    REFUSED_MAX = 1000              # records of a request that are named as the wrong ones, at most

cdef enum:                          # versions of Produce
    KNOWS_ABORTABLE = 11            # of whoever sent one: it knows TRANSACTION_ABORTABLE
    ADDS_PARTITIONS = 12            # transactions version 2: it adds partitions to a transaction by producing to them

cdef struct Work

cdef struct Part:                   # one batch of a request, on its way
    Append append                   # first: an Append is its Part
    Part *next
    Work *work
    Shard *home
    Topic *topic                    # held
    const uint8_t *name             # in the request's frame
    const uint8_t *topic_id
    int32_t name_length
    int32_t index
    int32_t n_in_topic              # in the first part of a topic: its number of parts; else 0
    uint32_t length
    uint8_t *recoded                # malloc'ed, or NULL
    int32_t *refused                # malloc'ed positions of the records that are wrong, or NULL
    int32_t n_refused
    const char *why
    bint slow
    bint judged                     # one whole batch: what is wrong with it, if anything, lies inside, or in what came before it

cdef struct Work:
    Job job                         # first: a Job is its Work
    Request *request
    Part *first
    Part *last
    int32_t n_topics
    int32_t n_refused               # of all parts
    int32_t pending
    int16_t acks
    bint transactional              # some batch is: all of them are of the producer and epoch below
    bint mixed                      # they are not
    int64_t producer_id
    int16_t producer_epoch
    int32_t id_length               # of the transactional id, in the request's frame; -1: none
    const uint8_t *id
    uint64_t token                  # while in the shard's list of what waits for the coordinator
    Work *next
    int64_t now_ms


# ---- decode --------------------------------------------------------------------------------------------------------------------

cdef void produce_start(Request *r) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef Reader *b = &r.body
    cdef bint flexible = r.version >= 9
    cdef int64_t topics, _t
    cdef Work *work
    counter_add(&shard.counters.produce_requests, 1)
    work = <Work *> slab_get(&shard.produce_free, &shard.produce_free_n, sizeof(Part))
    if work == NULL:
        conn_close(r.conn, b"no memory for its request", False)
        request_ready(r)
        return
    work.request = r
    work.now_ms = shard.now_ms
    work.id = wire_string(b, flexible, &work.id_length)
    work.acks = read_i16(b)
    read_i32(b)                     # time-out: an append here is never waiting for another broker
    topics = wire_count(b, flexible)
    for _t in range(topics):
        if not decode_topic(r, work, b, flexible):
            break
    wire_skip_tags(b, flexible)
    if b.bad:
        finish_badly(r, work)
        return
    if work.acks == 0:
        r.silent = True
    if quota_on(shard.quotas, QUOTA_PRODUCE):
        request_count(r, QUOTA_PRODUCE, r.frame_bytes - 4)
    check(work)


cdef bint decode_topic(Request *r, Work *work, Reader *b, bint flexible) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef const uint8_t *name = NULL
    cdef const uint8_t *topic_id = NULL
    cdef const uint8_t *records
    cdef int32_t name_length = -1
    cdef int64_t n, length, _i
    cdef Topic *topic = NULL
    cdef Part *part
    cdef Part *head = NULL
    if r.version >= 13:
        topic_id = reader_take(b, 16)
        if topic_id != NULL:
            topic = table_by_id(&shard.table, topic_id)
    else:
        name = wire_string(b, flexible, &name_length)
        if name != NULL:
            topic = table_by_name(&shard.table, name, name_length)
        else:
            b.bad = True
    n = wire_count(b, flexible)
    for _i in range(n):
        if b.bad:
            return False
        part = <Part *> slab_get(&shard.produce_free, &shard.produce_free_n, sizeof(Part))
        if part == NULL:
            b.bad = True
            return False
        if work.last != NULL:
            work.last.next = part
        else:
            work.first = part
        work.last = part
        if head == NULL:
            head = part
            work.n_topics += 1
        head.n_in_topic += 1
        part.work = work
        part.home = shard
        part.name = name
        part.name_length = name_length
        part.topic_id = topic_id
        part.index = read_i32(b)
        length = wire_length(b, flexible)
        records = reader_take(b, length) if length > 0 else NULL
        wire_skip_tags(b, flexible)
        part.append.base_offset = -1
        part.append.append_time = -1
        part.append.log_start = -1
        part.append.acks = <signed char> work.acks
        part.append.client = True
        part.append.added = False
        part.append.data = <uint8_t *> records
        part.length = <uint32_t> length if length > 0 else 0
        if b.bad:
            return False
        if topic == NULL:
            part.append.error = UNKNOWN_TOPIC_ID if r.version >= 13 else UNKNOWN_TOPIC_OR_PARTITION
        elif part.index < 0 or part.index >= topic.n:
            part.append.error = UNKNOWN_TOPIC_OR_PARTITION
        elif topic.parts[part.index] == NULL:
            part.append.error = KAFKA_STORAGE_ERROR
            part.why = b"this partition could not be opened"
        elif work.acks < -1 or work.acks > 1:
            part.append.error = INVALID_REQUIRED_ACKS
            part.why = b"acks must be -1, 0 or 1"
        elif topic.internal and not is_admin(r):
            part.append.error = INVALID_TOPIC
            part.why = b"an internal topic is written by the broker only"
        elif records == NULL:
            part.append.error = INVALID_RECORD
            part.why = b"no record batch"
        else:
            topic_hold(topic)
            part.topic = topic
            part.append.part = topic.parts[part.index]
            part.append.part.users[shard.index] += 1
    wire_skip_tags(b, flexible)
    return not b.bad


cdef bint is_admin(const Request *r) noexcept nogil:
    # the client id by which Kafka, too, lets its tools write internal topics
    return r.client_id_length == 14 and memcmp(r.client_id, b"__admin_client", 14) == 0


cdef void finish_badly(Request *r, Work *work) noexcept nogil:
    cdef char text[96]
    snprintf(text, sizeof(text), "a Produce request (version %d) that can't be read", <int> r.version)
    drop(work)
    conn_close(r.conn, text, True)
    r.silent = True
    request_ready(r)


# ---- validation ----------------------------------------------------------------------------------------------------------------

cdef void check(Work *work) noexcept nogil:
    """Validates what is quick here, the rest in the worker pool."""
    cdef Shard *shard = work.request.shard
    cdef Part *part = work.first
    cdef Append *a
    cdef bint slow = False
    cdef bint whole
    while part != NULL:
        a = &part.append
        if part.topic != NULL:
            whole = batch_peek(a.data, part.length, &a.info) == PEEK_OK
            part.judged = whole and part.length == <uint32_t> a.info.size
            if whole and work.request.version < 7 and (a.info.attributes & ATTR_CODEC) == CODEC_ZSTD:
                a.error = UNSUPPORTED_COMPRESSION_TYPE
                part.judged = False
                part.why = b"zstd needs version 7 of Produce or newer (KIP-110)"
            elif whole and batch_is_slow(&a.info, &part.topic.rules):
                part.slow = True
            else:
                a.error = batch_check_quick(a.data, part.length, &part.topic.rules, work.now_ms, shard.scratch, BATCH_SCRATCH, &a.info,
                                            &part.why)
                part.slow = a.error == BATCH_UNDECIDED
            if part.slow:
                slow = True
            else:
                checked(part, shard.scratch)
        part = part.next
    if not slow:
        submit(work)
        return
    work.request.conn.paused = True
    work.job.run = check_slow
    work.job.done = checked_slow
    work_submit(shard.pool, shard.home, &work.job, WORK_SOON)


cdef void checked(Part *part, void *scratch) noexcept nogil:
    """What validation of the batch alone can't know: the time it is given. Of one that is refused, which records are to blame."""
    cdef Append *a = &part.append
    cdef int32_t most = REFUSED_MAX - part.work.n_refused
    if part.judged and most > 0 and (a.error == INVALID_TIMESTAMP or a.error == INVALID_RECORD):
        part.refused = <int32_t *> malloc(<size_t> most * sizeof(int32_t))
        if part.refused != NULL:
            part.n_refused = batch_refused(a.data, &part.topic.rules, part.work.now_ms, scratch, BATCH_SCRATCH, part.refused, most)
            part.work.n_refused += part.n_refused
    if a.error == 0 and part.topic.rules.log_append_time:
        a.append_time = part.work.now_ms
    if a.error == 0 and a.info.attributes & ATTR_TRANSACTIONAL:
        note_transaction(part.work, a)


cdef void note_transaction(Work *work, const Append *a) noexcept nogil:
    if not work.transactional:
        work.transactional = True
        work.producer_id = a.info.producer_id
        work.producer_epoch = a.info.producer_epoch
    elif work.producer_id != a.info.producer_id or work.producer_epoch != a.info.producer_epoch:
        work.mixed = True


cdef void check_slow(Job *job) noexcept nogil:
    """On a worker's thread: nothing else touches the parts meanwhile."""
    cdef Work *work = <Work *> job
    cdef Part *part = work.first
    cdef Append *a
    cdef size_t length = 0
    cdef BatchInfo info
    cdef void *scratch = malloc(BATCH_SCRATCH)
    while part != NULL:
        if part.slow and scratch == NULL:
            part.append.error = KAFKA_STORAGE_ERROR
            part.why = b"no memory to validate it"
        elif part.slow:
            a = &part.append
            a.error = batch_check(a.data, part.length, &part.topic.rules, work.now_ms, scratch, BATCH_SCRATCH, &a.info, &part.why)
            checked(part, scratch)
            if a.error == 0 and batch_needs_recode(&a.info, &part.topic.rules):
                a.error = batch_recode(a.data, part.length, &part.topic.rules, &part.recoded, &length, &info, &part.why)
                if a.error == 0:
                    a.data = part.recoded
                    a.info = info
                    part.length = <uint32_t> length
        part = part.next
    free(scratch)


cdef void checked_slow(Job *job) noexcept nogil:
    cdef Work *work = <Work *> job
    work.request.conn.paused = False
    conn_resume(work.request.conn)
    submit(work)


cdef void submit(Work *work) noexcept nogil:
    if not work.transactional:
        append_all(work)
    elif work.id_length < 0:
        refuse(work, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, b"transactional batches without a transactional id")
    elif work.mixed:
        refuse(work, INVALID_PRODUCER_ID_MAPPING, b"transactional batches of more than one producer")
    else:
        ask(work)


cdef void refuse(Work *work, int16_t error, const char *why) noexcept nogil:
    cdef Part *part = work.first
    while part != NULL:
        part.append.error = error
        part.judged = False
        part.why = why
        part = part.next
    append_all(work)


# ---- transactions --------------------------------------------------------------------------------------------------------------

cdef void ask(Work *work) noexcept nogil:
    """Asks the owners of partitions whether the transaction goes on there."""
    cdef Shard *shard = work.request.shard
    cdef Part *part = work.first
    work.pending = 1
    while part != NULL:
        if part.topic != NULL and part.append.error == 0 and part.append.info.attributes & ATTR_TRANSACTIONAL:
            if part.append.part.owner == shard.index:
                ask_log(shard, part)
            else:
                work.pending += 1
                mail_send(shard.out[part.append.part.owner], MAIL_TXN_ASK, 0, part)
                shard.out_dirty = 1
        part = part.next
    if work.pending > 1:
        work.request.conn.paused = True
    one_asked(work)


cdef void ask_log(Shard *owner, Part *part) noexcept nogil:
    cdef Append *a = &part.append
    a.guard = log_ask(owner.store, a.part, a.info.producer_id, a.info.producer_epoch, a.info.base_sequence,
                      part.work.request.version >= ADDS_PARTITIONS)


cdef void produce_ask_here(Shard *owner, void *what) noexcept nogil:
    cdef Part *part = <Part *> what
    ask_log(owner, part)
    mail_send(owner.out[part.home.index], MAIL_TXN_ASKED, 0, part)
    owner.out_dirty = 1


cdef void produce_asked(Shard *home, void *what) noexcept nogil:
    one_asked((<Part *> what).work)


cdef void one_asked(Work *work) noexcept nogil:
    cdef Part *part = work.first
    cdef int32_t n = 0
    work.pending -= 1
    if work.pending:
        return
    while part != NULL:
        n += part.append.guard != 0
        part = part.next
    if n == 0 or not ask_coordinator(work, n):
        decided(work)


cdef void decided(Work *work) noexcept nogil:
    if work.request.conn.paused:
        work.request.conn.paused = False
        conn_resume(work.request.conn)
    append_all(work)


cdef bint ask_coordinator(Work *work, int32_t n) noexcept nogil:
    """Whether a transaction may begin in n partitions. False: the question could not be asked, and has its answer."""
    cdef Shard *shard = work.request.shard
    cdef size_t size = sizeof(TxnCheck) + <size_t> n * sizeof(TxnCheckPart)
    cdef TxnCheck *check = <TxnCheck *> malloc(size + <size_t> work.id_length) if not shard.stop else NULL
    cdef TxnCheckPart *into
    cdef Part *part = work.first
    if check == NULL:
        verdict(work, NULL, 0)
        return False
    shard.checks_n += 1
    work.token = shard.checks_n
    work.next = <Work *> shard.checks
    shard.checks = work
    work.request.conn.paused = True
    check.token = work.token
    check.shard = shard.index
    check.producer_id = work.producer_id
    check.producer_epoch = work.producer_epoch
    check.add = work.request.version >= ADDS_PARTITIONS
    check.id = <uint8_t *> check + size
    check.id_length = <uint16_t> work.id_length
    memcpy(check.id, work.id, <size_t> work.id_length)
    check.n = 0
    while part != NULL:
        if part.append.guard:
            into = &check.parts[check.n]
            check.n += 1
            memcpy(into.topic_id, part.topic.id, 16)
            into.index = part.index
            into.name_length = part.topic.name_length
            memcpy(into.name, part.topic.name, part.topic.name_length)
        part = part.next
    mail_send(shard.out[shard.n], MAIL_TXN_CHECK, 0, check)
    shard.out_dirty = 1
    return True


cdef int16_t told(int16_t error, int16_t version) noexcept nogil:
    """What a producer is told for a coordinator's error: one that it knows, and tries again or gives up on, as in Kafka."""
    if error == PRODUCER_FENCED:
        return INVALID_PRODUCER_EPOCH
    if error == TRANSACTION_ABORTABLE and version < KNOWS_ABORTABLE:
        return INVALID_TXN_STATE
    if (error == CONCURRENT_TRANSACTIONS and version < ADDS_PARTITIONS) or error == NETWORK_EXCEPTION or \
            error == COORDINATOR_LOAD_IN_PROGRESS or error == COORDINATOR_NOT_AVAILABLE or error == NOT_COORDINATOR:
        return NOT_ENOUGH_REPLICAS
    return error


cdef void verdict(Work *work, const int16_t *errors, int32_t n) noexcept nogil:
    """Of the partitions where a transaction was to begin, in order; where there is none, nobody could be asked."""
    cdef Part *part = work.first
    cdef int32_t i = 0
    while part != NULL:
        if part.append.guard:
            part.append.error = told(errors[i] if i < n else COORDINATOR_NOT_AVAILABLE, work.request.version)
            # An answer may have waited for the end of the transaction before, whose marker took the guard away. Where the coordinator
            # adds, epochs see to what guards are for: after the end of this transaction its epoch is too old here.
            part.append.added = part.append.error == 0 and work.request.version >= ADDS_PARTITIONS
            part.judged = part.append.error == 0
            if part.append.error == INVALID_TXN_STATE:
                part.why = b"the partition was not added to the transaction"
            elif part.append.error:
                part.why = b"the coordinator did not say that the partition is part of the transaction"
            i += 1
        part = part.next


cdef void produce_checked(Shard *shard, void *what) noexcept nogil:
    cdef TxnVerdict *answer = <TxnVerdict *> what
    cdef Work *work = <Work *> shard.checks
    cdef Work *before = NULL
    while work != NULL and work.token != answer.token:
        before = work
        work = work.next
    if work != NULL:
        if before != NULL:
            before.next = work.next
        else:
            shard.checks = work.next
        verdict(work, answer.errors, answer.n)
        decided(work)
    free(answer)


cdef void produce_abandon(Shard *shard) noexcept nogil:
    cdef Work *work
    while shard.checks != NULL:
        work = <Work *> shard.checks
        shard.checks = work.next
        refuse(work, NOT_ENOUGH_REPLICAS, b"the broker stops")


# ---- append --------------------------------------------------------------------------------------------------------------------

cdef void append_all(Work *work) noexcept nogil:
    cdef Shard *shard = work.request.shard
    cdef Part *part = work.first
    cdef Part *following
    work.pending = 1                # so that answers that come at once don't finish the request under our feet
    while part != NULL:
        following = part.next
        if part.topic != NULL and part.append.error == 0:
            work.pending += 1
            counter_add(&shard.counters.produce_batches, 1)
            counter_add(&shard.counters.produce_bytes, part.length)
            if part.append.part.owner == shard.index:
                part.append.done = appended_here
                log_append(shard.store, &part.append)
            else:
                counter_add(&shard.counters.cross_appends, 1)
                mail_send(shard.out[part.append.part.owner], MAIL_APPEND, 0, part)
                shard.out_dirty = 1
        part = following
    one_done(work)


cdef void appended_here(Append *a) noexcept nogil:
    one_done((<Part *> a).work)


cdef void produce_append_here(Shard *owner, void *what) noexcept nogil:
    cdef Part *part = <Part *> what
    part.append.done = appended_for_other
    log_append(owner.store, &part.append)


cdef void appended_for_other(Append *a) noexcept nogil:
    cdef Part *part = <Part *> a
    cdef Shard *owner = part.home.peers[a.part.owner]
    mail_send(owner.out[part.home.index], MAIL_APPENDED, 0, part)
    owner.out_dirty = 1


cdef void produce_appended(Shard *home, void *what) noexcept nogil:
    one_done((<Part *> what).work)


cdef void one_done(Work *work) noexcept nogil:
    work.pending -= 1
    if work.pending == 0:
        answer(work)


# ---- answer --------------------------------------------------------------------------------------------------------------------

cdef void drop(Work *work) noexcept nogil:
    cdef Shard *shard = work.request.shard
    cdef Part *part = work.first
    cdef Part *following
    while part != NULL:
        following = part.next
        if part.topic != NULL:
            part.append.part.users[shard.index] -= 1
            topic_drop(part.topic)
        free(part.recoded)
        free(part.refused)
        slab_put(&shard.produce_free, &shard.produce_free_n, part)
        part = following
    slab_put(&shard.produce_free, &shard.produce_free_n, work)


cdef int64_t log_start_beside(const Part *part) noexcept nogil:
    """Where the partition starts, as Kafka tells it beside an error: when the log itself refused what the batch says."""
    if not part.judged or part.append.error == CORRUPT_MESSAGE or part.append.error == MESSAGE_TOO_LARGE or \
            part.append.error == KAFKA_STORAGE_ERROR:
        return -1
    return position_get(&part.append.part.at.log_start)


cdef void answer(Work *work) noexcept nogil:
    cdef Request *r = work.request
    cdef Shard *shard = r.shard
    cdef bint flexible = r.version >= 9
    cdef Part *part = work.first
    cdef Append *a
    cdef Writer w
    cdef uint32_t room = 32
    cdef int16_t failed = 0
    cdef int32_t why_length, in_topic = 0, i
    cdef char text[96]
    while part != NULL:
        room += 56
        if part.n_in_topic:
            room += 24 + (part.name_length if part.name_length > 0 else 0)
        if part.append.error:
            failed = part.append.error
            counter_add(&shard.counters.produce_errors, 1)
            if part.why != NULL:
                room += <uint32_t> strlen(part.why) * (1 + <uint32_t> part.n_refused) + 8 * <uint32_t> part.n_refused
        part = part.next
    if work.acks == 0:
        drop(work)
        if failed:
            snprintf(text, sizeof(text), "a produce with acks=0 failed with error %d", <int> failed)
            conn_close(r.conn, text, True)
        request_ready(r)
        return
    writer_init(&w, response_room(r, room), room)
    if w.p == NULL:
        drop(work)
        request_ready(r)
        return
    wire_put_length(&w, flexible, work.n_topics)
    part = work.first
    while part != NULL:
        a = &part.append
        if part.n_in_topic:
            if r.version >= 13:
                write_bytes(&w, part.topic_id, 16)
            else:
                wire_put_string(&w, flexible, part.name, part.name_length)
            wire_put_length(&w, flexible, part.n_in_topic)
            in_topic = part.n_in_topic
        write_i32(&w, part.index)
        write_i16(&w, a.error)
        write_i64(&w, a.base_offset if a.error == 0 else -1)
        write_i64(&w, a.append_time if a.error == 0 else -1)
        if r.version >= 5:
            write_i64(&w, a.log_start if a.error == 0 else log_start_beside(part))
        if r.version >= 8:
            why_length = <int32_t> strlen(part.why) if a.error and part.why != NULL else -1
            wire_put_length(&w, flexible, part.n_refused)
            for i in range(part.n_refused):
                write_i32(&w, part.refused[i])
                wire_put_string(&w, flexible, part.why, why_length)
                wire_put_tags(&w, flexible)
            wire_put_string(&w, flexible, part.why, why_length)
        wire_put_tags(&w, flexible)
        in_topic -= 1
        if in_topic == 0:
            wire_put_tags(&w, flexible)
        part = part.next
    write_i32(&w, r.throttle_ms)
    wire_put_tags(&w, flexible)
    response_plain(r, <uint32_t> writer_used(&w))
    drop(work)
    request_ready(r)


cdef void produce_free(Shard *shard) noexcept nogil:
    slab_free(&shard.produce_free, &shard.produce_free_n)
