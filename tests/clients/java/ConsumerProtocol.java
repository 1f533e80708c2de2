import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Kafka's own Java client in consumer groups of the new protocol (KIP-848).
 *
 * Usage: ConsumerProtocol BOOTSTRAP NAME CASE, as RoundTrip.
 */
public final class ConsumerProtocol {
    private static final long DEADLINE_MS = 90_000;

    private final String bootstrap;
    private final String name;
    private final Set<String> seen = new HashSet<>();
    private int sent;

    private ConsumerProtocol(String bootstrap, String name) {
        this.bootstrap = bootstrap;
        this.name = name;
    }

    public static void main(String[] args) throws Exception {
        ConsumerProtocol test = new ConsumerProtocol(args[0], args[1]);
        switch (args[2]) {
            case "uniform", "range" -> test.members(args[2]);
            case "pattern" -> test.pattern();
            case "rolling" -> test.rolling();
            case "migration" -> test.migration();
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

    private KafkaConsumer<String, String> member(String protocol, Map<String, String> more) {
        Map<String, String> all = new HashMap<>(
            Map.of("auto.offset.reset", "earliest", "group.id", name, "group.protocol", protocol, "enable.auto.commit", "false"));
        all.putAll(more);
        return new KafkaConsumer<>(settings(all), new StringDeserializer(), new StringDeserializer());
    }

    private void createTopic(String topic, int partitions) throws Exception {
        try (Admin admin = Admin.create(settings(Map.of()))) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get(15, TimeUnit.SECONDS);
        }
    }

    private void send(int count) {
        try (KafkaProducer<byte[], byte[]> producer =
                 new KafkaProducer<>(settings(Map.of()), new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < count; i++, sent++) {
                producer.send(new ProducerRecord<>(name, sent % 6, null, Integer.toString(sent).getBytes()));
            }
        }
    }

    private void poll(KafkaConsumer<String, String> consumer) {
        boolean any = false;
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(50))) {
            check(seen.add(record.value()), "read twice: " + record.value());
            any = true;
        }
        if (any) {
            consumer.commitSync();
        }
    }

    /** Polls until the members own so many partitions each, none of them two of them, and all that was sent has been read once. */
    private void settle(int size, List<KafkaConsumer<String, String>> consumers) {
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        while (true) {
            Set<TopicPartition> all = new HashSet<>();
            boolean even = true;
            for (KafkaConsumer<String, String> consumer : consumers) {
                poll(consumer);
                even &= consumer.assignment().size() == size;
                all.addAll(consumer.assignment());
            }
            if (even && all.size() == size * consumers.size() && seen.size() == sent) {
                return;
            }
            check(System.currentTimeMillis() < deadline, "members own " + all + ", read " + seen.size() + " of " + sent);
        }
    }

    private ConsumerGroupDescription described() throws Exception {
        try (Admin admin = Admin.create(settings(Map.of()))) {
            return admin.describeConsumerGroups(List.of(name)).all().get(15, TimeUnit.SECONDS).get(name);
        }
    }

    private void members(String assignor) throws Exception {
        createTopic(name, 6);
        Map<String, String> settings = Map.of("group.remote.assignor", assignor);
        try (KafkaConsumer<String, String> first = member("consumer", settings)) {
            first.subscribe(List.of(name));
            send(60);
            settle(6, List.of(first));
            try (KafkaConsumer<String, String> second = member("consumer", settings)) {
                second.subscribe(List.of(name));
                settle(3, List.of(first, second));
                ConsumerGroupDescription group = described();
                check(group.type() == GroupType.CONSUMER && group.groupState() == GroupState.STABLE, group.toString());
                check(group.partitionAssignor().equals(assignor), group.partitionAssignor());
                for (MemberDescription member : group.members()) {
                    check(member.assignment().equals(member.targetAssignment().orElseThrow()), member.toString());
                    check(member.upgraded().orElseThrow(), member.toString());
                }
                if (assignor.equals("range")) {
                    Set<Integer> numbers = new TreeSet<>();
                    first.assignment().forEach(partition -> numbers.add(partition.partition()));
                    check(numbers.equals(Set.of(0, 1, 2)) || numbers.equals(Set.of(3, 4, 5)), numbers.toString());
                }
                send(60);
                settle(3, List.of(first, second));
            }
            send(60);
            settle(6, List.of(first));
        }
    }

    private void pattern() throws Exception {
        createTopic(name, 6);
        try (KafkaConsumer<String, String> consumer = member("consumer", Map.of())) {
            consumer.subscribe(new SubscriptionPattern(name + ".*"));
            send(60);
            settle(6, List.of(consumer));
            createTopic(name + "-more", 2);
            settle(8, List.of(consumer));
            consumer.subscribe(new SubscriptionPattern("(" + name));
            boolean refused = false;
            for (int i = 0; i < 200 && !refused; i++) {
                try {
                    consumer.poll(Duration.ofMillis(50));
                } catch (InvalidRegularExpression expected) {
                    refused = true;
                }
            }
            check(refused, "an expression that is none was accepted");
        }
    }

    /** Two static members restart one after the other; each gets back what it had. */
    private void rolling() throws Exception {
        createTopic(name, 6);
        List<KafkaConsumer<String, String>> consumers = new ArrayList<>();
        for (String id : List.of("one", "two")) {
            consumers.add(member("consumer", Map.of("group.instance.id", id)));
            consumers.get(consumers.size() - 1).subscribe(List.of(name));
        }
        send(60);
        settle(3, consumers);
        for (int i = 0; i < 2; i++) {
            Set<TopicPartition> had = Set.copyOf(consumers.get(i).assignment());
            Set<TopicPartition> kept = Set.copyOf(consumers.get(1 - i).assignment());
            consumers.get(i).close();
            consumers.set(i, member("consumer", Map.of("group.instance.id", i == 0 ? "one" : "two")));
            consumers.get(i).subscribe(List.of(name));
            send(60);
            settle(3, consumers);
            check(consumers.get(i).assignment().equals(had), "what it had: " + had + ", what it has: " + consumers.get(i).assignment());
            check(consumers.get(1 - i).assignment().equals(kept), "the other one's partitions moved");
        }
        consumers.forEach(KafkaConsumer::close);
    }

    /** A live group goes from the classic protocol to the new one and back, a member at a time. */
    private void migration() throws Exception {
        createTopic(name, 6);
        List<KafkaConsumer<String, String>> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            consumers.add(member("classic", Map.of()));
            consumers.get(i).subscribe(List.of(name));
        }
        send(60);
        settle(3, consumers);
        check(described().type() == GroupType.CLASSIC, described().toString());
        for (String protocol : List.of("consumer", "classic")) {
            for (int i = 0; i < 2; i++) {
                consumers.get(i).close();
                consumers.set(i, member(protocol, Map.of()));
                consumers.get(i).subscribe(List.of(name));
                send(60);
                settle(3, consumers);
                boolean classic = protocol.equals("classic") && i == 1;
                check(described().type() == (classic ? GroupType.CLASSIC : GroupType.CONSUMER), described().toString());
            }
        }
        consumers.forEach(KafkaConsumer::close);
    }
}
