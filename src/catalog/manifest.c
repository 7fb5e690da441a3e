/* SPDX-License-Identifier: Apache-2.0 */
/* The table of manifest.yaml, and the package that comes out of it. docs/packages.md explains it.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "catalog/internal.h"
#include "spec/schema.h"

#define PATH_PATTERN "^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"
#define PATH_WORDS   "an absolute path of letters, digits, \".\", \"_\" and \"-\""
#define FILE_PATTERN "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
#define SCHEMA_MAX   (4u << 20)

/* clang-format off */
/* What may be said for all versions (under "defaults") and again for one. */
#define RUN_ROWS(prefix, T, m)                                                                       \
    { .path = prefix "argv", .type = PK_FIELD_LIST, .min = 1, .max = 64,                                \
      .at = PK_AT(T, m.argv), .example = "[/usr/bin/suricata, -c, /etc/picket/suricata.yaml]",       \
      .help = "The command in the container. No shell reads it." },                                     \
    { .path = prefix "argv[]", .type = PK_FIELD_STRING, .min = 1, .max = 4096,                          \
      .what = "text of 1 to 4096 characters", .help = "One argument." },                                \
    { .path = prefix "capabilities", .type = PK_FIELD_LIST, .max = 3,                                   \
      .at = PK_AT(T, m.capabilities), .example = "[NET_RAW]",                                        \
      .help = "Linux capabilities that the tool keeps: NET_RAW, SYS_NICE, IPC_LOCK. All others are dropped." }, \
    { .path = prefix "capabilities[]", .type = PK_FIELD_STRING, .min = 1,                               \
      .pattern = "^(NET_RAW|SYS_NICE|IPC_LOCK)$", .what = "NET_RAW, SYS_NICE or IPC_LOCK",              \
      .help = "A capability." },                                                                        \
    { .path = prefix "configDir", .type = PK_FIELD_STRING, .min = 2, .max = 200,                        \
      .pattern = PATH_PATTERN, .what = PATH_WORDS, .at = PK_AT(T, m.config_dir),                     \
      .example = "/etc/picket", .help = "Where the tool finds its configuration; read-only." },         \
    { .path = prefix "logDir", .type = PK_FIELD_STRING, .min = 2, .max = 200,                           \
      .pattern = PATH_PATTERN, .what = PATH_WORDS, .at = PK_AT(T, m.log_dir),                        \
      .example = "/var/log/suricata", .help = "Where the tool writes its logs." },                      \
    { .path = prefix "runDir", .type = PK_FIELD_STRING, .min = 2, .max = 200,                           \
      .pattern = PATH_PATTERN, .what = PATH_WORDS, .at = PK_AT(T, m.run_dir),                        \
      .example = "/run/suricata", .help = "Where the tool makes its sockets." },                        \
    { .path = prefix "logs", .type = PK_FIELD_LIST, .max = 32, .at = PK_AT(T, m.logs),               \
      .at_count = PK_AT(T, m.log_count), .elem_size = sizeof(struct pk_log_row),                     \
      .help = "The logs that are followed." },                                                          \
    { .path = prefix "logs[]", .type = PK_FIELD_MAP, .help = "One kind of log.",                        \
      .example = "{glob: \"eve-*.json\", format: eve}" },                                               \
    { .path = prefix "logs[].glob", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,                \
      .min = 1, .max = 100, .pattern = "^[A-Za-z0-9_*?-][A-Za-z0-9._*?-]*$",                            \
      .what = "a file name with * and ?, without folders", .example = "\"eve-*.json\"",                 \
      .at = PK_AT(struct pk_log_row, glob), .help = "Names of the files in the log folder." },          \
    { .path = prefix "logs[].format", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,              \
      .min = 1, .pattern = "^(eve|zeek-json)$", .what = "eve or zeek-json", .example = "eve",           \
      .at = PK_AT(struct pk_log_row, format), .help = "How the lines are read: `eve` or `zeek-json`." }, \
    { .path = prefix "probe", .type = PK_FIELD_MAP, .help = "How to know that the tool works." },       \
    { .path = prefix "probe.kind", .type = PK_FIELD_CHOICE, .flags = PK_FIELD_REQUIRED,                 \
      .choices = "none|suricata", .example = "suricata", .at = PK_AT(T, m.probe),                    \
      .help = "`suricata`: asks Suricata's command socket; `none`: running is ready." },                \
    { .path = prefix "probe.socket", .type = PK_FIELD_STRING, .min = 1, .max = 64,                      \
      .pattern = FILE_PATTERN, .what = "a file name", .example = "command.socket",                      \
      .at = PK_AT(T, m.probe_socket), .help = "The socket, in the run folder." },                    \
    { .path = prefix "canary", .type = PK_FIELD_MAP,                                                    \
      .help = "What the tool writes of a canary, a small DNS exchange by which picket sees whether its log comes back." }, \
    { .path = prefix "canary.event", .type = PK_FIELD_CHOICE, .flags = PK_FIELD_REQUIRED,               \
      .choices = "none|dns", .example = "dns", .at = PK_AT(T, m.canary),                             \
      .help = "`dns`: a record with the name that was asked for; `none`: nothing, so it is sent none." }, \
    { .path = prefix "canary.value", .type = PK_FIELD_STRING, .min = 1, .max = 100,                     \
      .pattern = "^[a-z0-9-]+(\\.[a-z0-9-]+)*$", .what = "a path into the values", .example = "eve.dns.enabled", \
      .at = PK_AT(T, m.canary_value), .help = "The value that must be true for that." },             \
    { .path = prefix "reload", .type = PK_FIELD_STRING, .max = 64, .at = PK_AT(T, m.reload),         \
      .example = "\"\"", .help = "How changed values are taken without a restart; empty: by restart." }, \
    { .path = prefix "stopTimeout", .type = PK_FIELD_DURATION, .min = PK_NSEC_PER_SEC,                  \
      .max = 600 * PK_NSEC_PER_SEC, .at = PK_AT(T, m.stop_timeout), .example = "20s",                \
      .derived = "`10s`", .help = "How long the tool may take to end before it is killed." },           \
    { .path = prefix "pidsMax", .type = PK_FIELD_INT, .min = 1, .max = 4096,                            \
      .at = PK_AT(T, m.pids_max), .example = "64", .derived = "`128`",                               \
      .help = "Processes and threads at most." },                                                       \
    { .path = prefix "nofile", .type = PK_FIELD_INT, .min = 64, .max = 1048576,                         \
      .at = PK_AT(T, m.nofile), .example = "1024", .derived = "`1024`",                              \
      .help = "Open files at most." },                                                                  \
    { .path = prefix "tmpfs", .type = PK_FIELD_BYTES, .min = 65536, .max = 1LL << 40,                   \
      .at = PK_AT(T, m.tmpfs_bytes), .example = "16MiB", .derived = "`16MiB`",                       \
      .help = "Size of /tmp, in memory." }

