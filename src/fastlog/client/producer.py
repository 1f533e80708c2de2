"""The producer: records one at a time or as columns, gathered and sent by the compiled core; see docs/client.md."""

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastlog._core import Deliveries, Delivery, ProducerCore, arrow_array, arrow_chunks, arrow_fields, column, encode_headers, header_rows
from fastlog.client import checks, config, reporting
from fastlog.client.cluster import Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import BufferFullError, ClientError, ClientTimeoutError, ClosedError, ConfigError, UnreachableError
from fastlog.client.logs import ERROR, WARNING, say, say_raised, say_seldom
from fastlog.client.records import Headers, RecordMetadata

if TYPE_CHECKING:
    import asyncio

    from fastlog.client.transactions import GroupMetadata, Transactions

WANT_METADATA, WANT_PRODUCER_ID, WANT_LINK, WANT_TRANSACTION = 1, 2, 4, 8
LOST_TIME, LOST_CLOSED, LOST_MEMORY = -100, -101, -102
ATEXIT_FLUSH_S = 10.0
_open: "weakref.WeakSet[Producer]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Nothing is dropped silently at exit: what waits is sent, for some seconds, and what is left is said."""
    for producer in list(_open):
        with contextlib.suppress(Exception):
            producer.close(ATEXIT_FLUSH_S)


