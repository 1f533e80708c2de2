"""Settings of Kafka 4.3's broker that have nothing to act on here.

Most are kept and shown, so that a server.properties and the tools that people have work; their documentation says that they have no
effect, and why. Those of security, and the names of Java classes to load, are refused unless they say what holds anyway: whoever sets
them must not believe that they are in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastlog.config.keys import ConfigError, Key, Mode, Type, at_least, between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlog.config.keys import Check

# Why, then one setting a line: name, type, whether Kafka lets it be changed while it runs, default ("" is empty, none is null), bounds of
# numbers (1.. is at least 1).
_KEPT: Final = (
    (
        "metrics are served under /metrics (--metrics), and no plugin can be loaded",
        """
kafka.metrics.polling.interval.secs INT fixed 10 1..
kafka.metrics.reporters LIST fixed ""
metric.reporters LIST dynamic org.apache.kafka.common.metrics.JmxReporter
metrics.num.samples INT fixed 2 1..
metrics.recording.level STRING fixed INFO
metrics.sample.window.ms LONG fixed 30000 1..
        """,
    ),
    (
        "there is no tiered storage",
        """
follower.fetch.last.tiered.offset.enable BOOLEAN dynamic false
remote.fetch.max.wait.ms INT dynamic 500 1..
remote.list.offsets.request.timeout.ms LONG dynamic 30000 1..
remote.log.index.file.cache.total.size.bytes LONG dynamic 1073741824 1..
remote.log.manager.copier.thread.pool.size INT dynamic 10 1..
remote.log.manager.copy.max.bytes.per.second LONG dynamic 9223372036854775807 1..
remote.log.manager.copy.quota.window.num INT fixed 11 1..
remote.log.manager.copy.quota.window.size.seconds INT fixed 1 1..
remote.log.manager.expiration.thread.pool.size INT dynamic 10 1..
remote.log.manager.fetch.max.bytes.per.second LONG dynamic 9223372036854775807 1..
remote.log.manager.fetch.quota.window.num INT fixed 11 1..
remote.log.manager.fetch.quota.window.size.seconds INT fixed 1 1..
remote.log.manager.follower.thread.pool.size INT dynamic 2 1..
remote.log.manager.task.interval.ms LONG fixed 30000 1..
remote.log.manager.thread.pool.size INT fixed 2 1..
remote.log.metadata.custom.metadata.max.bytes INT fixed 128 0..
remote.log.metadata.manager.class.name STRING fixed org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager
remote.log.metadata.manager.class.path STRING fixed
remote.log.metadata.manager.impl.prefix STRING fixed rlmm.config.
remote.log.metadata.manager.listener.name STRING fixed
remote.log.reader.max.pending.tasks INT fixed 100 1..
remote.log.reader.threads INT dynamic 10 1..
remote.log.storage.manager.class.name STRING fixed
remote.log.storage.manager.class.path STRING fixed
remote.log.storage.manager.impl.prefix STRING fixed rsm.config.
remote.log.storage.system.enable BOOLEAN fixed false
        """,
    ),
    (
        "there is no KRaft quorum: one node keeps the metadata, in SQLite",
        """
broker.heartbeat.interval.ms INT fixed 2000
broker.session.timeout.ms INT fixed 9000
controlled.shutdown.enable BOOLEAN fixed true
controller.listener.names LIST fixed
controller.quorum.append.linger.ms INT fixed 25 0..
controller.quorum.auto.join.enable BOOLEAN fixed false
controller.quorum.bootstrap.servers LIST fixed ""
controller.quorum.election.backoff.max.ms INT fixed 1000 0..
controller.quorum.election.timeout.ms INT fixed 1000 0..
controller.quorum.fetch.max.bytes INT fixed 1048576 1..
controller.quorum.fetch.snapshot.max.bytes INT fixed 1048576 1..
controller.quorum.fetch.timeout.ms INT fixed 2000 0..
controller.quorum.request.timeout.ms INT fixed 2000 0..
controller.quorum.retry.backoff.ms INT fixed 20 0..
controller.quorum.voters LIST fixed ""
controller.socket.timeout.ms INT fixed 30000
initial.broker.registration.timeout.ms INT fixed 60000
inter.broker.listener.name STRING fixed
listener.security.protocol.map STRING dynamic PLAINTEXT:PLAINTEXT
metadata.log.dir STRING fixed
metadata.log.max.record.bytes.between.snapshots LONG fixed 20971520 1..
metadata.log.max.snapshot.interval.ms LONG fixed 3600000 0..
metadata.log.segment.bytes INT fixed 1073741824 8388608..
metadata.log.segment.ms LONG fixed 604800000
metadata.max.idle.interval.ms INT fixed 500 0..
metadata.max.retention.bytes LONG fixed 104857600
metadata.max.retention.ms LONG fixed 604800000
process.roles LIST fixed broker,controller
        """,
    ),
    (
        "share groups are not served",
        """
