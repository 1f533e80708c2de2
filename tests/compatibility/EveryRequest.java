import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * All that Kafka's own client can ask of a broker, in one story: admin, producer, both kinds of consumer, transactions.
 *
 * Usage: EveryRequest BOOTSTRAP NAME [STEP...], where NAME is new, and the steps are left out. Prints a line for each step: its name, a tab,
 * and "ok" or the exception's name and, after another tab, what it says. Steps are independent where they can be: one that fails does not end the story.
 */
public final class EveryRequest {
    private interface Step {
        void run() throws Exception;
    }

    private static final int SECONDS = 20;
    private static final long DEADLINE_MS = 20_000;

    private final String bootstrap;
    private final String name;
    private final TopicPartition first;
    private final Set<String> leftOut;
    private final Admin admin;

    private EveryRequest(String bootstrap, String name, Set<String> leftOut) {
        this.leftOut = leftOut;
        this.bootstrap = bootstrap;
        this.name = name;
        this.first = new TopicPartition(name, 0);
        this.admin = Admin.create(settings(Map.of()));
    }

    public static void main(String[] args) throws Exception {
        EveryRequest story = new EveryRequest(args[0], args[1], Set.of(Arrays.copyOfRange(args, 2, args.length)));
        story.topics();
        story.records();
        story.groups();
        story.consumerGroups();
        story.transactions();
        story.node();
        story.ends();
        story.admin.close(Duration.ofSeconds(5));
    }

    private Properties settings(Map<String, Object> more) {
        Properties made = new Properties();
        made.put("bootstrap.servers", bootstrap);
        made.put("default.api.timeout.ms", "20000");
        made.put("request.timeout.ms", "15000");
        made.putAll(more);
        return made;
    }

    private void step(String what, Step step) {
        if (leftOut.contains(what)) {
            return;
        }
        try {
            step.run();
            System.out.println(what + "\tok");
        } catch (Throwable thrown) {
            Throwable why = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
            String said = String.valueOf(why.getMessage()).replaceAll("\\s+", " ");
            System.out.println(what + "\t" + why.getClass().getSimpleName() + "\t" + said);
        }
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(SECONDS, TimeUnit.SECONDS);
    }

    private static void check(boolean holds, Object what) {
        if (!holds) {
            throw new AssertionError(String.valueOf(what));
        }
    }

    /** Kafka answers a change before all its parts know of it, so what is asked next may take a while to hold. */
    private static void soon(Step step) throws Exception {
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        while (true) {
            try {
                step.run();
                return;
            } catch (AssertionError | ExecutionException notYet) {
                if (System.currentTimeMillis() > deadline || notYet.getCause() instanceof UnsupportedVersionException) {
                    throw notYet;
                }
                Thread.sleep(50);
            }
        }
    }

