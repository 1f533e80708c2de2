"""An online store: purchases are events, and services that know nothing of each other read them.

    python examples/store.py [HOST:PORT]      (without an address: on a broker that ends with it)

Each service is a consumer group of its own: it sees every purchase, at its own pace, and comes back where it was. Shipping has two members
that share the work. Loyalty is opened last: it replays all that was ever bought.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

import fastlog
from fastlog.client import Admin, Consumer, Producer, errors

TOPIC = "purchases"
PRICES = {"apple": 50, "pear": 65, "plum": 30, "fig": 120}  # cents


@dataclass(frozen=True)
class Purchase:
    order: int
    customer: str
    item: str
    quantity: int
    cents: int


def to_json(purchase: Purchase) -> bytes:
    return json.dumps(asdict(purchase)).encode()


def from_json(data: bytes) -> Purchase:
    return Purchase(**json.loads(data))


class Service(threading.Thread):
    """One member of a service's group; `handle` gets each purchase. Start more with the same name and they share the partitions."""

    def __init__(self, bootstrap: str, name: str, handle: Callable[[Purchase], None]) -> None:
        super().__init__(name=name)
        self.bootstrap = bootstrap
        self.handle = handle
        self.handled = 0
        self.closing = threading.Event()

    def run(self) -> None:
        with Consumer(
            bootstrap_servers=self.bootstrap,
            group_id=self.name,
            auto_offset_reset="earliest",  # a new group begins with the first purchase ever made
            enable_auto_commit=False,
            value_deserializer=from_json,
        ) as consumer:
            consumer.subscribe([TOPIC])
            while not self.closing.is_set():
                records = consumer.poll(500, timeout=0.2)
                for record in records:
                    self.handle(record.value)
                if records:
                    consumer.commit()  # after the work: a crash repeats some, and loses none
                    self.handled += len(records)


class Store:
    """What the services have come to, and the services."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.stock = Counter(dict.fromkeys(PRICES, 10_000))
        self.paid: Counter[str] = Counter()  # cents by customer
        self.parcels: Counter[str] = Counter()  # by customer
        self.points: Counter[str] = Counter()  # by customer
        self.services: list[Service] = []
        self._lock = threading.Lock()  # shipping counts in two threads

    def open(self, name: str, handle: Callable[[Purchase], None]) -> None:
        self.services.append(Service(self.bootstrap, name, handle))
        self.services[-1].start()

    def take_from_stock(self, purchase: Purchase) -> None:
        self.stock[purchase.item] -= purchase.quantity

    def charge(self, purchase: Purchase) -> None:
        self.paid[purchase.customer] += purchase.cents

    def ship(self, purchase: Purchase) -> None:
        with self._lock:
            self.parcels[purchase.customer] += 1

    def reward(self, purchase: Purchase) -> None:
        self.points[purchase.customer] += purchase.cents // 100

    def wait(self, name: str, purchases: int, timeout: float = 60) -> None:
        """Until a service has handled so many."""
        deadline = time.monotonic() + timeout
        while sum(s.handled for s in self.services if s.name == name) < purchases:
            if time.monotonic() > deadline:
                raise TimeoutError(name)
            time.sleep(0.01)

    def close(self) -> None:
        for service in self.services:
            service.closing.set()
        for service in self.services:
            service.join()


def sell(bootstrap: str, purchases: int) -> None:
    """The shop's side: it tells what was bought, and is done. A customer's purchases stay in order, as they have one key."""
    chance = random.Random(1)
    with Producer(bootstrap_servers=bootstrap, value_serializer=to_json, key_serializer=str.encode) as producer:
        for order in range(purchases):
            customer, item, quantity = f"customer-{chance.randrange(20)}", chance.choice(list(PRICES)), chance.randint(1, 5)
            producer.send(TOPIC, Purchase(order, customer, item, quantity, quantity * PRICES[item]), customer)


def main(bootstrap: str, purchases: int = 2000) -> Store:
    with Admin(bootstrap) as admin:
        try:
            admin.create_topic(TOPIC, partitions=4)
        except errors.TopicAlreadyExistsError:
            print("purchases of an earlier run are there, and count as well")
        before = admin.counts([admin.topic(TOPIC)])[TOPIC]

    store = Store(bootstrap)
    store.open("inventory", store.take_from_stock)
    store.open("payment", store.charge)
    store.open("shipping", store.ship)
    store.open("shipping", store.ship)
    try:
        sell(bootstrap, purchases)
        for name in ("inventory", "payment", "shipping"):
            store.wait(name, purchases)
        print(f"sold {purchases}; in stock: {dict(store.stock)}")
        print(f"paid: {sum(store.paid.values()) / 100:,.2f}; parcels: {store.parcels.total():,}")

        store.open("loyalty", store.reward)  # weeks later
        store.wait("loyalty", before + purchases)
        print(f"loyalty points from all purchases ever: {store.points.total():,}")
    finally:
        store.close()
    return store


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with fastlog.embedded() as broker:
            main(broker.bootstrap_servers)