group.share.assignment.interval.ms INT dynamic 1000 0..
group.share.assignors LIST fixed simple
group.share.delivery.count.limit INT fixed 5 2..10
group.share.heartbeat.interval.ms INT fixed 5000 1..
group.share.max.assignment.interval.ms INT fixed 15000 0..
group.share.max.delivery.count.limit INT fixed 10 5..25
group.share.max.heartbeat.interval.ms INT fixed 15000 1..
group.share.max.partition.max.record.locks INT fixed 4000 2000..10000
group.share.max.record.lock.duration.ms INT fixed 60000 30000..3600000
group.share.max.session.timeout.ms INT fixed 60000 1..
group.share.max.share.sessions INT fixed 2000 1..
group.share.max.size INT fixed 200 1..1000
group.share.min.assignment.interval.ms INT fixed 0 0..
group.share.min.delivery.count.limit INT fixed 2 2..5
group.share.min.heartbeat.interval.ms INT fixed 5000 1..
group.share.min.partition.max.record.locks INT fixed 100 100..2000
group.share.min.record.lock.duration.ms INT fixed 15000 1000..30000
group.share.min.session.timeout.ms INT fixed 45000 1..
group.share.partition.max.record.locks INT fixed 2000 100..10000
group.share.record.lock.duration.ms INT fixed 30000 1000..3600000
group.share.session.timeout.ms INT fixed 45000 1..
share.coordinator.append.linger.ms INT fixed -1 -1..
share.coordinator.cached.buffer.max.bytes INT dynamic 1048588 524288..
share.coordinator.load.buffer.size INT fixed 5242880 1..
share.coordinator.snapshot.update.records.per.snapshot INT fixed 500 0..500
share.coordinator.state.topic.compression.codec INT fixed 0
share.coordinator.state.topic.min.isr SHORT fixed 2 1..
share.coordinator.state.topic.num.partitions INT fixed 50 1..
share.coordinator.state.topic.replication.factor SHORT fixed 3 1..
share.coordinator.state.topic.segment.bytes INT fixed 104857600 1..
share.coordinator.threads INT fixed 1 1..
share.coordinator.write.timeout.ms INT fixed 5000 1..
share.fetch.purgatory.purge.interval.requests INT fixed 1000
        """,
    ),
    (
        "the streams group protocol is not served",
        """
group.streams.assignment.interval.ms INT dynamic 1000 0..
group.streams.heartbeat.interval.ms INT fixed 5000 1..
group.streams.initial.rebalance.delay.ms INT fixed 3000 0..
group.streams.max.assignment.interval.ms INT fixed 15000 0..
group.streams.max.heartbeat.interval.ms INT fixed 15000 1..
group.streams.max.session.timeout.ms INT fixed 60000 1..
group.streams.max.size INT fixed 2147483647 1..
group.streams.max.standby.replicas INT fixed 2 0..
group.streams.min.assignment.interval.ms INT fixed 0 0..
group.streams.min.heartbeat.interval.ms INT fixed 5000 1..
group.streams.min.session.timeout.ms INT fixed 45000 1..
group.streams.num.standby.replicas INT fixed 0 0..
group.streams.session.timeout.ms INT fixed 45000 1..
        """,
    ),
    (
        "the broker sizes this by itself, or the group protocol that it belongs to is not served",
        """
group.coordinator.append.linger.ms INT fixed -1 -1..
group.coordinator.background.threads INT fixed 2 1..
group.coordinator.cached.buffer.max.bytes INT dynamic 1048588 524288..
group.coordinator.rebalance.protocols LIST fixed classic,consumer,streams
group.coordinator.threads INT fixed 4 1..
        """,
    ),
    (
        "transactions do not use it",
        """
add.partitions.to.txn.retry.backoff.ms INT fixed 20 1..
transaction.state.log.min.isr INT fixed 2 1..
transaction.state.log.replication.factor SHORT fixed 3 1..
transaction.two.phase.commit.enable BOOLEAN fixed false
        """,
    ),
    (
        "compaction does not use it",
        """
log.cleaner.io.buffer.load.factor DOUBLE dynamic 0.9
log.cleaner.io.buffer.size INT dynamic 524288 0..
        """,
    ),
    (
        "there is one node, whose partitions stay where they are",
        """
