import java.util.TreeMap;
import org.apache.kafka.common.config.ConfigDef;

/** Prints each setting of Kafka's broker, a tab, and what its validator says that it may be. */
public final class Bounds {
    public static void main(String[] none) {
        for (ConfigDef.ConfigKey key : new TreeMap<>(kafka.server.KafkaConfig.configDef().configKeys()).values()) {
            System.out.println(key.name + "\t" + (key.validator == null ? "" : key.validator));
        }
    }
}