#define MANIFEST struct pk_manifest_rows
#define VERSION  struct pk_version_row

static const struct pk_field rows[] = {
    { .path = "", .type = PK_FIELD_MAP, .help = "A package: a tool that fleets can run." },
    { .path = "apiVersion", .type = PK_FIELD_CHOICE, .flags = PK_FIELD_REQUIRED,
      .choices = PK_API_VERSION, .example = PK_API_VERSION, .help = "Version of this format." },
    { .path = "kind", .type = PK_FIELD_CHOICE, .flags = PK_FIELD_REQUIRED, .choices = "Package",
      .example = "Package", .help = "Kind of document." },
    { .path = "name", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED,
      .min = 1, .max = PK_NAME_MAX, .pattern = PK_NAME_PATTERN, .what = PK_NAME_WORDS,
      .example = "suricata", .at = PK_AT(MANIFEST, name),
      .help = "Name of the package; the folder has the same name." },
    { .path = "summary", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 100,
      .what = "one line of at most 100 characters", .pattern = "^[^\\n]*$",
      .example = "Network intrusion detection by Suricata", .at = PK_AT(MANIFEST, summary),
      .help = "What it is, in a line." },
    { .path = "description", .type = PK_FIELD_STRING, .max = 4096, .init = "",
      .what = "text of at most 4096 characters", .example = "Runs Suricata in every lane.",
      .at = PK_AT(MANIFEST, description), .help = "What it does, in a paragraph." },
    { .path = "homepage", .type = PK_FIELD_STRING, .max = 200, .init = "",
      .pattern = "^(https?://[!-~]+)?$", .what = "an address that begins with https://",
      .example = "https://suricata.io", .at = PK_AT(MANIFEST, homepage), .help = "The tool's own site." },
    { .path = "license", .type = PK_FIELD_STRING, .max = 100, .init = "", .what = "an SPDX expression",
      .pattern = "^[A-Za-z0-9.+() -]*$", .example = "GPL-2.0-only", .at = PK_AT(MANIFEST, license),
      .help = "The tool's licence (SPDX)." },
    { .path = "roles", .type = PK_FIELD_LIST, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 4,
      .at = PK_AT(MANIFEST, roles), .example = "[lane]",
      .help = "Where the tool runs. `lane`: one in each lane of the group, where it reads; `inline`: in the lanes of an inline tap, where it also sends on what it lets through." },
    { .path = "roles[]", .type = PK_FIELD_STRING, .min = 1, .pattern = "^(lane|inline)$",
      .what = "lane or inline",
      .unique = "roles", .example = "lane", .help = "A role." },
    { .path = "defaultVersion", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED, .min = 1,
      .refers = "versions[].version", .example = "\"7\"", .at = PK_AT(MANIFEST, default_version),
      .help = "The version of fleets that do not name one." },
    { .path = "defaults", .type = PK_FIELD_MAP,
      .help = "What is the same for all versions; a version may say each of these anew." },
    RUN_ROWS("defaults.", MANIFEST, defaults),
    { .path = "versions", .type = PK_FIELD_LIST, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 32,
      .at = PK_AT(MANIFEST, versions), .at_count = PK_AT(MANIFEST, version_count),
      .elem_size = sizeof(VERSION), .help = "The version lines that the package supports." },
    { .path = "versions[]", .type = PK_FIELD_MAP, .at_pos = PK_AT(VERSION, pos),
      .example = "{version: \"7\", image: \"localhost/picket/suricata:7\"}", .help = "A version line." },
    { .path = "versions[].version", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED, .min = 1,
      .max = 40, .pattern = "^[0-9A-Za-z][0-9A-Za-z.+~-]*$", .what = "a version such as \"7\"",
      .unique = "versions", .example = "\"7\"", .at = PK_AT(VERSION, version),
      .help = "The line, as it is written after `@`; templates see it as `version.7`." },
    { .path = "versions[].image", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED, .min = 1,
      .max = 200, .pattern = "^[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][A-Za-z0-9._-]*$",
      .what = "an image as NAME:TAG", .example = "localhost/picket/suricata:7",
      .at = PK_AT(VERSION, image), .help = "The image that the recipe makes." },
    { .path = "versions[].known", .type = PK_FIELD_LIST, .max = 64, .at = PK_AT(VERSION, known),
      .example = "[\"7.0.10\"]", .help = "Full versions that were tried; a fleet may name one of them instead of the line." },
    { .path = "versions[].known[]", .type = PK_FIELD_STRING, .min = 1, .max = 40,
      .pattern = "^[0-9A-Za-z][0-9A-Za-z.+~-]*$", .what = "a version such as \"7.0.10\"",
      .unique = "versions", .help = "A full version." },
    RUN_ROWS("versions[].", VERSION, run),
    { .path = "ports", .type = PK_FIELD_LIST, .max = 32, .at = PK_AT(MANIFEST, ports),
      .at_count = PK_AT(MANIFEST, port_count), .elem_size = sizeof(struct pk_port_row),
      .help = "Ports that the tool listens on, inside its lane." },
    { .path = "ports[]", .type = PK_FIELD_MAP, .help = "A port.",
      .example = "{name: metrics, port: 9917, protocol: tcp, help: Counters}" },
    { .path = "ports[].name", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED, .min = 1,
      .max = PK_NAME_MAX, .pattern = PK_NAME_PATTERN, .what = PK_NAME_WORDS, .unique = "ports",
      .example = "metrics", .at = PK_AT(struct pk_port_row, name), .help = "Name of the port." },
    { .path = "ports[].port", .type = PK_FIELD_INT, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 65535,
      .example = "9917", .at = PK_AT(struct pk_port_row, port), .help = "Its number." },
    { .path = "ports[].protocol", .type = PK_FIELD_CHOICE, .choices = "tcp|udp", .init = "tcp",
      .example = "tcp", .at = PK_AT(struct pk_port_row, protocol), .help = "TCP or UDP." },
    { .path = "ports[].help", .type = PK_FIELD_STRING, .max = 200, .init = "",
      .what = "at most 200 characters", .example = "Counters", .at = PK_AT(struct pk_port_row, help),
      .help = "What it is for." },
    { .path = "metrics", .type = PK_FIELD_LIST, .max = 256, .at = PK_AT(MANIFEST, metrics),
      .at_count = PK_AT(MANIFEST, metric_count), .elem_size = sizeof(struct pk_metric_row),
      .help = "Counters that the tool tells." },
    { .path = "metrics[]", .type = PK_FIELD_MAP, .help = "A metric.",
      .example = "{name: capture.kernel_packets, type: counter, help: Packets received}" },
    { .path = "metrics[].name", .type = PK_FIELD_STRING, .flags = PK_FIELD_REQUIRED, .min = 1, .max = 100,
      .pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$", .what = "a name of letters, digits, \"_\", \".\" and \"-\"",
      .unique = "metrics", .example = "capture.kernel_packets",
      .at = PK_AT(struct pk_metric_row, name), .help = "The tool's own name of it." },
    { .path = "metrics[].type", .type = PK_FIELD_CHOICE, .choices = "counter|gauge", .init = "counter",
      .example = "counter", .at = PK_AT(struct pk_metric_row, type), .help = "Whether it only grows." },
    { .path = "metrics[].help", .type = PK_FIELD_STRING, .max = 200, .init = "",
      .what = "at most 200 characters", .example = "Packets received",
      .at = PK_AT(struct pk_metric_row, help), .help = "What it counts." },
};
/* clang-format on */

