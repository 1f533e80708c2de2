// Kafka's own validation, encoding and decoding of record batches, over standard input and output, for test_batch_kafka.py.
// Every request is an operation byte and its arguments; every answer is flushed. Integers are big endian.
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.function.Supplier;

import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.CorruptRecordException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.PrimitiveRef;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.LogValidator;
import org.apache.kafka.storage.internals.log.RecordValidationException;

public class KafkaOracle {
    static final short PRODUCE_VERSION = 12;

    public static void main(String[] args) throws IOException {
        DataInputStream in = new DataInputStream(System.in);
        DataOutputStream out = new DataOutputStream(System.out);
        for (int operation = in.read(); operation != -1; operation = in.read()) {
            ByteArrayOutputStream answer = new ByteArrayOutputStream();
            DataOutputStream to = new DataOutputStream(answer);
            switch (operation) {
                case 'v' -> validate(in, to);
                case 'b' -> build(in, to);
                default -> read(in, to);
            }
            out.writeInt(answer.size());
            answer.writeTo(out);
            out.flush();
        }
    }

    static byte[] take(DataInputStream in) throws IOException {
        int n = in.readInt();
        return n < 0 ? null : in.readNBytes(n);
    }

    static void put(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null) out.write(bytes);
    }

    static byte[] bytes(ByteBuffer buffer) {
        if (buffer == null) return null;
        byte[] made = new byte[buffer.remaining()];
        buffer.duplicate().get(made);
        return made;
    }

    /** In: now, largest size, oldest, newest (ms), log-append time, compacted, codec (-1: the producer's), batch. Out: error, batch. */
    static void validate(DataInputStream in, DataOutputStream out) throws IOException {
        long now = in.readLong();
        int sizeMax = in.readInt();
        long beforeMax = in.readLong();
        long afterMax = in.readLong();
        boolean logAppendTime = in.readBoolean();
        boolean compacted = in.readBoolean();
        byte codec = in.readByte();
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(take(in)));
        Errors error = Errors.NONE;
        byte[] made = null;
        try {
            ProduceRequest.validateRecords(PRODUCE_VERSION, records);
            CompressionType source = analyze(records, sizeMax);
            CompressionType target = codec < 0 ? source : CompressionType.forId(codec);
            LogValidator validator = new LogValidator(records, new TopicPartition("t", 0), new FixedTime(now), source,
                Compression.of(target).build(), compacted, RecordBatch.CURRENT_MAGIC_VALUE,
                logAppendTime ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME, beforeMax, afterMax, 0, AppendOrigin.CLIENT);
            made = bytes(validator.validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(0), new NoMetrics(), BufferSupplier.NO_CACHING)
                .validatedRecords().buffer());
        } catch (RecordValidationException thrown) { /* as the replica manager does: the error is the one inside */
            error = Errors.forException(thrown.invalidException());
        } catch (Throwable thrown) {
            error = Errors.forException(thrown);
        }
        out.writeShort(error.code());
        put(out, made);
    }

    /** What the log checks before the validator runs. */
    static CompressionType analyze(MemoryRecords records, int sizeMax) {
        CompressionType source = CompressionType.NONE;
        for (MutableRecordBatch batch : records.batches()) {
            if (batch.baseOffset() != 0) throw new InvalidRecordException("base offset");
            if (batch.sizeInBytes() > sizeMax) throw new RecordTooLargeException("size");
            if (!batch.isValid()) throw new CorruptRecordException("CRC");
            if (batch.compressionType() != CompressionType.NONE) source = batch.compressionType();
        }
        return source;
    }

    /** In: codec, producer id, epoch, sequence, transactional, count, records. Out: the batch. */
    static void build(DataInputStream in, DataOutputStream out) throws IOException {
        Compression codec = Compression.of(CompressionType.forId(in.readByte())).build();
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), codec, 0L, in.readLong(), in.readShort(),
            in.readInt(), in.readBoolean());
        int count = in.readInt();
        for (int i = 0; i < count; i++) {
            long timestamp = in.readLong();
            byte[] key = take(in);
            byte[] value = take(in);
            Header[] headers = new Header[in.readInt()];
            for (int k = 0; k < headers.length; k++) headers[k] = new RecordHeader(new String(take(in), "UTF-8"), take(in));
            builder.append(timestamp, key, value, headers);
        }
        put(out, bytes(builder.build().buffer()));
    }

    /** In: batches. Out: error; when 0, count and records (offset, timestamp, key, value, headers). */
    static void read(DataInputStream in, DataOutputStream out) throws IOException {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(take(in)));
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        DataOutputStream to = new DataOutputStream(body);
        int count = 0;
        try {
            for (RecordBatch batch : records.batches()) batch.ensureValid();
            for (Record record : records.records()) {
                count++;
                to.writeLong(record.offset());
                to.writeLong(record.timestamp());
                put(to, bytes(record.key()));
                put(to, bytes(record.value()));
                to.writeInt(record.headers().length);
                for (Header header : record.headers()) {
                    put(to, header.key().getBytes("UTF-8"));
                    put(to, header.value());
                }
            }
        } catch (RuntimeException thrown) {
            out.writeShort(Errors.forException(thrown).code());
            return;
        }
        out.writeShort(0);
        out.writeInt(count);
        body.writeTo(out);
    }

    record FixedTime(long milliseconds) implements Time {
        public long nanoseconds() {
            return 0;
        }

        public void sleep(long ms) {
        }

        public void waitObject(Object object, Supplier<Boolean> condition, long deadlineMs) {
        }
    }

    static class NoMetrics implements LogValidator.MetricsRecorder {
        public void recordInvalidMagic() {
        }

        public void recordInvalidOffset() {
        }

        public void recordInvalidSequence() {
        }

        public void recordInvalidChecksums() {
        }

        public void recordNoKeyCompactedTopic() {
        }
    }
}