class Producer(ProducerCore):
    """Sends records to topics. Thread-safe. Settings are Kafka's, with underscores (docs/client.md has them all):

        with Producer(bootstrap_servers="127.0.0.1:9092") as producer:
            producer.send("orders", b"two apples", key=b"alice")

    Nothing connects until the first record. Raises ConfigError for settings that are unknown or make no sense.
    """

    def __init__(self, config_map: Mapping[str, Any] | None = None, /, **settings: Any) -> None:
        set_ = config.settings(config.PRODUCER, config.merged(config_map, settings))
        self.settings = set_
        acks_all = set_["acks"] == -1
        in_flight = set_["max_in_flight_requests_per_connection"]
        idempotent = set_["enable_idempotence"]
        if idempotent is None:
            idempotent = acks_all and in_flight <= 5
        if idempotent and (not acks_all or in_flight > 5):
            raise ConfigError("enable_idempotence needs acks=all and at most 5 max_in_flight_requests_per_connection")
        if set_["transactional_id"] is not None and not idempotent:
            raise ConfigError("transactional_id needs enable_idempotence")
        if set_["delivery_timeout_ms"] < set_["linger_ms"] + set_["request_timeout_ms"]:
            set_["request_timeout_ms"] = max(1, set_["delivery_timeout_ms"] - set_["linger_ms"])
        self._cluster = Cluster(set_["bootstrap_servers"], client_id=set_["client_id"], timeout_s=set_["request_timeout_ms"] / 1000)
        partitioner = set_["partitioner"]
        ids = set_["transactional_id"]
        self._transactions = None if ids is None else self._make_transactions(ids)
        self._transaction_failure: ClientError | None = None
        self._fatal: ClientError | None = None
        self._lock = threading.Lock()
        self._callback_thread: threading.Thread | None = None
        self._loop_driven = False  # an event loop runs the callbacks
        core: dict[str, Any] = {
            "codec": config.CODECS[set_["compression_type"]],
            "level": set_["compression_level"],
            "acks": set_["acks"],
            "linger_us": set_["linger_ms"] * 1000,
            "batch_size": min(set_["batch_size"], set_["max_request_size"]),
            "max_request_size": set_["max_request_size"],
            "buffer_memory": set_["buffer_memory"],
            "max_in_flight": in_flight,
            "delivery_us": set_["delivery_timeout_ms"] * 1000,
            "request_us": set_["request_timeout_ms"] * 1000,
            "backoff_us": set_["retry_backoff_ms"] * 1000,
            "backoff_max_us": set_["retry_backoff_max_ms"] * 1000,
            "retries": set_["retries"],
            "idempotent": idempotent,
            "partitioner": 1 if partitioner == "consistent_random" else 0,
            "max_block_us": set_["max_block_ms"] * 1000,
            "key_serializer": set_["key_serializer"],
            "value_serializer": set_["value_serializer"],
            "partition_of": partitioner if callable(partitioner) else None,
        }
        self._reporter = reporting.of_settings(set_, self.metrics)
        self._start(core, set_["client_id"].encode(), None if ids is None else ids.encode(), RecordMetadata)
        _open.add(self)
        self._control_thread = threading.Thread(target=self._control, name="fastlog-control", daemon=True)
        self._control_thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- sending

    def send_batch(
        self,
        topic: str,
        values: Any = None,
        keys: Any = None,
        *,
        headers: Headers | Sequence[Headers | None] | None = None,
        timestamps: Any = None,
        partitions: Any = None,
    ) -> Deliveries:
        """Queues many records in one call, given as columns, and returns what becomes of them.

        values, keys: a list of bytes (None: null), `(buffer, offsets)`, a NumPy array (numbers, S, V, rows of bytes, objects that are
        bytes), or an Arrow array; keys may be one bytes for all. `values` alone may be an Arrow record batch, table or data frame with
        columns `value` and any of `key`, `headers`, `timestamp`, `partition`. headers: one list for all records, or one each.
        timestamps: int64 milliseconds. partitions: int32. Both may be one number for all.

        Waits while buffer_memory is used up. Raises as `send` does; after BufferFullError some of the records are queued.
        """
        made: Deliveries | None = None
        for part in column_parts(values, keys, headers, timestamps, partitions):
            made = self._send_columns(topic, *part, made)
        return self._send_columns(topic, [], None, None, None, None) if made is None else made

    def flush(self, timeout: float | None = None) -> None:
        """Sends what waits and returns when all is acknowledged or has failed. ClientTimeoutError after `timeout` seconds."""
        left = self._flush(None if timeout is None else checks.checked_timeout(timeout))
        if left:
            raise ClientTimeoutError(f"{left} batches are not acknowledged after {timeout} s; they are still being sent")

    def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has. Raises as `send`."""
        return self._partitions(self._topic_handle(topic))

    def close(self, timeout: float | None = None) -> None:
        """Sends what waits, for at most `timeout` seconds (None: delivery_timeout_ms), and ends. What is left fails, and is logged."""
        limit = self.settings["delivery_timeout_ms"] / 1000 if timeout is None else checks.checked_timeout(timeout)
        if self._is_closed:
            return
        before = self.metrics()["records_failed"]
        try:
            self._flush(limit)
        except ClosedError:  # a fork of the process that made it: nothing here is its own
            return
        self._reporter.report(last=True)
        self._stop()
        lost = self.metrics()["records_failed"] - before
        if lost:
            who = self.settings["client_id"]
            say(ERROR, "the producer %s was closed with %d records that were not acknowledged", who, lost, client_id=who, records=lost)
        self._cluster.close()
        _open.discard(self)
        if self._callback_thread is not None and self._callback_thread is not threading.current_thread():
            self._callback_thread.join(5)
        if self._control_thread is not threading.current_thread():
            self._control_thread.join(5)

    # --- what the core asks of Python

    def _topic_handle(self, topic: str) -> int:
        """The topic's number in the core; asks for its metadata when it is new."""
        checks.checked_topic(topic)
        deadline = time.monotonic() + self.settings["max_block_ms"] / 1000
        while True:
            if (known := self._handle(topic)) is not None:
                return known
            try:
                return self._learn(topic)
            except ClientError as error:
                if self._fatal is not None:
                    raise self._fatal from None
                if not error.retriable or time.monotonic() > deadline:
                    raise
                if self._is_closed:
                    raise ClosedError("the producer was closed") from None
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))

    def _learn(self, topic: str) -> int:
        found = self._cluster.metadata([topic], create=self.settings["allow_auto_create_topics"])
        meta = found.get(topic)
        code = 3 if meta is None else meta.error
        if meta is None or code or not meta.leaders:
            raise error_for(code or 5, f"topic {topic!r}")
        with self._lock:
            return self._set_topic(topic, meta.leaders)

    def _failure(self, code: int, topic: str, partition: int) -> ClientError:
        return self._explained(code, f"produce to {topic} [{partition}]")

    def _explained(self, code: int, what: str) -> ClientError:
        """The error of one of Kafka's codes, or of the core's own; `what` was tried."""
        if self._fatal is not None and code == LOST_CLOSED:
            return self._fatal
        if code == LOST_TIME:
            limit = self.settings["delivery_timeout_ms"]
            return ClientTimeoutError(f"{what}: not acknowledged within delivery_timeout_ms ({limit}); the record may or may not be stored")
        if code == LOST_CLOSED:
            return ClosedError(f"{what}: the producer was closed, or the transaction aborted, before the record was acknowledged")
        if code == LOST_MEMORY:
            return ClientError("NO_MEMORY", f"{what}: no memory")
        return error_for(code, what)

    def _refused(self, why: str) -> None:
        kind, _, detail = why.partition(" ")
        if kind == "forked":
            raise ClosedError("this process is a fork of the one that made the producer; make a new one after the fork")
        if kind == "late":
            raise ClientTimeoutError("the record was not acknowledged in time; it may still be")
        if kind == "closed":
            raise self._fatal or ClosedError("the producer is closed")
        if kind == "transaction":
            raise error_for(48, "produce", "begin_transaction comes before the first record")
        if kind == "large":
            limit = self.settings["max_request_size"]
            raise error_for(10, "produce", f"a record of {detail} bytes is over max_request_size ({limit})")
        if kind == "partition":
            raise ConfigError(f"there is no partition {detail}")
        raise BufferFullError(f"buffer_memory stayed used up for max_block_ms; {detail} records of the call were queued")

    # --- callbacks

    def _watching(self) -> None:
        if self._loop_driven or self._callback_thread is not None:
            return
        with self._lock:
            if self._callback_thread is None:
                self._callback_thread = threading.Thread(target=self._run_callbacks, name="fastlog-callbacks", daemon=True)
                self._callback_thread.start()

    def _run_callbacks(self) -> None:
        while True:
            found = self._wait_done(1.0)
            for delivery, call in self._take_done():
                try:
                    call(delivery)
                except Exception:  # noqa: BLE001 - logged
                    say_raised("a delivery callback raised")
            if not found and self._is_closed:
                return

    def _future(self, delivery: Delivery) -> "asyncio.Future[None]":
        """What `await delivery` waits for, in the loop that runs."""
        from fastlog.client.aio.calls import future_of  # asyncio is imported by those who use it

        return future_of(delivery, in_loop=self._loop_driven)

    # --- the control thread

    def _control(self) -> None:
        """Looks up what the core asks for: leaders, connections, a producer id."""
        refresh_s = self.settings["metadata_max_age_ms"] / 1000
        due = time.monotonic() + refresh_s
        producer_id = False
        while True:
            wanted = self._wait_wanted(self._reporter.wait_s(max(0.01, min(due - time.monotonic(), 1.0))))
            if wanted < 0:
                return
            self._reporter.report()
            try:
                if wanted & WANT_METADATA or time.monotonic() >= due:
                    due = time.monotonic() + refresh_s
                    self._refresh()
                if wanted & WANT_LINK:
                    self._connect_wanted()
                if wanted & WANT_PRODUCER_ID or producer_id:
                    producer_id = True
                    self._init_producer_id()
                    producer_id = False
                if wanted & WANT_TRANSACTION:
                    self._add_partitions()
            except ClientError as error:
                if not error.retriable and not isinstance(error, UnreachableError) and producer_id:
                    self._fatal = error
                    self._purge()
                    self._stop()
                    return
                if not self._is_closed:
                    say_seldom(WARNING, "%s: %s", self.settings["client_id"], error, client_id=self.settings["client_id"])
                time.sleep(self.settings["retry_backoff_ms"] / 1000)

    def _refresh(self) -> None:
        topics = self._topics_known()
        if not topics:
            return
        for name, meta in self._cluster.metadata(topics).items():
            if meta.error == 0 and meta.leaders:
                with self._lock:
                    self._set_topic(name, meta.leaders)
            elif meta.error:
                say(WARNING, "topic %s: %s", name, error_for(meta.error, "metadata"), topic=name)
        time.sleep(self.settings["retry_backoff_ms"] / 1000 / 4)

    def _connect_wanted(self) -> None:
        for node in self._peers_wanted():
            try:
                self._attach(node, *self._cluster.link(node, "Produce"))
            except ClientError as error:
                self._unreachable(node)
                who = self.settings["client_id"]
                say_seldom(WARNING, "%s: broker %d: %s", who, node, error, client_id=who, broker=node)

    def _init_producer_id(self) -> None:
        """A producer id for an idempotent producer; one with a transactional id has got it from `init_transactions`."""
        if self.settings["transactional_id"] is not None:
            return
        said = self._cluster.call("InitProducerId", {"transactional_id": None, "transaction_timeout_ms": 60_000})
        if said["error_code"]:
            raise error_for(said["error_code"], "get a producer id")
        self._set_producer_id(said["producer_id"], said["producer_epoch"])

    # --- transactions

    def _make_transactions(self, transactional_id: str) -> "Transactions":
        from fastlog.client.transactions import Transactions

        return Transactions(self, self._cluster, transactional_id, self.settings["transaction_timeout_ms"], self.settings["max_block_ms"])

    def _transactional(self) -> "Transactions":
        if self._transactions is None:
            raise ConfigError("transactions need a transactional_id")
        if self._is_closed:
            self._refused("closed")
        return self._transactions

    def _add_partitions(self) -> None:
        """In the control thread; an error that does not pass ends the transaction's records."""
        wanted = self._transaction_wanted()
        if not wanted or self._transactions is None:
            return
        try:
            self._transactions.add_partitions(wanted)
        except ClientError as error:
            self._transaction_failure = error
            self._purge()

    def init_transactions(self) -> None:
        """Before the first transaction: fences what had this transactional_id before, and aborts what it had left open."""
        transactions = self._transactional()
        if transactions.open:
            raise error_for(48, "init transactions", "one is open: commit or abort it first")
        transactions.init()

    def begin_transaction(self) -> None:
        """What is sent from now on belongs together. InvalidTxnStateError before `init_transactions`, or when one is open already."""
        transactions = self._transactional()
        if not transactions.ready:
            raise error_for(48, "begin a transaction", "init_transactions comes before the first one")
        if transactions.open:
            raise error_for(48, "begin a transaction", "one is open: commit or abort it first")
        self._transaction_failure = None
        transactions.open = True
        self._set_open(True)

    def send_offsets_to_transaction(self, offsets: Mapping[tuple[str, int], int], group: "GroupMetadata") -> None:
        """Commits a consumer's offsets (to read next) with the transaction. `group`: the consumer's `group_metadata()`.

        InvalidTxnStateError where no transaction is open.
        """
        transactions = self._transactional()
        wanted = {p: checks.checked_offset(at) for p, at in checks.checked_places(offsets).items()}
        if not isinstance(group, tuple) or len(group) != 4:
            raise TypeError(f"group: expected what a consumer's group_metadata() returns, not {group!r}")
        if not transactions.open:
            raise error_for(48, "send offsets to a transaction", "none is open: begin_transaction comes first")
        if wanted:
            transactions.send_offsets(wanted, group)

    def commit_transaction(self, timeout: float | None = None) -> None:
        """Sends what waits and commits. Raises a record's error, where one failed: abort then."""
        transactions = self._transactional()
        if not transactions.open:
            raise error_for(48, "commit a transaction", "none is open")
        self.flush(timeout)
        if self._transaction_failure is not None:
            raise self._transaction_failure
        if code := self._transaction_error():
            raise self._explained(code, "commit a transaction, one of whose records failed (abort it)")
        self._set_open(False)
        transactions.end(commit=True)

    def abort_transaction(self) -> None:
        """Gives up what waits, and what was sent is never seen by read_committed consumers.

        ClientTimeoutError when a broker did not say in max_block_ms what became of its records: call it again.
        """
        transactions = self._transactional()
        self._set_open(False)
        self._purge()
        if left := self._flush(self.settings["max_block_ms"] / 1000):
            raise ClientTimeoutError(f"abort a transaction: {left} batches are unanswered after max_block_ms; abort it again")
        transactions.end(commit=False)
        if self._numbers_lost():  # the broker has not seen them: a new epoch begins without them
            transactions.init()