const struct pk_table pk_manifest_table = {
    .fields = rows,
    .count = PK_ARRAY_SIZE(rows),
    .title = "Package",
    .schema_id = "https://picket.dev/schemas/package-v1alpha1.json",
};

void pk_package_free(struct pk_package *package)
{
    if (package == NULL)
        return;
    pk_table_done(&pk_manifest_table, &package->rows);
    for (size_t i = 0; i < package->version_count; i++)
        pk_free(package->versions[i].logs);
    pk_free(package->versions);
    json_decref(package->schema);
    json_decref(package->manifest);
    pk_free(package->dir);
    pk_free(package);
}

static char *text_or(char *first, char *second)
{
    static char empty[] = "";
    return first != NULL ? first : second != NULL ? second : empty;
}

/* What the version says, else what is said for all, else the default. Texts and lists are borrowed.
 */
static int resolve_version(const struct pk_version_row *row, const struct pk_run_rows *all,
                           struct pk_package_version *version)
{
    const struct pk_run_rows *own = &row->run;
    const struct pk_run_rows *logs = own->log_count > 0 ? own : all;
    bool own_probe = own->probe != PK_PROBE_NONE || own->probe_socket != NULL;
    const struct pk_run_rows *probe = own_probe ? own : all;
    const struct pk_run_rows *canary =
        own->canary != PK_CANARY_NONE || own->canary_value != NULL ? own : all;
    pk_nsec stop = own->stop_timeout != 0 ? own->stop_timeout : all->stop_timeout;
    *version = (struct pk_package_version){
        .version = row->version,
        .image = row->image,
        .argv = own->argv.count > 0 ? own->argv : all->argv,
        .capabilities = own->capabilities.count > 0 ? own->capabilities : all->capabilities,
        .config_dir = text_or(own->config_dir, all->config_dir),
        .log_dir = text_or(own->log_dir, all->log_dir),
        .run_dir = text_or(own->run_dir, all->run_dir),
        .probe = (enum pk_probe_kind)probe->probe,
        .probe_socket = text_or(probe->probe_socket, NULL),
        .canary = (enum pk_canary_event)canary->canary,
        .canary_value = text_or(canary->canary_value, NULL),
        .reload = text_or(own->reload, all->reload),
        .stop_timeout_ms = (unsigned)((stop != 0 ? stop : 10 * PK_NSEC_PER_SEC) / PK_NSEC_PER_MS),
        .pids_max = own->pids_max != 0   ? own->pids_max
                    : all->pids_max != 0 ? all->pids_max
                                         : 128,
        .nofile = own->nofile != 0   ? own->nofile
                  : all->nofile != 0 ? all->nofile
                                     : 1024,
        .tmpfs_bytes = own->tmpfs_bytes != 0   ? own->tmpfs_bytes
                       : all->tmpfs_bytes != 0 ? all->tmpfs_bytes
                                               : 16u << 20,
        .known = row->known,
    };
    if (logs->log_count == 0)
        return 0;
    version->logs = pk_zalloc_array(logs->log_count, sizeof(*version->logs));
    if (version->logs == NULL)
        return PK_E_NOMEM;
    version->log_count = logs->log_count;
    for (size_t i = 0; i < logs->log_count; i++)
        version->logs[i] =
            (struct pk_log_spec){ .glob = logs->logs[i].glob, .format = logs->logs[i].format };
    return 0;
}

