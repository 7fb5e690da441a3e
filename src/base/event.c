/* SPDX-License-Identifier: Apache-2.0 */
#include "base/event.h"

#include <string.h>

#define LOWER  PK_COLUMN_LOWER
#define SOURCE PK_COLUMN_SOURCE
#define ALWAYS PK_COLUMN_ALWAYS

/* clang-format off */
static const struct pk_column columns[] = {
    { "time", PK_COL_TIME, ALWAYS, "timestamp", "ts", "@timestamp|timestamp|ts",
      "when it happened, UTC" },
    { "type", PK_COL_TEXT, LOWER | ALWAYS, "event_type", "_path", "event_type|event.dataset|_path",
      "kind of record: alert, flow, dns, http, tls, ...; \"invalid\" for a line that is no JSON" },
    { "fleet", PK_COL_TEXT, SOURCE | ALWAYS, NULL, NULL, NULL, "fleet of the sensor" },
    { "group", PK_COL_TEXT, SOURCE | ALWAYS, NULL, NULL, NULL, "group of the sensor" },
    { "lane", PK_COL_U64, SOURCE | ALWAYS, NULL, NULL, NULL, "lane of the sensor, from 0" },
    { "tool", PK_COL_TEXT, SOURCE | ALWAYS, NULL, NULL, "observer.product", "tool that wrote it" },
    { "src_ip", PK_COL_IP, ALWAYS, "src_ip", "id.orig_h|src", "source.ip|id.orig_h",
      "source address" },
    { "src_port", PK_COL_U64, ALWAYS, "src_port", "id.orig_p", "source.port|id.orig_p",
      "source port" },
    { "dst_ip", PK_COL_IP, ALWAYS, "dest_ip", "id.resp_h|dst",
      "dest_ip|destination.ip|id.resp_h", "destination address" },
    { "dst_port", PK_COL_U64, ALWAYS, "dest_port", "id.resp_p|p",
      "dest_port|destination.port|id.resp_p", "destination port" },
    { "proto", PK_COL_TEXT, LOWER | ALWAYS, "proto", "proto", "network.transport",
      "transport: tcp, udp, icmp, ..." },
    { "community_id", PK_COL_TEXT, ALWAYS, "community_id", "community_id",
      "network.community_id", "community id of the flow, the same in all tools" },
    { "app_proto", PK_COL_TEXT, LOWER, "app_proto", "service", "network.protocol|service",
      "application protocol" },
    { "flow_id", PK_COL_U64, 0, "flow_id", NULL, NULL, "Suricata's flow number" },
    { "uid", PK_COL_TEXT, 0, NULL, "uid", "zeek.uid", "Zeek's connection id" },
    { "vlan", PK_COL_U64, 0, "vlan.0|vlan", "vlan", "network.vlan.id", "outer VLAN" },
    { "signature_id", PK_COL_U64, 0, "alert.signature_id", NULL, "sid|rule.id|alert.signature_id",
      "rule that alerted" },
    { "signature", PK_COL_TEXT, 0, "alert.signature|anomaly.event", "note|name",
      "rule.name|alert.signature", "text of the rule, notice or anomaly" },
    { "category", PK_COL_TEXT, 0, "alert.category", NULL, "rule.category|alert.category",
      "the rule's category" },
    { "severity", PK_COL_U64, 0, "alert.severity", NULL, "event.severity|alert.severity",
      "1 is worst" },
    { "action", PK_COL_TEXT, LOWER, "alert.action", NULL, "event.action|alert.action",
      "allowed or blocked" },
    { "host", PK_COL_TEXT, LOWER,
      "http.hostname|tls.sni|quic.sni|dns.rrname|dns.queries.0.rrname|dns.query.0.rrname",
      "host|server_name|query", "http.hostname|tls.sni|dns.rrname|url.domain|dns.question.name|query",
      "host name of a web request, a TLS or QUIC hello or a DNS question" },
    { "url", PK_COL_TEXT, 0, "http.url", "uri", "http.url|url.original|uri", "path and query" },
    { "status", PK_COL_U64, 0, "http.status", "status_code",
      "http.status|http.response.status_code", "HTTP status" },
    { "bytes_toserver", PK_COL_U64, 0, "flow.bytes_toserver|netflow.bytes", "orig_ip_bytes",
      "source.bytes|flow.bytes_toserver", "bytes from the client" },
    { "bytes_toclient", PK_COL_U64, 0, "flow.bytes_toclient", "resp_ip_bytes",
      "destination.bytes|flow.bytes_toclient", "bytes from the server" },
    { "raw", PK_COL_TEXT, ALWAYS, NULL, NULL, "event.original", "the record as the tool wrote it" },
};
/* clang-format on */

_Static_assert(PK_ARRAY_SIZE(columns) <= PK_EVENT_COLUMNS_MAX, "a row's mask has 32 bits");

const struct pk_column *pk_event_columns(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(columns);
    return columns;
}

static bool in_list(const char *list, const char *name, size_t len)
{
    while (list != NULL) {
        const char *end = strchrnul(list, '|');
        if ((size_t)(end - list) == len && memcmp(list, name, len) == 0)
            return true;
        list = *end != '\0' ? end + 1 : NULL;
    }
    return false;
}

int pk_event_column(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < PK_ARRAY_SIZE(columns); i++)
        if (strcmp(columns[i].name, name) == 0)
            return (int)i;
    for (size_t i = 0; i < PK_ARRAY_SIZE(columns); i++)
        if (in_list(columns[i].alias, name, len))
            return (int)i;
    return -1;
}

uint64_t pk_event_columns_hash(void)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a: no secret, only a change detector */

    for (size_t i = 0; i < PK_ARRAY_SIZE(columns); i++) {
        for (const char *c = columns[i].name; *c != '\0'; c++)
            hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
        hash = (hash ^ (0x80u + columns[i].type)) * 0x100000001b3u;
    }
    return hash;
}
