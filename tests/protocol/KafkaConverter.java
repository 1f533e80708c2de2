// Converts messages by Kafka's own generated code. Each line of the input is one of
//     decode CLASS VERSION HEX       answered by the message as JSON
//     encode CLASS VERSION JSON      answered by its bytes as HEX
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.Readable;

public class KafkaConverter {
    public static void main(String[] arguments) throws Exception {
        ObjectMapper json = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ", 4);
            Class<?> type = Class.forName(words[1]);
            Class<?> converter = Class.forName(words[1] + "JsonConverter");
            short version = Short.parseShort(words[2]);
            if (words[0].equals("decode")) {
                ByteBuffer data = ByteBuffer.wrap(HexFormat.of().parseHex(words[3]));
                Object message = type.getConstructor(Readable.class, short.class).newInstance(new ByteBufferAccessor(data), version);
                if (data.hasRemaining()) {
                    throw new IllegalStateException(data.remaining() + " bytes are left of " + line);
                }
                out.println(converter.getMethod("write", type, short.class).invoke(null, message, version));
            } else {
                Object message = converter.getMethod("read", JsonNode.class, short.class).invoke(null, json.readTree(words[3]), version);
                ByteBuffer data = MessageUtil.toByteBufferAccessor((ApiMessage) message, version).buffer();
                out.println(HexFormat.of().formatHex(data.array(), data.arrayOffset() + data.position(), data.arrayOffset() + data.limit()));
            }
        }
        out.flush();
    }
}