static bool check_version(const struct pk_doc *doc, const struct pk_version_row *row,
                          const struct pk_package_version *version, struct pk_errors *errors)
{
    struct {
        const char *key;
        bool present;
    } needed[] = { { "argv", version->argv.count > 0 },
                   { "configDir", version->config_dir[0] != '\0' },
                   { "logDir", version->log_dir[0] != '\0' },
                   { "runDir", version->run_dir[0] != '\0' } };
    bool good = true;
    for (size_t i = 0; i < PK_ARRAY_SIZE(needed); i++) {
        if (needed[i].present)
            continue;
        char hint[120];
        (void)snprintf(hint, sizeof(hint), "add %s: to \"defaults\", or to this version",
                       needed[i].key);
        pk_fault(errors, doc, row->pos.line, row->pos.col, hint, "version %s has no %s",
                 version->version, needed[i].key);
        good = false;
    }
    if (version->probe == PK_PROBE_SURICATA && version->probe_socket[0] == '\0') {
        pk_fault(errors, doc, row->pos.line, row->pos.col,
                 "add socket: command.socket to \"probe\"", "version %s: the probe has no socket",
                 version->version);
        good = false;
    }
    return good;
}

static int out_of_memory(const char *file, struct pk_errors *errors)
{
    struct pk_error err;
    pk_fail(&err, PK_E_NOMEM, "%s: out of memory", file);
    pk_errors_add(errors, &err);
    return PK_E_NOMEM;
}