alter.log.dirs.replication.quota.window.num INT fixed 11 1..
alter.log.dirs.replication.quota.window.size.seconds INT fixed 1 1..
auto.leader.rebalance.enable BOOLEAN fixed true
cordoned.log.dirs LIST dynamic ""
leader.imbalance.check.interval.seconds LONG fixed 300 1..
log.dir LIST fixed /tmp/kafka-logs
log.dir.failure.timeout.ms LONG fixed 30000 1..
num.replica.alter.log.dirs.threads INT fixed
num.replica.fetchers INT dynamic 1 1..
replica.fetch.backoff.ms INT fixed 1000 0..
replica.fetch.max.bytes INT fixed 1048576 0..
replica.fetch.min.bytes INT fixed 1
replica.fetch.response.max.bytes INT fixed 10485760 0..
replica.fetch.wait.max.ms INT fixed 500
replica.high.watermark.checkpoint.interval.ms LONG fixed 5000
replica.lag.time.max.ms LONG fixed 30000
replica.socket.receive.buffer.bytes INT fixed 65536
replica.socket.timeout.ms INT fixed 30000
replication.quota.window.num INT fixed 11 1..
replication.quota.window.size.seconds INT fixed 1 1..
request.timeout.ms INT fixed 30000
socket.connection.setup.timeout.max.ms LONG fixed 30000
socket.connection.setup.timeout.ms LONG fixed 10000
        """,
    ),
    (
        "connections are bounded together, by max.connections",
        """
max.connection.creation.rate INT dynamic 2147483647 0..
max.connections.per.ip INT dynamic 2147483647 0..
max.connections.per.ip.overrides STRING dynamic ""
        """,
    ),
    (
        "the broker sizes its threads, queues and buffers by itself",
        """
background.threads INT dynamic 10 1..
delete.records.purgatory.purge.interval.requests INT fixed 1
fetch.purgatory.purge.interval.requests INT fixed 1000
log.flush.offset.checkpoint.interval.ms INT fixed 60000 0..
log.flush.start.offset.checkpoint.interval.ms INT fixed 60000 0..
num.io.threads INT dynamic 8 1..
num.network.threads INT dynamic 3 1..
num.recovery.threads.per.data.dir INT dynamic 2 1..
producer.purgatory.purge.interval.requests INT fixed 1000
queued.max.request.bytes LONG fixed -1
queued.max.requests INT fixed 500 1..
socket.listen.backlog.size INT fixed 50 1..
socket.receive.buffer.bytes INT fixed 102400
socket.send.buffer.bytes INT fixed 102400
        """,
    ),
)
_REFUSED: Final = (
    (
        "there is no TLS, no SASL and no authorizer",
        """
