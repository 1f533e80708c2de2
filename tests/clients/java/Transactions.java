import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactions of Kafka's own Java client, which speaks the second version of the protocol where the broker's features say so.
 *
 * Usage: Transactions BOOTSTRAP NAME CASE, where NAME is new and CASE one of the methods' names below. Prints "passed" and exits with 0, or fails.
 */
public final class Transactions {
    private static final int PARTITIONS = 3;
    private static final long DEADLINE_MS = 45_000;

    private final String bootstrap;
    private final String name;

    private Transactions(String bootstrap, String name) {
        this.bootstrap = bootstrap;
        this.name = name;
    }

    public static void main(String[] args) throws Exception {
        Transactions test = new Transactions(args[0], args[1]);
        try (Admin admin = Admin.create(test.settings(Map.of()))) {
            admin.createTopics(List.of(new NewTopic(test.name, PARTITIONS, (short) 1))).all().get(15, TimeUnit.SECONDS);
        }
        switch (args[2]) {
            case "ends" -> test.ends(1);
            case "endsOfTheFirstVersion" -> test.ends(0);
            case "offsets" -> test.offsets();
            case "fencing" -> test.fencing();
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

    private KafkaProducer<String, String> producer() {
        KafkaProducer<String, String> made =
            new KafkaProducer<>(settings(Map.of("transactional.id", name)), new StringSerializer(), new StringSerializer());
        made.initTransactions();
        return made;
    }

    private KafkaConsumer<String, String> consumer(Map<String, String> more) {
        Map<String, String> all = new HashMap<>(Map.of("auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        all.putAll(more);
        return new KafkaConsumer<>(settings(all), new StringDeserializer(), new StringDeserializer());
    }

    private void send(KafkaProducer<String, String> producer, String... values) {
        for (String value : values) {
            for (int partition = 0; partition < PARTITIONS; partition++) {
                producer.send(new ProducerRecord<>(name, partition, null, value));
            }
        }
        producer.flush();
    }

    /** All there is now, by partition. */
    private Map<Integer, List<String>> read(String isolation) {
        Map<Integer, List<String>> found = new TreeMap<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("isolation.level", isolation))) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (int partition = 0; partition < PARTITIONS; partition++) {
                partitions.add(new TopicPartition(name, partition));
                found.put(partition, new ArrayList<>());
            }
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long deadline = System.currentTimeMillis() + DEADLINE_MS;
            while (partitions.stream().anyMatch(each -> consumer.position(each) < ends.get(each))) {
                check(System.currentTimeMillis() < deadline, "read only " + found);
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    found.get(record.partition()).add(record.value());
                }
            }
        }
        return found;
    }

    /** Waits until readers of what is committed are shown these in every partition: markers are written after the answer. */
    private void shows(String... values) throws InterruptedException {
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        while (true) {
            Map<Integer, List<String>> found = read("read_committed");
            if (found.values().stream().allMatch(List.of(values)::equals)) {
                return;
            }
            check(System.currentTimeMillis() < deadline, "committed: " + found);
            Thread.sleep(50);
        }
    }

    private TransactionDescription described() throws Exception {
        try (Admin admin = Admin.create(settings(Map.of()))) {
            return admin.describeTransactions(Set.of(name)).description(name).get(15, TimeUnit.SECONDS);
        }
    }

    /** Commits and aborts; each end makes the epoch so much greater. */
    private void ends(int step) throws Exception {
        try (KafkaProducer<String, String> producer = producer()) {
            int first = described().producerEpoch();
            for (int round = 0; round < 4; round++) {
                producer.beginTransaction();
                send(producer, "a" + round, "b" + round);
                TransactionDescription open = described();
                check(open.state() == TransactionState.ONGOING, "state " + open.state());
                check(open.topicPartitions().size() == PARTITIONS, "partitions " + open.topicPartitions());
                check(open.producerEpoch() == first + step * round, "epoch " + open.producerEpoch() + " in round " + round);
                if (round % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
            producer.beginTransaction();
            producer.commitTransaction(); // nothing in it
        }
        shows("a0", "b0", "a2", "b2");
        for (List<String> each : read("read_uncommitted").values()) {
            check(each.equals(List.of("a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3")), "uncommitted: " + each);
        }
    }

    /** Offsets of a consumer's group become part of the transaction. */
    private void offsets() throws Exception {
        Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("group.id", name)); KafkaProducer<String, String> producer = producer()) {
            consumer.subscribe(List.of(name));
            long deadline = System.currentTimeMillis() + DEADLINE_MS;
            while (consumer.assignment().size() < PARTITIONS) {
                check(System.currentTimeMillis() < deadline, "no assignment");
                consumer.poll(Duration.ofMillis(200));
            }
            for (int round = 0; round < 4; round++) {
                positions.clear();
                for (TopicPartition each : consumer.assignment()) {
                    positions.put(each, new OffsetAndMetadata(10 * round + each.partition()));
                }
                producer.beginTransaction();
                send(producer, "x" + round);
                producer.sendOffsetsToTransaction(positions, consumer.groupMetadata());
                if (round < 3) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
        // another consumer asks: the one that was assigned the partitions may still wait for the answer to its first question about them,
        // and would take that for the answer to this one
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("group.id", name))) {
            Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(positions.keySet(), Duration.ofSeconds(30));
            for (TopicPartition each : positions.keySet()) {
                check(new OffsetAndMetadata(20 + each.partition()).equals(committed.get(each)), "committed " + committed);
            }
        }
        shows("x0", "x1", "x2");
    }

    /** A second producer of the same id aborts what the first has open, and the first can't go on. */
    private void fencing() throws Exception {
        try (KafkaProducer<String, String> zombie = producer()) {
            zombie.beginTransaction();
            send(zombie, "of the zombie");
            try (KafkaProducer<String, String> successor = producer()) {
                successor.beginTransaction();
                send(successor, "of the successor");
                successor.commitTransaction();
                try {
                    send(zombie, "more");
                    zombie.commitTransaction();
                    check(false, "the zombie committed");
                } catch (ProducerFencedException | InvalidProducerEpochException expected) {
                    // as it should be
                }
            }
        }
        shows("of the successor");
    }
}