int pk_package_parse(const char *file, const char *text, size_t len,
                     struct pk_package **ret_package, struct pk_errors *errors)
{
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = NULL;
    struct pk_error err;
    int r = pk_doc_parse(file, text, len, &doc, &err);
    if (r < 0) {
        pk_errors_add(errors, &err);
        return r;
    }
    PK_CLEANUP(pk_package_free_p) struct pk_package *package = pk_zalloc(sizeof(*package));
    if (package == NULL)
        return out_of_memory(file, errors);
    r = pk_table_read(&pk_manifest_table, doc, &package->rows, errors);
    if (r < 0)
        return r;
    package->versions = pk_zalloc_array(package->rows.version_count, sizeof(*package->versions));
    package->manifest = pk_table_to_json(&pk_manifest_table, pk_doc_root(doc), false);
    if (package->versions == NULL || package->manifest == NULL)
        return out_of_memory(file, errors);
    package->version_count = package->rows.version_count;
    for (size_t i = 0; i < package->version_count; i++) {
        const struct pk_version_row *row = &package->rows.versions[i];
        if (resolve_version(row, &package->rows.defaults, &package->versions[i]) < 0)
            return out_of_memory(file, errors);
        if (!check_version(doc, row, &package->versions[i], errors))
            r = PK_E_INVALID;
    }
    if (r < 0)
        return r;
    *ret_package = PK_TAKE(package);
    return 0;
}

