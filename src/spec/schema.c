/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet document: one row per key. To add a key, add a row here, a member to a struct in spec.h
 * where code has to see it, and a case to tests/data/; docs/reference/fleet.md is made from this by
 * tests/unit/spec/test_corpus.c (PK_UPDATE=1).
 */
#include "spec/schema.h"

#include <stdio.h>
#include <string.h>

/* A tool is called like its package, without the version. */
static const char *tool_name(const struct pk_node *tool, char *out, size_t size)
{
    const struct pk_node *package = pk_node_get(tool, "package");
    if (package == NULL || package->kind != PK_NODE_STRING)
        return NULL;
    size_t len = strcspn(package->text, "@");
    if (len == 0 || len > PK_NAME_MAX)
        return NULL;
    (void)snprintf(out, size, "%.*s", (int)len, package->text);
    return out;
}

/* clang-format off */
static const struct pk_field rows[] = {
    { .path = "", .type = PK_FIELD_MAP,
      .help = "The desired state of one fleet of network sensors." },
    { .path = "apiVersion", .type = PK_FIELD_CHOICE, .flags = PK_FIELD_REQUIRED,
      .choices = PK_API_VERSION, .example = PK_API_VERSION,
      .help = "Version of this format." },
    { .path = "kind", .type = PK_FIELD_CHOICE, .flags = PK_FIELD_REQUIRED,
      .choices = "Fleet", .example = "Fleet",
      .help = "Kind of document." },

    { .path = "metadata", .type = PK_FIELD_MAP, .flags = PK_FIELD_REQUIRED,
      .help = "What the fleet is called." },
    { .path = "metadata.name", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = PK_NAME_MAX, .pattern = PK_NAME_PATTERN, .what = PK_NAME_WORDS,
      .example = "border", .at = PK_AT(struct pk_fleet_spec, name),
      .help = "Name of the fleet; containers, namespaces and events carry it." },

    { .path = "spec", .type = PK_FIELD_MAP, .flags = PK_FIELD_REQUIRED,
      .help = "What the fleet is made of." },

    { .path = "spec.taps", .type = PK_FIELD_LIST, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 64,
      .at = PK_AT(struct pk_fleet_spec, taps), .at_count = PK_AT(struct pk_fleet_spec, tap_count),
      .elem_size = sizeof(struct pk_tap_spec),
      .help = "Where packets come in." },
    { .path = "spec.taps[]", .type = PK_FIELD_MAP, .at_pos = PK_AT(struct pk_tap_spec, pos),
      .help = "One tap: a network interface, or capture files that are replayed.",
      .example = "{name: uplink, interface: eth1}" },
    { .path = "spec.taps[].name", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = PK_NAME_MAX, .pattern = PK_NAME_PATTERN, .what = PK_NAME_WORDS,
      .unique = "spec.taps", .unique_hint = "each tap has a name of its own: choose another",
      .example = "uplink", .at = PK_AT(struct pk_tap_spec, name),
      .help = "Name of the tap; groups refer to it." },
    { .path = "spec.taps[].interface", .type = PK_FIELD_STRING, .flags = PK_FIELD_ONE_OF,
      .min = 1, .max = 15, .pattern = "^[A-Za-z0-9_][A-Za-z0-9_.@-]*$",
      .what = "a network interface (at most 15 letters, digits, \"_\", \"-\", \".\" or \"@\")",
      .unique = "spec.taps", .unique_hint = "an interface belongs to one tap: remove one of the two",
      .example = "eth1", .at = PK_AT(struct pk_tap_spec, interface),
      .help = "Network interface that receives the mirrored traffic. picket takes all of its packets." },
    { .path = "spec.taps[].replay", .type = PK_FIELD_MAP, .flags = PK_FIELD_ONE_OF,
      .help = "A tap without a network card: `picket replay` sends capture files through it." },
    { .path = "spec.taps[].replay.mtu", .type = PK_FIELD_INT, .min = 576, .max = 65521,
      .init = "9216", .example = "9216", .at = PK_AT(struct pk_tap_spec, mtu),
      .help = "Largest IP packet that can be replayed, in bytes." },

    { .path = "spec.groups", .type = PK_FIELD_LIST, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 32,
      .at = PK_AT(struct pk_fleet_spec, groups),
      .at_count = PK_AT(struct pk_fleet_spec, group_count),
      .elem_size = sizeof(struct pk_group_spec),
      .help = "Sets of tools that see the same packets." },
    { .path = "spec.groups[]", .type = PK_FIELD_MAP, .at_pos = PK_AT(struct pk_group_spec, pos),
      .help = "One group. Its traffic is shared out over lanes; a flow goes whole to one lane.",
      .example = "{name: analysis, taps: [uplink], tools: [{package: suricata@7}]}" },
    { .path = "spec.groups[].name", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = PK_NAME_MAX, .pattern = PK_NAME_PATTERN, .what = PK_NAME_WORDS,
      .unique = "spec.groups", .unique_hint = "each group has a name of its own: choose another",
      .example = "analysis", .at = PK_AT(struct pk_group_spec, name),
      .help = "Name of the group." },
    { .path = "spec.groups[].taps", .type = PK_FIELD_LIST, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = 64, .at = PK_AT(struct pk_group_spec, taps), .example = "[uplink]",
      .help = "The taps whose packets the group gets. In this version a tap feeds one group." },
    { .path = "spec.groups[].taps[]", .type = PK_FIELD_STRING, .min = 1,
      .unique = "spec.groups", .refers = "spec.taps[].name",
      .unique_hint = "in this version a tap feeds one group, once: put the tools into that group",
      .example = "uplink", .help = "Name of a tap." },
    { .path = "spec.groups[].lanes", .type = PK_FIELD_INT, .min = 1, .max = PK_LANES_MAX,
      .choices = "auto", .init = "auto", .example = "2",
      .at = PK_AT(struct pk_group_spec, lanes),
      .help = "How many lanes share the traffic, each with its own tools. `auto`: as the machine's processors allow." },
    { .path = "spec.groups[].cpu", .type = PK_FIELD_CHOICE, .choices = "shared|dedicated",
      .init = "shared", .example = "shared", .at = PK_AT(struct pk_group_spec, cpu),
      .help = "`dedicated`: each lane has processors of its own; `shared`: the system's scheduler decides." },
    { .path = "spec.groups[].hash", .type = PK_FIELD_CHOICE, .choices = "outer|flow|addresses",
      .init = "outer", .example = "outer", .at = PK_AT(struct pk_group_spec, hash),
      .help = "What keeps packets together. `outer`: a flow, and all of a tunnel between two addresses; `flow`: the innermost flow, in tunnels too; `addresses`: all between the innermost two addresses." },
    { .path = "spec.groups[].tools", .type = PK_FIELD_LIST, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = 16, .at = PK_AT(struct pk_group_spec, tools),
      .at_count = PK_AT(struct pk_group_spec, tool_count), .elem_size = sizeof(struct pk_tool_spec),
      .help = "The programs that run in each lane." },
    { .path = "spec.groups[].tools[]", .type = PK_FIELD_MAP, .at_pos = PK_AT(struct pk_tool_spec, pos),
      .help = "One tool: a package of the catalog with settings.", .example = "{package: suricata@7}" },
    { .path = "spec.groups[].tools[].package", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = 80,
      .pattern = "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?(@[0-9A-Za-z][0-9A-Za-z.+~-]*)?$",
      .what = "a package as NAME or NAME@VERSION", .example = "suricata@7",
      .at = PK_AT(struct pk_tool_spec, package), .at_pos = PK_AT(struct pk_tool_spec, package_pos),
      .help = "Package and version (see `picket catalog list`). Without a version: the package's default." },
    { .path = "spec.groups[].tools[].name", .type = PK_FIELD_STRING,
      .min = 1, .max = PK_NAME_MAX, .pattern = PK_NAME_PATTERN, .what = PK_NAME_WORDS,
      .derive = tool_name, .derived = "the package's name",
      .example = "suricata", .at = PK_AT(struct pk_tool_spec, name),
      .help = "Name of the tool in its group." },
    { .path = "spec.groups[].tools[].values", .type = PK_FIELD_OBJECT, .init = "{}",
      .example = "{home-net: [10.0.0.0/8, 192.168.0.0/16]}",
      .at = PK_AT(struct pk_tool_spec, values), .at_node = PK_AT(struct pk_tool_spec, values_node),
      .help = "Settings of the tool (see `picket catalog values PACKAGE`)." },
    { .path = "spec.groups[].tools[].memory", .type = PK_FIELD_BYTES,
      .min = 64 << 20, .max = 1LL << 44, .init = "2GiB", .example = "2GiB",
      .at = PK_AT(struct pk_tool_spec, memory_bytes),
      .help = "Limit of memory, of the tool in each lane." },

    { .path = "spec.events", .type = PK_FIELD_MAP,
      .help = "Where the tools' events go." },
    { .path = "spec.events.sinks", .type = PK_FIELD_LIST, .min = 1, .max = 1,
      .help = "The receivers of events; in this version picket's own store." },
    { .path = "spec.events.sinks[]", .type = PK_FIELD_MAP,
      .help = "One receiver.", .example = "{store: {retain: 30d}}" },
    { .path = "spec.events.sinks[].store", .type = PK_FIELD_MAP, .flags = PK_FIELD_ONE_OF,
      .help = "picket's own store: searched by `picket events`." },
    { .path = "spec.events.sinks[].store.retain", .type = PK_FIELD_DURATION,
      .min = 60 * PK_NSEC_PER_SEC, .max = 3660 * 86400 * PK_NSEC_PER_SEC, .init = "30d", .example = "30d",
      .at = PK_AT(struct pk_fleet_spec, store.retain),
      .help = "How long events are kept." },
    { .path = "spec.events.sinks[].store.maxSize", .type = PK_FIELD_BYTES,
      .min = 16 << 20, .max = 1LL << 52, .init = "50GiB", .example = "50GiB",
      .at = PK_AT(struct pk_fleet_spec, store.max_bytes),
      .help = "Disk space at most; beyond it the oldest events are removed." },
    { .path = "spec.events.sinks[].store.sealAfter", .type = PK_FIELD_DURATION,
      .min = PK_NSEC_PER_SEC / 2, .max = 3600 * PK_NSEC_PER_SEC, .init = "5s", .example = "5s",
      .at = PK_AT(struct pk_fleet_spec, store.seal_after),
      .help = "How long recent events may wait in memory before they are written to a file." },
};
/* clang-format on */

const struct pk_table pk_fleet_table = {
    .fields = rows,
    .count = PK_ARRAY_SIZE(rows),
    .title = "Fleet",
    .schema_id = "https://picket.dev/schemas/fleet-v1alpha1.json",
};