def column_parts(values: Any, keys: Any, headers: Any, timestamps: Any, partitions: Any) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
    """What `send_batch` was given as columns of the core, a chunk of a table at a time."""
    whole = keys is None and headers is None and timestamps is None and partitions is None and not isinstance(values, (list, tuple))
    if whole and hasattr(values, "__arrow_c_array__"):
        chunks = [arrow_array(values)]
    elif whole and hasattr(values, "__arrow_c_stream__"):
        chunks = arrow_chunks(values)
    else:
        yield _whole(values), _whole(keys), _header_column(headers), timestamps, partitions
        return
    for chunk in chunks:
        fields = arrow_fields(chunk)
        if fields is None:
            yield chunk, None, None, None, None
            continue
        unknown = fields.keys() - {"value", "key", "headers", "timestamp", "partition"}
        if unknown or not fields:
            raise TypeError(f"columns {', '.join(sorted(unknown)) or 'none'}: expected value, key, headers, timestamp and partition")
        rows = header_rows(fields["headers"]) if "headers" in fields else None
        yield fields.get("value"), fields.get("key"), _header_column(rows), fields.get("timestamp"), fields.get("partition")


def _whole(column: Any) -> Any:
    """A chunked Arrow array in one piece."""
    if hasattr(column, "__arrow_c_stream__") and not hasattr(column, "__arrow_c_array__") and not hasattr(column, "__array_interface__"):
        chunks = arrow_chunks(column)
        return chunks[0] if len(chunks) == 1 else [value for chunk in chunks for value in _listed(chunk)]
    return column


def _listed(chunk: Any) -> list[bytes | None]:
    return column(chunk).to_list()


def _header_column(headers: Any) -> Any:
    """Headers as a column of what stands in a record: one bytes for all, or a list."""
    if headers is None:
        return None
    if not isinstance(headers, (Mapping, Sequence)) or isinstance(headers, (str, bytes)):
        raise TypeError(f"headers: expected (name, value) pairs or a mapping, or one of these for each record, not {headers!r}")
    if not headers:
        return None
    if isinstance(headers, Mapping) or (isinstance(headers[0], tuple) and len(headers[0]) == 2 and isinstance(headers[0][0], str)):
        return encode_headers(headers)
    return [encode_headers(one) if one else b"\x00" for one in headers]