    private KafkaProducer<String, String> producer(Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(
            Map.of("max.block.ms", "20000", "delivery.timeout.ms", "20000", "request.timeout.ms", "10000", "linger.ms", "0"));
        all.putAll(more);
        return new KafkaProducer<>(settings(all), new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(Map.of("auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        all.putAll(more);
        return new KafkaConsumer<>(settings(all), new StringDeserializer(), new StringDeserializer());
    }

    private List<String> read(KafkaConsumer<String, String> consumer, int count) {
        List<String> found = new ArrayList<>();
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        while (found.size() < count) {
            check(System.currentTimeMillis() < deadline, "read " + found.size() + " of " + count);
            consumer.poll(Duration.ofMillis(100)).forEach(each -> found.add(each.value()));
        }
        return found;
    }

    private void topics() {
        step("createTopics", () -> get(admin.createTopics(
            List.of(new NewTopic(name, 2, (short) 1), new NewTopic(name + "-b", Map.of(0, List.of(1))))).all()));
        step("createTopics looked at only", () -> get(
            admin.createTopics(List.of(new NewTopic(name + "-c", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all()));
        step("createTopics again", () -> get(admin.createTopics(List.of(new NewTopic(name, 2, (short) 1))).all()));
        step("createTopics with defaults", () -> get(
            admin.createTopics(List.of(new NewTopic(name + "-d", Optional.empty(), Optional.empty()))).all()));
        step("listTopics", () -> soon(() -> check(get(admin.listTopics().names()).contains(name), "not in the list")));
        step("describeTopics", () -> soon(() -> check(
            get(admin.describeTopics(List.of(name)).allTopicNames()).get(name).partitions().size() == 2, "partitions")));
        step("describeTopics with operations", () -> get(
            admin.describeTopics(List.of(name), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames()));
        step("describeTopics by id", () -> {
            Uuid id = get(admin.describeTopics(List.of(name)).allTopicNames()).get(name).topicId();
            check(get(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds()).get(id).name().equals(name), "name");
        });
        step("createPartitions", () -> get(admin.createPartitions(Map.of(name + "-b", NewPartitions.increaseTo(3))).all()));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
        step("incrementalAlterConfigs", () -> get(admin.incrementalAlterConfigs(
            Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET)))).all()));
        step("describeConfigs", () -> soon(() -> check(
            get(admin.describeConfigs(List.of(resource)).all()).get(resource).get("retention.ms").value().equals("7200000"), "value")));
        step("describeConfigs with documentation", () -> get(admin.describeConfigs(
            List.of(resource, new ConfigResource(ConfigResource.Type.BROKER, "1")),
            new DescribeConfigsOptions().includeDocumentation(true).includeSynonyms(true)).all()));
        step("listConfigResources", () -> get(admin.listConfigResources().all()));
        step("listConfigResources of groups", () -> get(
            admin.listConfigResources(Set.of(ConfigResource.Type.GROUP), new ListConfigResourcesOptions()).all()));
    }

    private void records() {
        for (String acks : List.of("all", "1", "0")) {
            step("produce acks=" + acks, () -> {
                try (KafkaProducer<String, String> producer = producer(
                    Map.of("acks", acks, "enable.idempotence", "false", "compression.type", acks.equals("1") ? "gzip" : "none"))) {
                    for (int n = 0; n < 5; n++) {
                        producer.send(new ProducerRecord<>(name, 0, 1000L + n, "k", acks + n)).get(SECONDS, TimeUnit.SECONDS);
                    }
                }
            });
        }
        step("produce idempotently, lz4", () -> {
            try (KafkaProducer<String, String> producer = producer(Map.of("compression.type", "lz4"))) {
                for (int n = 0; n < 5; n++) {
                    producer.send(new ProducerRecord<>(name, 1, null, "i" + n)).get(SECONDS, TimeUnit.SECONDS);
                }
            }
        });
        step("read what is assigned", () -> {
            try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
                List<TopicPartition> both = List.of(first, new TopicPartition(name, 1));
                consumer.assign(both);
                consumer.seekToBeginning(both);
                check(read(consumer, 20).size() == 20, "records");
                check(consumer.endOffsets(List.of(first)).get(first) == 15L, "end");
                check(consumer.beginningOffsets(List.of(first)).get(first) == 0L, "beginning");
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(first, 1003L)).get(first);
                check(found.offset() == 3 && found.timestamp() == 1003, found);
                check(consumer.partitionsFor(name).size() == 2, "partitions");
                check(consumer.listTopics().containsKey(name), "topics");
            }
        });
        step("read committed", () -> {
            try (KafkaConsumer<String, String> consumer = consumer(Map.of("isolation.level", "read_committed"))) {
                consumer.assign(List.of(first));
                check(read(consumer, 15).size() == 15, "records");
            }
        });
        step("seek with an epoch", () -> {
            try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
                consumer.assign(List.of(first));
                consumer.seek(first, new OffsetAndMetadata(5, Optional.of(0), ""));
                check(read(consumer, 10).size() == 10, "records");
            }
        });
        Map<String, OffsetSpec> places = new LinkedHashMap<>();
        places.put("earliest", OffsetSpec.earliest());
        places.put("latest", OffsetSpec.latest());
        places.put("maxTimestamp", OffsetSpec.maxTimestamp());
        places.put("earliestLocal", OffsetSpec.earliestLocal());
        places.put("latestTiered", OffsetSpec.latestTiered());
        places.put("earliestPendingUpload", OffsetSpec.earliestPendingUpload());
        places.put("forTimestamp", OffsetSpec.forTimestamp(1002));
        places.forEach((what, place) -> step("listOffsets " + what, () -> get(admin.listOffsets(Map.of(first, place)).all())));
        step("listOffsets read committed", () -> get(admin.listOffsets(
            Map.of(first, OffsetSpec.latest()), new ListOffsetsOptions(IsolationLevel.READ_COMMITTED)).all()));
        step("deleteRecords", () -> check(
            get(admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(2))).lowWatermarks().get(first)).lowWatermark() == 2, "low"));
        step("describeProducers", () -> get(admin.describeProducers(List.of(new TopicPartition(name, 1))).all()));
    }

    private void subscribed(Map<String, Object> more, int members, Collection<String> topics) {
        List<KafkaConsumer<String, String>> all = new ArrayList<>();
        try {
            for (int n = 0; n < members; n++) {
                Map<String, Object> own = new HashMap<>(more);
                own.computeIfPresent("group.instance.id", (key, id) -> id + "-" + all.size());
                all.add(consumer(own));
                all.get(n).subscribe(topics);
            }
            long deadline = System.currentTimeMillis() + DEADLINE_MS;
            Set<TopicPartition> owned = new HashSet<>();
            while (owned.size() < 2 || all.stream().anyMatch(each -> each.assignment().isEmpty())) {
                check(System.currentTimeMillis() < deadline, "assigned " + owned);
                owned.clear();
                for (KafkaConsumer<String, String> each : all) {
                    each.poll(Duration.ofMillis(50));
                    owned.addAll(each.assignment());
                }
            }
            for (KafkaConsumer<String, String> each : all) {
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                each.assignment().forEach(one -> offsets.put(one, new OffsetAndMetadata(3, Optional.of(0), "about it")));
                committed(all, each, offsets);
                // a member may still wait for the answer to its first question about them, and would take that for this one's
                try (KafkaConsumer<String, String> other = consumer(Map.of("group.id", more.get("group.id")))) {
                    other.committed(offsets.keySet()).values().forEach(
                        found -> check(found.offset() == 3 && found.metadata().equals("about it"), found));
                }
            }
        } finally {
            all.forEach(each -> each.close(CloseOptions.timeout(Duration.ofSeconds(10))));
        }
    }

    /** A group may go on with a rebalance after all have their share. */
    private static void committed(
        List<KafkaConsumer<String, String>> members, KafkaConsumer<String, String> by, Map<TopicPartition, OffsetAndMetadata> offsets) {
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        while (true) {
            try {
                by.commitSync(offsets);
                return;
            } catch (RebalanceInProgressException notYet) {
                check(System.currentTimeMillis() < deadline, "still a rebalance");
                members.forEach(each -> each.poll(Duration.ofMillis(50)));
            }
        }
    }

    private void groups() {
        String group = name + "-group";
        String cooperative = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        Map<String, Object> timely = Map.of("session.timeout.ms", "20000", "heartbeat.interval.ms", "200");
        Map<String, Object> base = new HashMap<>(timely);
        base.put("group.id", group);
        step("classic group", () -> subscribed(base, 1, List.of(name)));
        step("classic group, two members", () -> subscribed(base, 2, List.of(name)));
        step("classic group, cooperative", () -> {
            Map<String, Object> more = new HashMap<>(base);
            more.put("group.id", name + "-cooperative");
            more.put("partition.assignment.strategy", cooperative);
            subscribed(more, 2, List.of(name));
        });
        step("classic group, static member", () -> {
            Map<String, Object> more = new HashMap<>(base);
            more.put("group.id", name + "-static");
            more.put("group.instance.id", "static");
            subscribed(more, 1, List.of(name));
            subscribed(more, 1, List.of(name));
        });
        step("describeConsumerGroups", () -> get(admin.describeConsumerGroups(List.of(group)).all()));
        step("describeConsumerGroups with operations", () -> get(
            admin.describeConsumerGroups(List.of(group), new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all()));
        step("describeClassicGroups", () -> get(admin.describeClassicGroups(List.of(group)).all()));
        step("describeClassicGroups of two", () -> get(admin.describeClassicGroups(List.of(group, name + "-static")).all()));
        step("describe a group that is not", () -> get(admin.describeClassicGroups(List.of(name + "-nobody")).all()));
        step("listGroups", () -> check(
            get(admin.listGroups().all()).stream().anyMatch(each -> each.groupId().equals(group)), "not in the list"));
        step("listGroups by state", () -> get(admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).all()));
        step("listGroups by type", () -> get(admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))).all()));
        step("listConsumerGroupOffsets", () -> check(
            get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(first).offset() == 3, "offset"));
        step("listConsumerGroupOffsets of two", () -> get(admin.listConsumerGroupOffsets(
            Map.of(group, new ListConsumerGroupOffsetsSpec(), name + "-static", new ListConsumerGroupOffsetsSpec())).all()));
        step("alterConsumerGroupOffsets", () -> get(admin.alterConsumerGroupOffsets(group, Map.of(first, new OffsetAndMetadata(4))).all()));
        step("deleteConsumerGroupOffsets", () -> get(admin.deleteConsumerGroupOffsets(group, Set.of(first)).all()));
        step("removeMembersFromConsumerGroup", () -> get(admin.removeMembersFromConsumerGroup(
            name + "-static", new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("static-0")))).all()));
        step("deleteConsumerGroups", () -> get(admin.deleteConsumerGroups(List.of(group)).all()));
    }

    private void consumerGroups() {
        String group = name + "-new";
        Map<String, Object> base = Map.of("group.id", group, "group.protocol", "consumer");
        step("consumer group", () -> subscribed(base, 2, List.of(name)));
        step("consumer group by a pattern", () -> {
            try (KafkaConsumer<String, String> consumer = consumer(Map.of("group.id", name + "-pattern", "group.protocol", "consumer"))) {
                consumer.subscribe(new SubscriptionPattern(name));
                long deadline = System.currentTimeMillis() + DEADLINE_MS;
                while (consumer.assignment().size() < 2) {
                    check(System.currentTimeMillis() < deadline, "assigned " + consumer.assignment());
                    consumer.poll(Duration.ofMillis(50));
                }
                get(admin.describeConsumerGroups(List.of(name + "-pattern")).all());
            }
        });
        step("describe a consumer group", () -> get(admin.describeConsumerGroups(List.of(group)).all()));
        step("delete a consumer group", () -> get(admin.deleteConsumerGroups(List.of(group)).all()));
    }

    private long[] described(String id) throws Exception {
        TransactionDescription found = get(admin.describeTransactions(List.of(id)).all()).get(id);
        return new long[] {found.producerId(), found.producerEpoch()};
    }

    /** Two that are committed, each before one that is aborted. */
    private void rounds(KafkaProducer<String, String> producer, ConsumerGroupMetadata group) {
        for (int round = 0; round < 4; round++) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(name + "-b", 0, null, "r" + round));
            producer.send(new ProducerRecord<>(name + "-b", 1, null, "r" + round));
            producer.sendOffsetsToTransaction(Map.of(first, new OffsetAndMetadata(round)), group);
            if (round % 2 == 0) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
        }
    }

    private void transactions() {
        String id = name + "-tx";
        Map<String, Object> transactional = Map.of("transactional.id", id, "transaction.timeout.ms", "30000");
        TopicPartition third = new TopicPartition(name + "-b", 0);
        step("transactions", () -> {
            try (KafkaProducer<String, String> producer = producer(transactional)) {
                producer.initTransactions();
                rounds(producer, new ConsumerGroupMetadata(name + "-txgroup"));
            }
        });
        step("what was committed", () -> {
            Map<String, Object> committed = Map.of("isolation.level", "read_committed", "group.id", name + "-txgroup");
            try (KafkaConsumer<String, String> consumer = consumer(committed)) {
                consumer.assign(List.of(third));
                check(read(consumer, 2).equals(List.of("r0", "r2")), "records");
                check(consumer.committed(Set.of(first)).get(first).offset() == 2, "offset");
            }
        });
        step("transactions of a group's member", () -> {
            try (KafkaConsumer<String, String> consumer = consumer(Map.of("group.id", name + "-txgroup"));
                 KafkaProducer<String, String> producer = producer(transactional)) {
                producer.initTransactions();
                consumer.subscribe(List.of(name));
                long deadline = System.currentTimeMillis() + DEADLINE_MS;
                while (consumer.assignment().size() < 2) {
                    check(System.currentTimeMillis() < deadline, "no assignment");
                    consumer.poll(Duration.ofMillis(50));
                }
                rounds(producer, consumer.groupMetadata());
            }
        });
        step("listTransactions", () -> get(admin.listTransactions().all()));
        step("listTransactions by duration", () -> get(admin.listTransactions(new ListTransactionsOptions().filterOnDuration(10)).all()));
        ListTransactionsOptions own = new ListTransactionsOptions().filterOnTransactionalIdPattern(name + ".*");
        step("listTransactions by pattern", () -> check(get(admin.listTransactions(own).all()).size() == 1, "transactions"));
        step("describeTransactions", () -> described(id));
        step("abort by an administrator", () -> {
            try (KafkaProducer<String, String> producer = producer(transactional)) {
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(third.topic(), 2, null, "hanging")).get(SECONDS, TimeUnit.SECONDS);
                TopicPartition where = new TopicPartition(third.topic(), 2);
                DescribeProducersResult.PartitionProducerState found = get(admin.describeProducers(List.of(where)).partitionResult(where));
                ProducerState open = found.activeProducers().stream()
                    .filter(each -> each.currentTransactionStartOffset().isPresent()).findFirst().get();
                get(admin.abortTransaction(new AbortTransactionSpec(
                    where, open.producerId(), (short) open.producerEpoch(), open.coordinatorEpoch().orElse(0))).all());
                producer.abortTransaction();
            }
        });
        step("fenceProducers", () -> get(admin.fenceProducers(List.of(id)).all()));
        step("forceTerminateTransaction", () -> get(admin.forceTerminateTransaction(id).result()));
    }

    private void node() {
        step("describeCluster", () -> {
            DescribeClusterResult found = admin.describeCluster();
            check(get(found.nodes()).size() == 1, "nodes");
            get(found.clusterId());
        });
        step("describeCluster with operations and fenced", () -> get(admin.describeCluster(
            new DescribeClusterOptions().includeAuthorizedOperations(true).includeFencedBrokers(true)).nodes()));
        step("describeLogDirs", () -> get(admin.describeLogDirs(List.of(1)).allDescriptions()));
        step("alterReplicaLogDirs", () -> get(admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica(name, 0, 1), "/nowhere")).all()));
        step("electLeaders", () -> get(admin.electLeaders(ElectionType.PREFERRED, Set.of(first)).partitions()));
        step("electLeaders unclean", () -> get(admin.electLeaders(ElectionType.UNCLEAN, Set.of(first)).partitions()));
        step("alterPartitionReassignments", () -> get(
            admin.alterPartitionReassignments(Map.of(first, Optional.of(new NewPartitionReassignment(List.of(1))))).all()));
        step("listPartitionReassignments", () -> get(admin.listPartitionReassignments().reassignments()));
        ClientQuotaEntity user = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, name));
        step("alterClientQuotas", () -> get(admin.alterClientQuotas(
            List.of(new ClientQuotaAlteration(user, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e9))))).all()));
        step("describeClientQuotas", () -> soon(() -> check(
            get(admin.describeClientQuotas(ClientQuotaFilter.all()).entities()).containsKey(user), "not described")));
        step("alterUserScramCredentials", () -> get(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(
            name, new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).all()));
        step("describeUserScramCredentials", () -> soon(() -> get(admin.describeUserScramCredentials(List.of(name)).all())));
        step("describeMetadataQuorum", () -> get(admin.describeMetadataQuorum().quorumInfo()));
        step("describeFeatures", () -> get(admin.describeFeatures().featureMetadata()));
        Map<String, FeatureUpdate> update = Map.of("group.version", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE));
        step("updateFeatures", () -> get(admin.updateFeatures(update, new UpdateFeaturesOptions()).all()));
        step("updateFeatures looked at only", () -> get(
            admin.updateFeatures(update, new UpdateFeaturesOptions().validateOnly(true)).all()));
        step("unregisterBroker", () -> get(admin.unregisterBroker(7).all()));
    }

    private void ends() {
        step("deleteTopics by id", () -> {
            Uuid id = get(admin.describeTopics(List.of(name + "-b")).allTopicNames()).get(name + "-b").topicId();
            get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        });
        step("deleteTopics", () -> get(admin.deleteTopics(List.of(name)).all()));
        step("deleteTopics of one that is not", () -> get(admin.deleteTopics(List.of(name + "-never")).all()));
    }
}
