import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.group.api.assignor.ConsumerGroupPartitionAssignor;
import org.apache.kafka.coordinator.group.api.assignor.GroupAssignment;
import org.apache.kafka.coordinator.group.api.assignor.SubscribedTopicDescriber;
import org.apache.kafka.coordinator.group.api.assignor.SubscriptionType;
import org.apache.kafka.coordinator.group.assignor.RangeAssignor;
import org.apache.kafka.coordinator.group.assignor.UniformAssignor;
import org.apache.kafka.coordinator.group.modern.Assignment;
import org.apache.kafka.coordinator.group.modern.GroupSpecImpl;
import org.apache.kafka.coordinator.group.modern.MemberSubscriptionAndAssignmentImpl;

/**
 * Kafka's own assignors, a group a line: ASSIGNOR PARTITIONS,.. MEMBER.., with the partitions of topic 0, 1, ... and each member as
 * ID/INSTANCE/TOPIC,../TOPIC:PARTITION,.. Answers ID/TOPIC:PARTITION,.. for each, blanks between.
 */
public final class KafkaAssignors {
    private static Uuid topic(int number) {
        return new Uuid(1, number + 1);
    }

    private static String[] items(String text) {
        return text.isEmpty() ? new String[0] : text.split(",");
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            String[] counts = words[1].split(",");
            Map<String, MemberSubscriptionAndAssignmentImpl> members = new HashMap<>();
            Map<Uuid, Map<Integer, String>> owners = new HashMap<>();
            Set<Set<Uuid>> subscriptions = new HashSet<>();
            for (int i = 2; i < words.length; i++) {
                String[] parts = words[i].split("/", -1);
                Set<Uuid> topics = new HashSet<>();
                for (String number : items(parts[2])) {
                    topics.add(topic(Integer.parseInt(number)));
                }
                Map<Uuid, Set<Integer>> assigned = new HashMap<>();
                for (String item : items(parts[3])) {
                    String[] pair = item.split(":");
                    Uuid id = topic(Integer.parseInt(pair[0]));
                    assigned.computeIfAbsent(id, none -> new HashSet<>()).add(Integer.parseInt(pair[1]));
                    owners.computeIfAbsent(id, none -> new HashMap<>()).put(Integer.parseInt(pair[1]), parts[0]);
                }
                subscriptions.add(topics);
                Optional<String> instance = parts[1].isEmpty() ? Optional.empty() : Optional.of(parts[1]);
                Assignment before = new Assignment(Collections.unmodifiableMap(assigned));
                members.put(parts[0], new MemberSubscriptionAndAssignmentImpl(Optional.empty(), instance, topics, before));
            }
            SubscriptionType type = subscriptions.size() == 1 ? SubscriptionType.HOMOGENEOUS : SubscriptionType.HETEROGENEOUS;
            ConsumerGroupPartitionAssignor assignor = words[0].equals("range") ? new RangeAssignor() : new UniformAssignor();
            GroupAssignment made = assignor.assign(new GroupSpecImpl(members, type, owners), new SubscribedTopicDescriber() {
                @Override
                public int numPartitions(Uuid id) {
                    return Integer.parseInt(counts[(int) id.getLeastSignificantBits() - 1]);
                }

                @Override
                public Set<String> racksForPartition(Uuid id, int partition) {
                    return Set.of();
                }
            });
            List<String> answer = new ArrayList<>();
            for (String id : new TreeSet<>(members.keySet())) {
                List<String> given = new ArrayList<>();
                if (made.members().containsKey(id)) {
                    new TreeMap<>(made.members().get(id).partitions()).forEach((uuid, partitions) -> {
                        for (int partition : new TreeSet<>(partitions)) {
                            given.add((uuid.getLeastSignificantBits() - 1) + ":" + partition);
                        }
                    });
                }
                answer.add(id + "/" + String.join(",", given));
            }
            System.out.println(String.join(" ", answer));
        }
    }
}