/* A package without values.schema.json takes no values. The defaults have to fit their own schema.
 */
static int load_schema(struct pk_package *package, const char *path, struct pk_error *err)
{
    if (!pk_file_exists(path)) {
        package->schema = json_pack("{s:s,s:b}", "type", "object", "additionalProperties", 0);
        return package->schema != NULL ? 0 : pk_no_memory(err);
    }
    int r = pk_json_load(path, &package->schema, err);
    if (r < 0)
        return r;
    r = pk_jsonschema_check(package->schema, err);
    if (r == 0) {
        PK_JSON values = json_object();
        r = values != NULL ? pk_jsonschema_fill_defaults(package->schema, values, err)
                           : pk_no_memory(err);
        if (r == 0 && pk_jsonschema_validate(package->schema, values, NULL, NULL, err) < 0) {
            r = pk_fail(err, PK_E_INVALID, "schema: the defaults do not fit the schema itself");
            (void)pk_hint(err, "a default has to obey its own type, range and pattern, and every "
                               "required key at the top needs one");
        }
    }
    if (r < 0)
        pk_error_at(err, path, 0, 0);
    return r;
}

int pk_package_load(const char *dir, struct pk_package **ret_package, struct pk_errors *errors)
{
    struct pk_error err;
    PK_CLEANUP(pk_free_p) char *text = NULL;
    PK_CLEANUP(pk_free_p) char *manifest = pk_path_join(dir, "manifest.yaml");
    PK_CLEANUP(pk_free_p) char *schema = pk_path_join(dir, "values.schema.json");
    PK_CLEANUP(pk_package_free_p) struct pk_package *package = NULL;
    size_t len;
    if (manifest == NULL || schema == NULL)
        return out_of_memory(dir, errors);
    int r = pk_file_read(manifest, PK_DOC_MAX_BYTES, &text, &len, &err);
    if (r < 0) {
        if (r == PK_E_NOTFOUND)
            (void)pk_hint(&err, "a package is a folder with a manifest.yaml; see docs/packages.md");
        pk_errors_add(errors, &err);
        return r;
    }
    r = pk_package_parse(manifest, text, len, &package, errors);
    if (r < 0)
        return r;
    const char *slash = strrchr(dir, '/');
    const char *folder = slash != NULL ? slash + 1 : dir;
    if (strcmp(folder, package->rows.name) != 0) {
        pk_fail(&err, PK_E_INVALID, "the package \"%s\" is in a folder called \"%.60s\"",
                package->rows.name, folder);
        (void)pk_hint(&err, "rename the folder to %s", package->rows.name);
        pk_error_at(&err, manifest, 1, 1);
        pk_errors_add(errors, &err);
        return PK_E_INVALID;
    }
    if ((package->dir = pk_strdup(dir)) == NULL)
        return out_of_memory(dir, errors);
    if ((r = load_schema(package, schema, &err)) < 0) {
        pk_errors_add(errors, &err);
        return r;
    }
    *ret_package = PK_TAKE(package);
    return 0;
}
