"""What clients for Python ask of a broker, each in a story of steps like EveryRequest's: librdkafka, kafka-python, aiokafka.

They send some versions that Kafka's own client has no use for any more. `settle_s`: how long the broker is left alone after each step.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import aiokafka
import aiokafka.admin
import confluent_kafka as ck
import confluent_kafka.admin
import kafka
import kafka.admin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Outcomes = dict[str, str]
"""By step: "ok", or the name of what was raised."""

_confluent: Any = confluent_kafka.admin  # their names are not declared as exported
_kafka: Any = kafka
_aio: Any = aiokafka
_S: Final = 40.0


class _Story:
    def __init__(self, left_out: Collection[str], settle_s: float) -> None:
        self.outcomes: Outcomes = {}
        self._left_out = left_out
        self._settle_s = settle_s

    def step(self, name: str, does: Callable[[], object]) -> None:
        """One that fails does not end the story."""
        if name in self._left_out:
            return
        try:
            does()
        except ck.KafkaException as error:
            self.outcomes[name] = str(error.args[0].name())
        except Exception as error:
            self.outcomes[name] = type(error).__name__
        else:
            self.outcomes[name] = "ok"
        time.sleep(self._settle_s)


def _read(some: Callable[[], int]) -> None:
    """Until five records are read. `some` reads and says how many. Raises TimeoutError."""
    deadline = time.monotonic() + _S
    count = 0
    while count < 5:
        if time.monotonic() > deadline:
            raise TimeoutError
        count += some()


def librdkafka(bootstrap: str, name: str, left_out: Collection[str], settle_s: float) -> Outcomes:
    """confluent-kafka. `name` is new; `left_out`: steps not to take."""
    story = _Story(left_out, settle_s)
    base = {"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 10_000}
    admin = _confluent.AdminClient(base)
    where = ck.TopicPartition(name, 0)
    topic = _confluent.ConfigResource(_confluent.ResourceType.TOPIC, name)

    def done(futures: Any) -> Any:
        (future,) = futures.values() if isinstance(futures, dict) else (futures,)
        return future.result(_S)

    def altered() -> None:
        done(admin.alter_configs([_confluent.ConfigResource(_confluent.ResourceType.TOPIC, name, set_config={"retention.ms": "7200000"})]))

    def altered_by_steps() -> None:
        entry = _confluent.ConfigEntry("retention.ms", "3600000", incremental_operation=_confluent.AlterConfigOpType.SET)
        done(admin.incremental_alter_configs([_confluent.ConfigResource(_confluent.ResourceType.TOPIC, name, incremental_configs=[entry])]))

    def produced(settings: dict[str, Any]) -> None:
        failed: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error:
                failed.append(error)

        producer = ck.Producer(base | {"message.timeout.ms": 15_000} | settings)
        for number in range(5):
            producer.produce(name, b"v%d" % number, partition=0, on_delivery=delivered)
        if producer.flush(_S) or failed:
            raise TimeoutError

    def consumed(group: str, settings: dict[str, Any]) -> None:
        consumer = ck.Consumer(base | {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False} | settings)
        try:
            consumer.subscribe([name])
            _read(lambda: len([m for m in consumer.consume(10, 0.2) if not m.error()]))
            consumer.commit(asynchronous=False)
            consumer.committed([where], _S)
            consumer.offsets_for_times([ck.TopicPartition(name, 0, 5)], _S)
            consumer.get_watermark_offsets(where, _S)
        finally:
            consumer.close()

    def transactions() -> None:
        producer = ck.Producer(base | {"transactional.id": name})
        consumer = ck.Consumer(base | {"group.id": f"{name}-tx"})
        producer.init_transactions(_S)
        for commits in (True, False):
            producer.begin_transaction()
            producer.produce(name, b"t", partition=1)
            producer.send_offsets_to_transaction([ck.TopicPartition(name, 0, 1)], consumer.consumer_group_metadata(), _S)
            (producer.commit_transaction if commits else producer.abort_transaction)(_S)
        consumer.close()

    group = ck.ConsumerGroupTopicPartitions
    story.step("create topics", lambda: done(admin.create_topics([_confluent.NewTopic(name, 2, 1)])))
    story.step("create partitions", lambda: done(admin.create_partitions([_confluent.NewPartitions(name, 3)])))
    story.step("list topics", lambda: admin.list_topics(timeout=_S).topics[name])
    story.step("describe topics", lambda: done(admin.describe_topics(ck.TopicCollection([name]), include_authorized_operations=True)))
    story.step("describe cluster", lambda: done(admin.describe_cluster(include_authorized_operations=True)))
    story.step("alter configs", altered)
    story.step("alter configs by steps", altered_by_steps)
    story.step("describe configs", lambda: done(admin.describe_configs([topic])))
    story.step("produce", lambda: produced({}))
    story.step("produce idempotently, lz4", lambda: produced({"enable.idempotence": True, "compression.type": "lz4"}))
    story.step("produce acks=0", lambda: produced({"acks": 0}))
    story.step("consume", lambda: consumed(name, {}))
    story.step("consume as a static member", lambda: consumed(f"{name}-static", {"group.instance.id": "one"}))
    cooperative = {"partition.assignment.strategy": "cooperative-sticky"}
    story.step("consume cooperatively", lambda: consumed(f"{name}-cooperative", cooperative))
    story.step("consume in a consumer group", lambda: consumed(f"{name}-new", {"group.protocol": "consumer"}))
    story.step("transactions", transactions)
    story.step("list offsets", lambda: done(admin.list_offsets({where: _confluent.OffsetSpec.latest()})))
    story.step("list offsets by greatest time", lambda: done(admin.list_offsets({where: _confluent.OffsetSpec.max_timestamp()})))
    story.step("list groups", lambda: done(admin.list_consumer_groups()))
    story.step("describe groups", lambda: done(admin.describe_consumer_groups([name])))
    story.step("list group offsets", lambda: done(admin.list_consumer_group_offsets([group(name)])))
    story.step("alter group offsets", lambda: done(admin.alter_consumer_group_offsets([group(name, [ck.TopicPartition(name, 0, 3)])])))
    story.step("delete records", lambda: done(admin.delete_records([ck.TopicPartition(name, 0, 2)])))
    story.step("elect leaders", lambda: done(admin.elect_leaders(ck.ElectionType.PREFERRED, [where])))
    story.step("delete groups", lambda: done(admin.delete_consumer_groups([name])))
    story.step("delete topics", lambda: done(admin.delete_topics([name])))
    return story.outcomes


def kafka_python(bootstrap: str, name: str, left_out: Collection[str], settle_s: float) -> Outcomes:
    """`name` is new; `left_out`: steps not to take."""
    story = _Story(left_out, settle_s)
    where = _kafka.TopicPartition(name, 0)
    resource = kafka.admin.ConfigResource
    topic = kafka.admin.ConfigResourceType.TOPIC
    made: list[Any] = []

    def connected() -> None:
        made.append(kafka.admin.KafkaAdminClient(bootstrap_servers=bootstrap))

    def produced(**settings: Any) -> None:
        producer = _kafka.KafkaProducer(bootstrap_servers=bootstrap, **settings)
        try:
            for future in [producer.send(name, b"v%d" % number, partition=0) for number in range(5)]:
                future.get(_S)
        finally:
            producer.close(5)

    def consumed(group: str, **settings: Any) -> None:
        consumer = _kafka.KafkaConsumer(name, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", **settings)
        try:
            _read(lambda: sum(map(len, consumer.poll(200).values())))
            consumer.commit()
            consumer.committed(where)
            consumer.offsets_for_times({where: 5})
            consumer.end_offsets([where])
        finally:
            consumer.close()

    def transactions() -> None:
        producer = _kafka.KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
        try:
            producer.init_transactions()
            for commits in (True, False):
                producer.begin_transaction()
                producer.send(name, b"t", partition=1)
                producer.send_offsets_to_transaction({where: kafka.structs.OffsetAndMetadata(1, "", -1)}, f"{name}-tx")
                (producer.commit_transaction if commits else producer.abort_transaction)()
        finally:
            producer.close(5)

    story.step("connect", connected)
    if not made:
        return story.outcomes
    (admin,) = made
    changed = [resource(topic, name, {"retention.ms": "7200000"})]
    story.step("create topics", lambda: admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}}))
    story.step("create partitions", lambda: admin.create_partitions({name: 3}))
    story.step("list topics", admin.list_topics)
    story.step("describe topics", lambda: admin.describe_topics([name]))
    story.step("describe topic partitions", lambda: admin.describe_topic_partitions([name]))
    story.step("describe cluster", admin.describe_cluster)
    story.step("describe features", admin.describe_features)
    story.step("describe quorum", admin.describe_metadata_quorum)
    story.step("alter configs", lambda: admin.alter_configs(changed, incremental=False))
    story.step("alter configs by steps", lambda: admin.alter_configs(changed, incremental=True))
    story.step("describe configs", lambda: admin.describe_configs([resource(topic, name)]))
    story.step("list config resources", admin.list_config_resources)
    story.step("describe log dirs", admin.describe_log_dirs)
    story.step("produce", lambda: produced(enable_idempotence=False))
    story.step("produce idempotently, gzip", lambda: produced(compression_type="gzip"))
    story.step("produce acks=0", lambda: produced(acks=0, enable_idempotence=False))
    story.step("consume", lambda: consumed(name))
    story.step("consume as a static member", lambda: consumed(f"{name}-static", group_instance_id="one"))
    story.step("consume what is committed", lambda: consumed(f"{name}-committed", isolation_level="read_committed"))
    story.step("transactions", transactions)
    story.step("list transactions", admin.list_transactions)
    story.step("describe transactions", lambda: admin.describe_transactions([name]))
    story.step("describe producers", lambda: admin.describe_producers([where]))
    story.step("list offsets", lambda: admin.list_partition_offsets({where: kafka.admin.OffsetSpec.LATEST}))
    story.step("list groups", admin.list_groups)
    story.step("describe groups", lambda: admin.describe_groups([name]))
    story.step("list group offsets", lambda: admin.list_group_offsets({name: [where]}))
    story.step("delete records", lambda: admin.delete_records({where: 2}))
    story.step("list reassignments", admin.list_partition_reassignments)
    story.step("delete groups", lambda: admin.delete_groups([name]))
    story.step("delete topics", lambda: admin.delete_topics([name]))
    admin.close()
    return story.outcomes


def aiokafka_client(bootstrap: str, name: str, left_out: Collection[str], settle_s: float) -> Outcomes:
    """`name` is new; `left_out`: steps not to take."""
    story = _Story(left_out, settle_s)
    where = _aio.TopicPartition(name, 0)
    resource = aiokafka.admin.config_resource.ConfigResource
    topic = aiokafka.admin.config_resource.ConfigResourceType.TOPIC

    def by_admin(does: Callable[[Any], Any]) -> Callable[[], None]:
        async def run() -> None:
            admin: Any = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            try:
                await asyncio.wait_for(does(admin), _S)
            finally:
                await admin.close()

        return lambda: asyncio.run(run())

    def produced(**settings: Any) -> Callable[[], None]:
        async def run() -> None:
            producer = _aio.AIOKafkaProducer(bootstrap_servers=bootstrap, **settings)
            await producer.start()
            try:
                if "transactional_id" in settings:
                    for commits in (True, False):
                        await producer.begin_transaction()
                        await producer.send_and_wait(name, b"t", partition=1)
                        await producer.send_offsets_to_transaction({where: 1}, f"{name}-tx")
                        await (producer.commit_transaction if commits else producer.abort_transaction)()
                else:
                    for number in range(5):
                        await asyncio.wait_for(producer.send_and_wait(name, b"v%d" % number, partition=0), _S)
            finally:
                await producer.stop()

        return lambda: asyncio.run(asyncio.wait_for(run(), 2 * _S))

    def consumed(**settings: Any) -> Callable[[], None]:
        async def run() -> None:
            consumer = _aio.AIOKafkaConsumer(name, bootstrap_servers=bootstrap, group_id=name, auto_offset_reset="earliest", **settings)
            await consumer.start()
            try:
                read = 0
                while read < 5:
                    read += sum(map(len, (await consumer.getmany(timeout_ms=200)).values()))
                await consumer.commit()
                await consumer.offsets_for_times({where: 5})
            finally:
                await consumer.stop()

        return lambda: asyncio.run(asyncio.wait_for(run(), 2 * _S))

    story.step("create topics", by_admin(lambda admin: admin.create_topics([aiokafka.admin.NewTopic(name, 2, 1)])))
    story.step("create partitions", by_admin(lambda admin: admin.create_partitions({name: aiokafka.admin.NewPartitions(3)})))
    story.step("describe topics", by_admin(lambda admin: admin.describe_topics([name])))
    story.step("describe cluster", by_admin(lambda admin: admin.describe_cluster()))
    story.step("alter configs", by_admin(lambda admin: admin.alter_configs([resource(topic, name, {"retention.ms": "7200000"})])))
    story.step("describe configs", by_admin(lambda admin: admin.describe_configs([resource(topic, name)])))
    story.step("produce", produced())
    story.step("produce idempotently", produced(enable_idempotence=True))
    story.step("transactions", produced(transactional_id=name))
    story.step("consume", consumed())
    story.step("list groups", by_admin(lambda admin: admin.list_consumer_groups()))
    story.step("describe groups", by_admin(lambda admin: admin.describe_consumer_groups([name])))
    story.step("list group offsets", by_admin(lambda admin: admin.list_consumer_group_offsets(name)))
    story.step("delete records", by_admin(lambda admin: admin.delete_records({where: aiokafka.admin.RecordsToDelete(2)})))
    story.step("delete topics", by_admin(lambda admin: admin.delete_topics([name])))
    return story.outcomes
