import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The same keyed records for any broker, batch by batch, and a listing of what a consumer reads.
 *
 * Usage: Compacted BOOTSTRAP create TOPIC KEY=VALUE...
 *        Compacted BOOTSTRAP clean TOPIC true|false (whether the cleaner may work: a dirty share of more than all there is never reached)
 *        Compacted BOOTSTRAP alter TOPIC KEY=VALUE
 *        Compacted BOOTSTRAP write TOPIC SEED BATCHES TIMESTAMP CODEC transactions|plain
 *        Compacted BOOTSTRAP read TOPIC
 *
 * SEED and BATCHES decide all but the timestamps, which begin at TIMESTAMP; tombstones are in the first half only. Exits with 0, or fails.
 */
public final class Compacted {
    private static final int RECORDS = 20;
    private static final int KEYS = 1500;
    private static final int VALUE_BYTES = 900;

    private final String bootstrap;
    private final String topic;

    private Compacted(String bootstrap, String topic) {
        this.bootstrap = bootstrap;
        this.topic = topic;
    }

    public static void main(String[] args) throws Exception {
        Compacted test = new Compacted(args[0], args[2]);
        switch (args[1]) {
            case "create" -> test.create(Arrays.asList(args).subList(3, args.length));
            case "clean" -> test.alter("min.cleanable.dirty.ratio=" + (args[3].equals("true") ? "0.0" : "1.0"));
            case "alter" -> test.alter(args[3]);
            case "write" -> test.write(Long.parseLong(args[3]), Integer.parseInt(args[4]), Long.parseLong(args[5]), args[6], args[7]);
            case "read" -> {
                test.read("read_uncommitted");
                test.read("read_committed");
            }
            default -> throw new IllegalArgumentException(args[1]);
        }
    }

    private Properties settings(Map<String, Object> more) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.putAll(more);
        return properties;
    }

    private void create(List<String> configs) throws Exception {
        Map<String, String> made = new HashMap<>(Map.of("min.cleanable.dirty.ratio", "1.0"));
        for (String config : configs) {
            String[] parts = config.split("=", 2);
            made.put(parts[0], parts[1]);
        }
        try (Admin admin = Admin.create(settings(Map.of()))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(made))).all().get(60, TimeUnit.SECONDS);
        } catch (ExecutionException problem) {
            if (!(problem.getCause() instanceof TopicExistsException)) { // a slow broker was asked a second time
                throw problem;
            }
        }
    }

    private void alter(String config) throws Exception {
        String[] parts = config.split("=", 2);
        var op = new AlterConfigOp(new ConfigEntry(parts[0], parts[1]), AlterConfigOp.OpType.SET);
        try (Admin admin = Admin.create(settings(Map.of()))) {
            var wanted = Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), (Collection<AlterConfigOp>) List.of(op));
            admin.incrementalAlterConfigs(wanted).all().get(30, TimeUnit.SECONDS);
        }
    }

    private KafkaProducer<byte[], byte[]> producer(String codec, String transactionalId) {
        Properties properties = settings(Map.of("compression.type", codec, "linger.ms", 60_000, "batch.size", 1 << 20));
        if (transactionalId != null) {
            properties.put("transactional.id", transactionalId);
        }
        var made = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        if (transactionalId != null) {
            made.initTransactions();
        }
        return made;
    }

    /** Every flush sends one batch, so that batches, and with them segments, are the same everywhere. */
    private void write(long seed, int batches, long timestamp, String codec, String how) throws InterruptedException {
        Random random = new Random(seed);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var plain = producer(codec, null); var commits = producer(codec, topic + "-c"); var aborts = producer(codec, topic + "-a");
                var consumer = consumer("read_uncommitted")) {
            long end = endOf(consumer, partition);
            for (int batch = 0; batch < batches; batch++) {
                int turn = how.equals("plain") ? 0 : batch % 7;
                var one = turn == 3 ? commits : turn == 5 ? aborts : plain;
                if (one != plain) {
                    one.beginTransaction();
                }
                for (int i = 0; i < RECORDS; i++) {
                    byte[] key = ("key-" + random.nextInt(KEYS)).getBytes(StandardCharsets.UTF_8);
                    byte[] value = new byte[VALUE_BYTES];
                    random.nextBytes(value);
                    boolean tombstone = random.nextInt(5) == 0 && batch < batches / 2;
                    var record = new ProducerRecord<>(topic, 0, timestamp + batch, key, tombstone ? null : value);
                    if (random.nextInt(3) == 0) {
                        record.headers().add("number", new byte[] {(byte) i}).add("none", null);
                    }
                    one.send(record);
                }
                one.flush();
                end += RECORDS;
                if (one == commits) {
                    one.commitTransaction();
                } else if (one == aborts) {
                    one.abortTransaction();
                }
                if (one != plain) {
                    end++; // the marker, which may come after the answer
                }
                while (endOf(consumer, partition) < end) {
                    Thread.sleep(1);
                }
            }
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer(String isolation) {
        Properties properties = settings(Map.of("isolation.level", isolation, "enable.auto.commit", false));
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static long endOf(KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition) {
        return consumer.endOffsets(List.of(partition)).get(partition);
    }

    private void read(String isolation) {
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = consumer(isolation)) {
            consumer.assign(List.of(partition));
            long start = consumer.beginningOffsets(List.of(partition)).get(partition);
            long end = endOf(consumer, partition);
            consumer.seek(partition, start);
            StringBuilder out = new StringBuilder(isolation + " from " + start + " to " + end + "\n");
            while (consumer.position(partition) < end) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofSeconds(5))) {
                    out.append(r.offset()).append(' ').append(r.timestamp()).append(' ').append(r.timestampType()).append(' ');
                    out.append(new String(r.key(), StandardCharsets.UTF_8)).append(' ');
                    out.append(r.value() == null ? "null" : r.value().length + "/" + Arrays.hashCode(r.value()));
                    for (Header header : r.headers()) {
                        out.append(' ').append(header.key()).append('=').append(Arrays.toString(header.value()));
                    }
                    out.append('\n');
                }
            }
            System.out.print(out);
        }
    }
}
