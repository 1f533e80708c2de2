"""The numbers by which a broker knows batches again (KIP-98, KIP-360): errors, lost answers and aborts neither double, reorder nor lose."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fastlog.client import Admin, ClientTimeoutError, Consumer, Producer, errors
from tests.client.proxy import Proxy

pytestmark = pytest.mark.one_engine

PRODUCE, INIT_PRODUCER_ID = 0, 22
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
LARGE = bytes(10_000)  # larger than `small_topic` takes
Eventually = Callable[[Callable[[], bool], float], None]


@pytest.fixture
def proxy(bootstrap: str) -> Iterator[Proxy]:
    with Proxy(bootstrap) as made:
        yield made


@pytest.fixture
def small_topic(admin: Admin, fresh_name: str, eventually: Eventually) -> str:
    """One partition, records of at most 5,000 bytes."""
    admin.create_topic(fresh_name, 1, {"max.message.bytes": "5000"})
    eventually(lambda: fresh_name in {t.name for t in admin.topics()}, 20)
    return fresh_name


def values(bootstrap: str, topic: str) -> list[bytes | None]:
    """All in partition 0, of aborted transactions too."""
    with Consumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign({(topic, 0): 0})
        found: list[bytes | None] = []
        deadline = time.monotonic() + 60
        while not consumer.at_end and time.monotonic() < deadline:
            found += [r.value for r in consumer.poll(1000, 0.2)]
    return found


def test_one_that_is_stored_and_not_safe_yet(proxy: Proxy, bootstrap: str, small_topic: str, eventually: Eventually) -> None:
    """It is sent again under its old number, though the one behind it was refused and a new epoch begins."""
    with Producer(bootstrap_servers=proxy.bootstrap, linger_ms=0, retry_backoff_ms=300) as producer:
        producer.send(small_topic, b"first").result(60)
        left = [NOT_ENOUGH_REPLICAS_AFTER_APPEND]

        def fail(key: int, answer: bytes) -> bytes:
            if key != PRODUCE or not left:
                return answer
            at = answer.index(small_topic.encode()) + len(small_topic) + 5  # behind the name: a length, the partition, the code
            return answer[:at] + left.pop().to_bytes(2) + answer[at + 2 :]

        proxy.delay_s, proxy.spoil = 0.5, fail  # all three are on their way before the first answer
        sent = []
        for value in (b"kept", LARGE, b"behind"):
            sent.append(producer.send(small_topic, value))
            eventually(lambda: proxy.requests[PRODUCE] > len(sent), 60)
        assert isinstance(sent[1].exception(60), errors.MessageTooLargeError)
        sent[0].result(60)
        sent[2].result(60)
        proxy.delay_s = 0
        producer.send(small_topic, b"last").result(60)
    assert not left
    assert values(bootstrap, small_topic) == [b"first", b"kept", b"behind", b"last"]


@pytest.mark.parametrize("stored", [True, False])
def test_one_behind_another_that_was_given_up(proxy: Proxy, bootstrap: str, topic: str, eventually: Eventually, stored: bool) -> None:
    """Two are lost from sight, and the first's time is over before the broker can be asked again."""
    settings = {"linger_ms": 0, "retry_backoff_ms": 10, "delivery_timeout_ms": 2000, "request_timeout_ms": 1000}
    with Producer(bootstrap_servers=proxy.bootstrap, **settings) as producer:
        producer.send(topic, b"first", partition=0).result(60)
        over = threading.Event()

        def lose(key: int, answer: bytes) -> bytes:
            if key == PRODUCE:
                over.wait(60)
                raise ConnectionError
            return answer

        proxy.spoil = lose
        proxy.silent = not stored
        given_up = producer.send(topic, b"given up", partition=0)
        eventually(lambda: proxy.requests[PRODUCE] > 1, 60)
        time.sleep(1)
        behind = producer.send(topic, b"behind", partition=0)
        assert isinstance(given_up.exception(60), ClientTimeoutError)
        proxy.spoil, proxy.silent = None, False
        over.set()
        proxy.cut()
        came = behind.exception(60) is None  # on a slow machine its time may be over as well
        producer.send(topic, b"last", partition=0).result(60)
    found = values(bootstrap, topic)
    assert [v for v in found if v != b"behind"] == ([b"first", b"given up", b"last"] if stored else [b"first", b"last"])
    assert found.count(b"behind") == 1 if came else found.count(b"behind") <= 1
    assert found[-1] == b"last"


def test_epochs_that_are_used_up(proxy: Proxy, bootstrap: str, small_topic: str) -> None:
    """There are 32,767 of a producer's id; each record that is refused costs one. Then another id is asked for."""

    def old(key: int, answer: bytes) -> bytes:
        return answer[:19] + (32766).to_bytes(2) + answer[21:] if key == INIT_PRODUCER_ID else answer

    proxy.spoil = old
    with Producer(bootstrap_servers=proxy.bootstrap, linger_ms=0, retry_backoff_ms=10) as producer:
        for i in range(4):
            producer.send(small_topic, b"%d" % i).result(60)
            assert isinstance(producer.send(small_topic, LARGE).exception(60), errors.MessageTooLargeError)
        producer.send(small_topic, b"4").result(60)
    assert proxy.requests[INIT_PRODUCER_ID] == 3
    assert values(bootstrap, small_topic) == [b"%d" % i for i in range(5)]


def test_an_abort_of_what_is_to_be_sent_again(proxy: Proxy, bootstrap: str, topic: str, fresh_name: str, eventually: Eventually) -> None:
    with Producer(bootstrap_servers=proxy.bootstrap, transactional_id=fresh_name, linger_ms=0, retry_backoff_ms=1000) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"aborted", partition=0).result(60)
        proxy.silent = True
        lost = producer.send(topic, b"never came", partition=0)
        eventually(lambda: proxy.requests[PRODUCE] > 1, 60)
        proxy.cut()
        eventually(lambda: producer.metrics()["batch_retries"] > 0, 60)
        proxy.silent = False
        producer.abort_transaction()
        assert lost.exception(60) is not None
        for value in (b"one", b"two"):
            producer.begin_transaction()
            producer.send(topic, value, partition=0)
            producer.commit_transaction()
    assert [v for v in values(bootstrap, topic) if v != b"never came"] == [b"aborted", b"one", b"two"]


def test_nothing_more_of_a_transaction_that_failed_is_sent(bootstrap: str, small_topic: str, fresh_name: str) -> None:
    with Producer(bootstrap_servers=bootstrap, transactional_id=fresh_name, linger_ms=0) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(small_topic, b"before").result(60)
        assert isinstance(producer.send(small_topic, LARGE).exception(60), errors.MessageTooLargeError)
        assert isinstance(producer.send(small_topic, b"after").exception(60), errors.MessageTooLargeError)
        with pytest.raises(errors.MessageTooLargeError, match="abort it"):
            producer.commit_transaction()
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send(small_topic, b"next")
        producer.commit_transaction()
    assert values(bootstrap, small_topic) == [b"before", b"next"]
