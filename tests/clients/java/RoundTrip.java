import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own Java client against a broker: what it wrote is read back and compared.
 *
 * Usage: RoundTrip BOOTSTRAP NAME CASE, where NAME is new and CASE one of the methods' names below. Prints "passed" and exits with 0, or fails.
 */
public final class RoundTrip {
    private static final Duration WAIT = Duration.ofMillis(500);
    private static final long DEADLINE_MS = 45_000;

    private final String bootstrap;
    private final String name;

    private RoundTrip(String bootstrap, String name) {
        this.bootstrap = bootstrap;
        this.name = name;
    }

    public static void main(String[] args) throws Exception {
        RoundTrip test = new RoundTrip(args[0], args[1]);
        switch (args[2]) {
            case "defaults" -> test.roundTrip(Map.of());
            case "gzip", "snappy", "lz4", "zstd" -> test.roundTrip(Map.of("compression.type", args[2]));
            case "acks0" -> test.roundTrip(Map.of("acks", "0", "enable.idempotence", "false"));
            case "acks1" -> test.roundTrip(Map.of("acks", "1", "enable.idempotence", "false"));
            case "takeover" -> test.takeover();
            case "staticMember" -> test.staticMember();
            case "times" -> test.times();
            case "admin" -> test.admin();
            default -> throw new IllegalArgumentException(args[2]);
        }
        System.out.println("passed");
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private Properties settings(Map<String, String> more) {
        Properties made = new Properties();
        made.put("bootstrap.servers", bootstrap);
        made.putAll(more);
        return made;
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, String> more) {
        return new KafkaProducer<>(settings(more), new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(Map<String, String> more) {
        Map<String, String> all = new HashMap<>(Map.of("auto.offset.reset", "earliest"));
        all.putAll(more);
        return new KafkaConsumer<>(settings(all), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private void createTopic(int partitions) throws Exception {
        try (Admin admin = Admin.create(settings(Map.of()))) {
            admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get(15, TimeUnit.SECONDS);
        }
    }

    private List<ProducerRecord<byte[], byte[]>> records(int count) {
        Random random = new Random(3);
        List<ProducerRecord<byte[], byte[]>> made = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            byte[] value = new byte[random.nextInt(i % 100 == 0 ? 200_000 : 200)];
            Arrays.fill(value, (byte) i);
            byte[] key = i % 10 == 0 ? null : ("key" + random.nextInt(40)).getBytes();
            ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(name, i % 3, 1_700_000_000_000L + i, key, i % 50 == 1 ? null : value);
            if (i % 7 == 0) {
                record.headers().add(new RecordHeader("number", Integer.toString(i).getBytes())).add(new RecordHeader("none", null));
            }
            made.add(record);
        }
        return made;
    }

    private static boolean same(ProducerRecord<byte[], byte[]> sent, ConsumerRecord<byte[], byte[]> read) {
        return Arrays.equals(sent.key(), read.key()) && Arrays.equals(sent.value(), read.value())
            && Objects.equals(sent.timestamp(), read.timestamp()) && sent.headers().equals(read.headers());
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> made = new ArrayList<>();
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        while (made.size() < count) {
            check(System.currentTimeMillis() < deadline, "read " + made.size() + " of " + count + " records in time");
            consumer.poll(WAIT).forEach(made::add);
        }
        return made;
    }

    private void roundTrip(Map<String, String> more) throws Exception {
        createTopic(3);
        List<ProducerRecord<byte[], byte[]>> sent = records(3000);
        List<Future<RecordMetadata>> acknowledged = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(more)) {
            for (ProducerRecord<byte[], byte[]> record : sent) {
                acknowledged.add(producer.send(record));
            }
        }
        Map<Integer, Integer> expected = new HashMap<>();
        for (int i = 0; i < sent.size(); i++) {
            RecordMetadata where = acknowledged.get(i).get();
            int next = expected.merge(where.partition(), 1, Integer::sum) - 1;
            check(!where.hasOffset() || where.offset() == next, "record " + i + " was acknowledged with offset " + where.offset());
        }
        Map<Integer, List<ProducerRecord<byte[], byte[]>>> byPartition = new HashMap<>();
        sent.forEach(record -> byPartition.computeIfAbsent(record.partition(), p -> new ArrayList<>()).add(record));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of("group.id", name))) {
            consumer.subscribe(List.of(name));
            for (ConsumerRecord<byte[], byte[]> record : read(consumer, sent.size())) {
                ProducerRecord<byte[], byte[]> original = byPartition.get(record.partition()).get((int) record.offset());
                check(same(original, record), "partition " + record.partition() + " offset " + record.offset() + " is not what was sent");
            }
            check(consumer.poll(WAIT).isEmpty(), "more records than were sent");
        }
    }

    /** Two members share the partitions; the one that stays reads on from what the other committed. */
    private void takeover() throws Exception {
        createTopic(4);
        Map<String, String> group = Map.of("group.id", name, "enable.auto.commit", "false");
        Set<String> seen = new HashSet<>();
        try (KafkaConsumer<byte[], byte[]> second = consumer(group)) {
            try (KafkaConsumer<byte[], byte[]> first = consumer(group)) {
                first.subscribe(List.of(name));
                second.subscribe(List.of(name));
                Thread other = new Thread(() -> {
                    while (!Thread.currentThread().isInterrupted() && second.assignment().size() != 2) {
                        second.poll(Duration.ofMillis(100));
                    }
                });
                other.start();
                long deadline = System.currentTimeMillis() + DEADLINE_MS;
                while (other.isAlive() || first.assignment().size() != 2) {
                    check(System.currentTimeMillis() < deadline, "the partitions were not shared out");
                    first.poll(Duration.ofMillis(100));
                }
                try (KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
                    for (int i = 0; i < 400; i++) {
                        producer.send(new ProducerRecord<>(name, i % 4, null, Integer.toString(i).getBytes()));
                    }
                }
                for (ConsumerRecord<byte[], byte[]> record : read(first, 200)) {
                    seen.add(new String(record.value()));
                }
                first.commitSync();
            }
            for (ConsumerRecord<byte[], byte[]> record : read(second, 200)) {
                check(seen.add(new String(record.value())), "read twice: " + new String(record.value()));
            }
            check(seen.size() == 400, "records read: " + seen.size());
        }
    }

    /** A static member that comes back keeps its partitions, and the group does not rebalance (KIP-345). */
    private void staticMember() throws Exception {
        createTopic(2);
        Map<String, String> settings = Map.of("group.id", name, "group.instance.id", "one");
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
            for (int i = 0; i < 100; i++) {
                producer.send(new ProducerRecord<>(name, i % 2, null, Integer.toString(i).getBytes()));
            }
        }
        int generation;
        try (KafkaConsumer<byte[], byte[]> first = consumer(settings)) {
            first.subscribe(List.of(name));
            read(first, 100);
            first.commitSync();
            generation = first.groupMetadata().generationId();
        }
        int[] assignments = {0};
        try (KafkaConsumer<byte[], byte[]> again = consumer(settings)) {
            again.subscribe(List.of(name), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    assignments[0]++;
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                }
            });
            long deadline = System.currentTimeMillis() + DEADLINE_MS;
            while (again.assignment().size() != 2) {
                check(System.currentTimeMillis() < deadline, "a returning static member got its partitions back");
                check(again.poll(WAIT).isEmpty(), "what was committed is not read again");
            }
            check(again.groupMetadata().generationId() == generation, "the group rebalanced");
            check(assignments[0] == 1, "assignments: " + assignments[0]);
        }
    }

    private void times() throws Exception {
        createTopic(1);
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("batch.size", "1000"))) {
            for (int i = 0; i < 1000; i++) {
                producer.send(new ProducerRecord<>(name, 0, 1_700_000_000_000L + i * 1000L, null, Integer.toString(i).getBytes()));
            }
        }
        TopicPartition where = new TopicPartition(name, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(where, 1_700_000_500_500L)).get(where);
            check(found.offset() == 501 && found.timestamp() == 1_700_000_501_000L, "offset for a time: " + found);
            check(consumer.beginningOffsets(List.of(where)).get(where) == 0, "the start");
            check(consumer.endOffsets(List.of(where)).get(where) == 1000, "the end");
            consumer.assign(List.of(where));
            consumer.seek(where, 990);
            check(new String(read(consumer, 10).get(0).value()).equals("990"), "seek");
        }
    }

    private void admin() throws Exception {
        try (Admin admin = Admin.create(settings(Map.of()))) {
            NewTopic topic = new NewTopic(name, 2, (short) 1).configs(Map.of("retention.ms", "3600000"));
            admin.createTopics(List.of(topic)).all().get();
            try {
                admin.createTopics(List.of(topic)).all().get();
                check(false, "a topic was created twice");
            } catch (ExecutionException error) {
                check(error.getCause() instanceof TopicExistsException, "creating it again: " + error.getCause());
            }
            check(admin.listTopics().names().get().contains(name), "listTopics");
            admin.createPartitions(Map.of(name, NewPartitions.increaseTo(3))).all().get();
            TopicDescription described = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
            check(described.partitions().size() == 3, "describeTopics: " + described);

            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
            check(admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value().equals("3600000"), "config");
            AlterConfigOp change = new AlterConfigOp(new ConfigEntry("retention.ms", "-1"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
            check(admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value().equals("-1"), "altered");

            try (KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
                for (int i = 0; i < 50; i++) {
                    producer.send(new ProducerRecord<>(name, 0, null, new byte[10]));
                }
            }
            TopicPartition where = new TopicPartition(name, 0);
            try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of("group.id", name))) {
                consumer.subscribe(List.of(name));
                read(consumer, 50);
                consumer.commitSync();
                check(admin.describeConsumerGroups(List.of(name)).all().get().get(name).members().size() == 1, "describeConsumerGroups");
            }
            check(admin.listGroups().all().get().stream().map(GroupListing::groupId).toList().contains(name), "listGroups");
            Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata().get();
            check(offsets.get(where).offset() == 50, "committed: " + offsets);
            admin.alterConsumerGroupOffsets(name, Map.of(where, new OffsetAndMetadata(5))).all().get();
            check(admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata().get().get(where).offset() == 5, "moved");
            admin.deleteConsumerGroupOffsets(name, Set.of(where)).all().get();
            OffsetAndMetadata none = admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata().get().get(where);
            check(none == null, "a deleted offset is still there: " + none);
            admin.deleteConsumerGroups(List.of(name)).all().get();

            admin.deleteRecords(Map.of(where, RecordsToDelete.beforeOffset(20))).all().get();
            ListOffsetsResultInfo first = admin.listOffsets(Map.of(where, OffsetSpec.earliest())).all().get().get(where);
            check(first.offset() == 20, "deleteRecords: starts at " + first.offset());
            check(admin.describeCluster().clusterId().get() != null, "describeCluster");
            admin.deleteTopics(List.of(name)).all().get();
            check(!admin.listTopics().names().get().contains(name), "deleteTopics");
        }
    }
}
