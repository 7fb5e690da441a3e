/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this module. */
#ifndef PICKET_CATALOG_INTERNAL_H
#define PICKET_CATALOG_INTERNAL_H

#include "catalog/catalog.h"
#include "spec/fields.h"

/* ---- JSON Schema ---- */

#define PK_JSONSCHEMA_DEPTH 64u

struct pk_jsonschema_sink {
    /* at_key: the member's key is at fault, not its value. */
    void (*fault)(void *arg, const char *pointer, bool at_key, const char *message,
                  const char *hint);
    void *arg;
};
int pk_jsonschema_run(const json_t *schema, const json_t *value,
                      const struct pk_jsonschema_sink *sink, struct pk_error *err);
/* The part of the schema that a $ref such as "#/$defs/port" names; NULL if there is none. */
const json_t *pk_jsonschema_resolve(const json_t *root, const char *reference);

/* What a keyword's own value has to be. */
enum pk_keyword_takes {
    PK_TAKES_UNKNOWN, /* not supported */
    PK_TAKES_ANY,
    PK_TAKES_SCHEMA,
    PK_TAKES_SCHEMAS, /* a list of them, not empty */
    PK_TAKES_SCHEMA_MAP,
    PK_TAKES_COUNT,
    PK_TAKES_NUMBER,
    PK_TAKES_BOOL,
    PK_TAKES_STRING,
    PK_TAKES_PATTERN,
    PK_TAKES_NAMES,
    PK_TAKES_LIST,
    PK_TAKES_TYPES,
    PK_TAKES_NAME_MAP,
    PK_TAKES_REFERENCE,
};
enum pk_keyword_takes pk_jsonschema_takes(const char *keyword);

/* ---- packages ---- */

/* What a manifest says of one version, or of all. Numbers: 0 = not said. */
struct pk_run_rows {
    struct pk_strv argv, capabilities;
    char *config_dir, *log_dir, *run_dir;
    struct pk_log_row {
        char *glob, *format;
    } * logs;
    size_t log_count;
    unsigned probe; /* enum pk_probe_kind */
    char *probe_socket, *reload;
    unsigned canary; /* enum pk_canary_event */
    char *canary_value;
    pk_nsec stop_timeout;
    unsigned pids_max, nofile;
    uint64_t tmpfs_bytes;
};
struct pk_version_row {
    char *version, *image;
    struct pk_strv known;
    struct pk_run_rows run;
    struct pk_pos pos;
};
struct pk_port_row {
    char *name, *help;
    unsigned port, protocol;
};
struct pk_metric_row {
    char *name, *help;
    unsigned type;
};
struct pk_manifest_rows {
    char *name, *summary, *description, *homepage, *license, *default_version;
    struct pk_strv roles;
    struct pk_run_rows defaults;
    struct pk_version_row *versions;
    size_t version_count;
    struct pk_port_row *ports;
    size_t port_count;
    struct pk_metric_row *metrics;
    size_t metric_count;
};
extern const struct pk_table pk_manifest_table; /* reads into a struct pk_manifest_rows */

struct pk_package {
    char *dir;
    struct pk_manifest_rows rows;
    struct pk_package_version *versions; /* borrow from rows */
    size_t version_count;
    json_t *schema, *manifest;
};

/* Reads a manifest from text. All faults are added to errors. dir may be NULL (tests, fuzzing). */
int pk_package_parse(const char *file, const char *text, size_t len,
                     struct pk_package **ret_package, struct pk_errors *errors);
int pk_package_load(const char *dir, struct pk_package **ret_package, struct pk_errors *errors);
void pk_package_free(struct pk_package *package);
PK_DEFINE_CLEANUP(struct pk_package, pk_package_free);

#endif