authorizer.class.name STRING fixed ""
connection.failed.authentication.delay.ms INT fixed 100
connections.max.reauth.ms LONG fixed 0
delegation.token.expiry.check.interval.ms LONG fixed 3600000
delegation.token.expiry.time.ms LONG fixed 86400000
delegation.token.max.lifetime.ms LONG fixed 604800000
delegation.token.secret.key PASSWORD fixed
early.start.listeners LIST fixed
principal.builder.class CLASS dynamic org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder
sasl.client.callback.handler.class CLASS fixed
sasl.enabled.mechanisms LIST dynamic GSSAPI
sasl.jaas.config PASSWORD dynamic
sasl.kerberos.kinit.cmd STRING dynamic /usr/bin/kinit
sasl.kerberos.min.time.before.relogin LONG dynamic 60000
sasl.kerberos.principal.to.local.rules LIST dynamic DEFAULT
sasl.kerberos.service.name STRING dynamic
sasl.kerberos.ticket.renew.jitter DOUBLE dynamic 0.05
sasl.kerberos.ticket.renew.window.factor DOUBLE dynamic 0.8
sasl.login.callback.handler.class CLASS fixed
sasl.login.class CLASS fixed
sasl.login.connect.timeout.ms INT fixed
sasl.login.read.timeout.ms INT fixed
sasl.login.refresh.buffer.seconds SHORT dynamic 300
sasl.login.refresh.min.period.seconds SHORT dynamic 60
sasl.login.refresh.window.factor DOUBLE dynamic 0.8
sasl.login.refresh.window.jitter DOUBLE dynamic 0.05
sasl.login.retry.backoff.max.ms LONG fixed 10000
sasl.login.retry.backoff.ms LONG fixed 100
sasl.mechanism.controller.protocol STRING fixed GSSAPI
sasl.mechanism.inter.broker.protocol STRING dynamic GSSAPI
sasl.oauthbearer.assertion.algorithm STRING fixed RS256
sasl.oauthbearer.assertion.claim.aud STRING fixed
sasl.oauthbearer.assertion.claim.exp.seconds INT fixed 300
sasl.oauthbearer.assertion.claim.iss STRING fixed
sasl.oauthbearer.assertion.claim.jti.include BOOLEAN fixed false
sasl.oauthbearer.assertion.claim.nbf.seconds INT fixed 60
sasl.oauthbearer.assertion.claim.sub STRING fixed
sasl.oauthbearer.assertion.file STRING fixed
sasl.oauthbearer.assertion.private.key.file STRING fixed
sasl.oauthbearer.assertion.private.key.passphrase PASSWORD fixed
sasl.oauthbearer.assertion.template.file STRING fixed
sasl.oauthbearer.client.credentials.client.id STRING fixed
sasl.oauthbearer.client.credentials.client.secret PASSWORD fixed
sasl.oauthbearer.clock.skew.seconds INT fixed 30
sasl.oauthbearer.expected.audience LIST fixed ""
sasl.oauthbearer.expected.issuer STRING fixed
sasl.oauthbearer.jwks.endpoint.refresh.ms LONG fixed 3600000
sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms LONG fixed 10000
sasl.oauthbearer.jwks.endpoint.retry.backoff.ms LONG fixed 100
sasl.oauthbearer.jwks.endpoint.url STRING fixed
sasl.oauthbearer.jwt.retriever.class CLASS fixed org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever
sasl.oauthbearer.jwt.validator.class CLASS fixed org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator
sasl.oauthbearer.scope STRING fixed
sasl.oauthbearer.scope.claim.name STRING fixed scope
sasl.oauthbearer.sub.claim.name STRING fixed sub
sasl.oauthbearer.token.endpoint.url STRING fixed
sasl.server.callback.handler.class CLASS fixed
sasl.server.max.receive.size INT fixed 524288
security.inter.broker.protocol STRING fixed PLAINTEXT
security.providers STRING fixed
ssl.allow.dn.changes BOOLEAN fixed false
ssl.allow.san.changes BOOLEAN fixed false
ssl.cipher.suites LIST dynamic ""
ssl.client.auth STRING dynamic none
ssl.enabled.protocols LIST dynamic TLSv1.2,TLSv1.3
ssl.endpoint.identification.algorithm STRING dynamic https
ssl.engine.factory.class CLASS dynamic
ssl.key.password PASSWORD dynamic
ssl.keymanager.algorithm STRING dynamic SunX509
ssl.keystore.certificate.chain PASSWORD dynamic
ssl.keystore.key PASSWORD dynamic
ssl.keystore.location STRING dynamic
ssl.keystore.password PASSWORD dynamic
ssl.keystore.type STRING dynamic JKS
ssl.principal.mapping.rules STRING fixed DEFAULT
ssl.protocol STRING dynamic TLSv1.3
ssl.provider STRING dynamic
ssl.secure.random.implementation STRING dynamic
ssl.trustmanager.algorithm STRING dynamic PKIX
ssl.truststore.certificates PASSWORD dynamic
ssl.truststore.location STRING dynamic
ssl.truststore.password PASSWORD dynamic
ssl.truststore.type STRING dynamic JKS
        """,
    ),
    (
        "Java classes can't be loaded",
        """
alter.config.policy.class.name CLASS fixed
client.quota.callback.class CLASS fixed
config.providers LIST dynamic ""
create.topic.policy.class.name CLASS fixed
replica.selector.class STRING fixed
        """,
    ),
)


def _rows(text: str) -> Iterator[tuple[str, Type, Mode, str | None, Check | None]]:
    for line in text.strip().splitlines():
        name, kind, mode, *more = line.split()
        check = _bounds(more.pop()) if more and ".." in more[-1] else None
        default = more[0].replace('""', "") if more else None
        yield name, Type[kind], Mode.CLUSTER if mode == "dynamic" else Mode.READ_ONLY, default, check


def _bounds(text: str) -> Check:
    low, _, high = text.partition("..")
    return between(int(low), int(high)) if high else at_least(int(low))


def _kept() -> Iterator[Key]:
    for why, text in _KEPT:
        for name, kind, mode, default, check in _rows(text):
            yield Key(name, kind, default, f"Kept and shown; without effect: {why}.", check, mode=mode, without_effect=True)


def _refused() -> Iterator[Key]:
    for why, text in _REFUSED:
        for name, kind, mode, default, _ in _rows(text):
            doc = f"Only its default can be set: {why}."
            yield Key(name, kind, default, doc, _only(default, why), mode=mode, without_effect=True)


def _only(default: str | None, why: str) -> Any:
    def check(name: str, value: Any) -> None:
        text = ",".join(value) if isinstance(value, list) else str(value)
        if text.lower() != (default or "").lower():
            raise ConfigError(f"{name} can't be set: {why}")

    return check


KEPT_KEYS: Final = (*_kept(), *_refused())
