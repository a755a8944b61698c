// Reads responses as Kafka's own client does.
// stdin: "<case> <api key> <version> <hex>"; stdout: "<case> <api key> <version> <code>=<count>,...",
// or "<case> <api key> <version> ! <why it cannot be read>".
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.RequestHeader;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.stream.Collectors;

class Responses {
    static final int CORRELATION = 7;

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split(" ");
            String said;
            try {
                said = read(Short.parseShort(parts[1]), Short.parseShort(parts[2]), parts[3]);
            } catch (RuntimeException error) {
                said = "! " + error;
            }
            System.out.println(parts[0] + " " + parts[1] + " " + parts[2] + " " + said);
        }
    }

    static String read(short key, short version, String hex) {
        ByteBuffer bytes = ByteBuffer.wrap(HexFormat.of().parseHex(hex));
        RequestHeader header = new RequestHeader(ApiKeys.forId(key), version, "peer", CORRELATION);
        AbstractResponse response = AbstractResponse.parseResponse(bytes, header);
        if (bytes.hasRemaining()) {
            return "! " + bytes.remaining() + " bytes too many";
        }
        return response.errorCounts().entrySet().stream()
            .map(entry -> entry.getKey().code() + "=" + entry.getValue())
            .sorted()
            .collect(Collectors.joining(","));
    }
}
