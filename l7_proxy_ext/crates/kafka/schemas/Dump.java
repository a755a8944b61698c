// Prints the schemas of Kafka's client APIs as facts, a line each: "<key> <version> <q|r> <schema>".
// Run by hand when the supported Kafka rises: java -cp 'JARS/*' Dump.java > schemas.txt
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.types.ArrayOf;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.CompactArrayOf;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;

import java.util.Map;
import java.util.Set;

class Dump {
    // Schemas do not tell that a struct is nullable; the message definitions do. What of one API is
    // nullable may not be in another (`assignment` of ConsumerGroupDescribe, `user_endpoint` of 88's response).
    static final Set<String> ANYWHERE = Set.of("cursor", "next_cursor");
    static final Map<String, Set<String>> NULLABLE_IN = Map.of(
            "68r", Set.of("assignment"), "76r", Set.of("assignment"),
            "88q", Set.of("topology", "user_endpoint"), "89r", Set.of("topology", "user_endpoint"));
    static Set<String> nullable = ANYWHERE;

    public static void main(String[] args) {
        for (ApiKeys api : ApiKeys.values()) {
            if (api.clusterAction || !api.inScope(org.apache.kafka.common.message.ApiMessageType.ListenerType.BROKER)) continue;
            for (short v = api.messageType.lowestSupportedVersion(); v <= api.messageType.highestSupportedVersion(true); v++) {
                nullable = NULLABLE_IN.getOrDefault(api.id + "q", ANYWHERE);
                System.out.println(api.id + " " + v + " q" + api.requestHeaderVersion(v) + " " + type(api.messageType.requestSchemas()[v]));
                nullable = NULLABLE_IN.getOrDefault(api.id + "r", ANYWHERE);
                System.out.println(api.id + " " + v + " r" + api.responseHeaderVersion(v) + " " + type(api.messageType.responseSchemas()[v]));
            }
        }
    }

    static String type(Type t) {
        if (t instanceof Schema s) {
            StringBuilder out = new StringBuilder("{");
            for (BoundField f : s.fields()) {
                out.append(f.def.name).append(':');
                if (nullable.contains(f.def.name) && f.def.type instanceof Schema) out.append('?');
                out.append(type(f.def.type)).append(' ');
            }
            return out.toString().trim() + "}";
        }
        if (t instanceof TaggedFields) return "T";
        if (t instanceof CompactArrayOf a) return (t.isNullable() ? "?" : "") + "A" + type(a.arrayElementType().get());
        if (t instanceof ArrayOf a) return (t.isNullable() ? "?" : "") + "a" + type(a.arrayElementType().get());
        String name = t.toString();
        return switch (name) {
            case "BOOLEAN", "INT8" -> "1";
            case "INT16", "UINT16" -> "2";
            case "INT32", "UINT32" -> "4";
            case "INT64", "FLOAT64" -> "8";
            case "UUID" -> "u";
            case "STRING" -> "s";
            case "NULLABLE_STRING" -> "n";
            case "COMPACT_STRING" -> "S";
            case "COMPACT_NULLABLE_STRING" -> "N";
            case "BYTES", "RECORDS" -> "b";
            case "NULLABLE_BYTES" -> "d";
            case "COMPACT_BYTES", "COMPACT_NULLABLE_BYTES", "COMPACT_RECORDS" -> "B";
            case "UNSIGNED_VARINT", "VARINT", "VARLONG" -> "v";
            default -> name.startsWith("Schema") || name.startsWith("{") ? "?" + name : "<" + name + ">";
        };
    }
}
