"""The administration clients of confluent-kafka and kafka-python, on what one node can be asked."""

from __future__ import annotations

from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource as PythonResource
from kafka.admin import ConfigResourceType

confluent: Any = confluent_kafka.admin  # its names are not declared as exported
pytestmark = pytest.mark.one_engine


def done(futures: dict[Any, Any]) -> Any:
    """The result of the only thing that was asked for."""
    (future,) = futures.values()
    try:
        return future.result(30)
    finally:  # a failure holds this frame: with the future in it, it would hold itself, and the client, until the next collection
        del future, futures


def test_confluent_kafka(bootstrap: str, fresh_name: str) -> None:
    admin = confluent.AdminClient({"bootstrap.servers": bootstrap})
    done(admin.create_topics([confluent.NewTopic(fresh_name, 2, 1, config={"retention.ms": "3600000"})]))
    with pytest.raises(ck.KafkaException, match="already exists"):
        done(admin.create_topics([confluent.NewTopic(fresh_name, 2, 1)]))
    done(admin.create_partitions([confluent.NewPartitions(fresh_name, 3)]))
    described = done(admin.describe_topics(ck.TopicCollection([fresh_name]), include_authorized_operations=True))
    assert (len(described.partitions), described.partitions[0].leader.id, described.is_internal) == (3, 1, False)
    assert described.authorized_operations
    cluster = admin.describe_cluster(include_authorized_operations=True).result(30)
    assert ([node.id for node in cluster.nodes], cluster.controller.id) == ([1], 1)

    def topic(*changes: Any) -> Any:
        return confluent.ConfigResource(confluent.ResourceType.TOPIC, fresh_name, incremental_configs=list(changes))

    set_policy = confluent.ConfigEntry("cleanup.policy", "compact", incremental_operation=confluent.AlterConfigOpType.APPEND)
    unset = confluent.ConfigEntry("retention.ms", None, incremental_operation=confluent.AlterConfigOpType.DELETE)
    done(admin.incremental_alter_configs([topic(set_policy, unset)]))
    shown = done(admin.describe_configs([confluent.ConfigResource(confluent.ResourceType.TOPIC, fresh_name)]))
    assert (shown["cleanup.policy"].value, shown["retention.ms"].value) == ("delete,compact", "604800000")
    assert shown["retention.ms"].is_default
    wrong = confluent.ConfigEntry("retention.ms", "x", incremental_operation=confluent.AlterConfigOpType.SET)
    with pytest.raises(ck.KafkaException, match="Not a number of type LONG"):
        done(admin.incremental_alter_configs([topic(wrong)]))
    broker = done(admin.describe_configs([confluent.ConfigResource(confluent.ResourceType.BROKER, "1")]))
    assert broker["num.partitions"].is_read_only
    done(admin.delete_topics([fresh_name]))


def test_kafka_python(bootstrap: str, fresh_name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics({fresh_name: {"num_partitions": 2, "replication_factor": 1}})
        (directory, *_) = admin.describe_log_dirs()
        assert directory
        shown = admin.describe_configs([PythonResource(ConfigResourceType.TOPIC, fresh_name)], config_filter="all")
        assert "retention.ms" in str(shown)
        admin.delete_topics([fresh_name])
    finally:
        admin.close()
