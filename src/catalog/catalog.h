/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages: a folder with manifest.yaml, values.schema.json, templates/, files/, image.yaml,
 * tests/. A catalog is a folder of packages; several are searched in order.
 */
#ifndef PICKET_CATALOG_CATALOG_H
#define PICKET_CATALOG_CATALOG_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "base/str.h"
#include "spec/spec.h"

/* Image labels. */
#define PK_IMAGE_LABEL_RECIPE  "io.picket.recipe"  /* hash of the recipe */
#define PK_IMAGE_LABEL_RELEASE "io.picket.release" /* the tool's full version: "7.0.10" */

struct pk_catalog;
struct pk_package;

/* A log that the tool writes: what the shipper follows. */
struct pk_log_spec {
    char *glob;   /* in the log folder: "eve-*.json" */
    char *format; /* "eve" | "zeek-json" */
};

enum pk_probe_kind {
    PK_PROBE_NONE,     /* running = ready */
    PK_PROBE_SURICATA, /* Suricata's command socket: uptime, iface-stat */
};

/* What of a canary (base/canary.h) is in the tool's log. */
enum pk_canary_event {
    PK_CANARY_NONE, /* nothing: it gets none */
    PK_CANARY_DNS   /* the name that was asked for */
};

/* One version line of a package ("7", "8"): what is the same for each unit of it. */
struct pk_package_version {
    char *version;        /* the line: "7" */
    struct pk_strv known; /* full versions that were tried: "7.0.10" */
    char *image;         /* local image name built from the recipe: "localhost/picket/suricata:7" */
    struct pk_strv argv; /* command in the container */
    struct pk_strv capabilities;          /* "NET_RAW" ... */
    char *config_dir, *log_dir, *run_dir; /* absolute paths inside the container */
    struct pk_log_spec *logs;
    size_t log_count;
    enum pk_probe_kind probe;
    char *probe_socket; /* relative to run_dir: "suricata-command.socket" */
    enum pk_canary_event canary;
    char *
        canary_value; /* of the values, which must be true for that: "eve.dns.enabled"; "" = none */
    char *reload;     /* "" or how values that need no restart are taken (later) */
    unsigned stop_timeout_ms;
    unsigned pids_max, nofile;
    uint64_t tmpfs_bytes;
};

/* Opens the folders (NULL-terminated list; NULL = PICKET_CATALOG, the source tree's or the
 * installed one). Broken packages are reported in errors and left out. */
int pk_catalog_open(const char *const *dirs, struct pk_catalog **ret_catalog,
                    struct pk_errors *errors);
void pk_catalog_free(struct pk_catalog *catalog);
PK_DEFINE_CLEANUP(struct pk_catalog, pk_catalog_free);
size_t pk_catalog_count(const struct pk_catalog *catalog);
const struct pk_package *pk_catalog_at(const struct pk_catalog *catalog, size_t index);

/* Is version the line itself, one of its known full versions, or another below it ("7.0.10" of
 * "7")?
 */
bool pk_version_in_line(const char *version, const struct pk_package_version *line);
/* version: "" = the manifest's default line, "7" or a full version of that line, which the image
 * has or has not: a plan tells. Of lines that fit the longest is taken. Borrowed results.
 * PK_E_NOTFOUND with a did-you-mean hint. */
int pk_catalog_find(const struct pk_catalog *catalog, const char *name, const char *version,
                    const struct pk_package **ret_package,
                    const struct pk_package_version **ret_version, struct pk_error *err);

const char *pk_package_name(const struct pk_package *package);
const char *pk_package_summary(const struct pk_package *package);
const char *pk_package_dir(const struct pk_package *package);
const struct pk_package_version *pk_package_versions(const struct pk_package *package,
                                                     size_t *ret_count);
/* The value schema (a JSON Schema subset) as JSON; borrowed. */
const json_t *pk_package_schema(const struct pk_package *package);
/* The manifest as JSON, for 'catalog show -o json'; borrowed. */
const json_t *pk_package_manifest(const struct pk_package *package);

/* Can it work in such a lane? PK_E_INVALID when not. */
int pk_package_check_role(const struct pk_package *package, bool is_inline, struct pk_error *err);
/* Checks a tool's values in the user's file; faults go to errors with the value's position.
 * *ret_values gets them with the schema's defaults filled in (new reference). */
int pk_package_check_values(const struct pk_package *package,
                            const struct pk_package_version *version, const struct pk_doc *doc,
                            const struct pk_node *values, json_t **ret_values,
                            struct pk_errors *errors);

/* Checks all tools of a fleet: package and version exist, values fit. */
int pk_catalog_check_fleet(const struct pk_catalog *catalog, const struct pk_fleet_spec *fleet,
                           struct pk_errors *errors);

struct pk_rendered_file {
    char *path; /* relative to the config folder, no ".." */
    char *data;
    size_t len;
};
struct pk_rendered {
    struct pk_rendered_file *files; /* sorted by path */
    size_t count;
};
/* Renders the templates and copies the files/ of a package. context is the JSON that the templates
 * see: {"values":{...},"fleet":..,"group":..,"tool":..,"lane":N,"lanes":N,"interface":"tap0",
 * "mtu":N,"cpus":[..],"version":{"7":true},"memoryBytes":N,"paths":{"config","log","run"}}.
 * Equal input gives equal bytes. */
int pk_package_render(const struct pk_package *package, const struct pk_package_version *version,
                      const json_t *context, struct pk_rendered *ret_rendered,
                      struct pk_error *err);
void pk_rendered_done(struct pk_rendered *rendered);

/* Mustache (the specification's core modules and ~inheritance left out). escape: HTML rules as in
 * the specification, or none (for configuration files). Bounded depth and output. */
int pk_mustache_render(
    const char *name, const char *template_text, size_t len, const json_t *context,
    int (*partial)(void *arg, const char *name, const char **ret_text, size_t *ret_len),
    void *partial_arg, bool escape_html, char **ret_text, size_t *ret_len, struct pk_error *err);

/* Validates value against a JSON Schema (the supported keywords are listed in jsonschema.c; others
 * in a schema are refused by pk_jsonschema_check). Faults are handed over with the JSON pointer of
 * the value at fault. */
int pk_jsonschema_check(const json_t *schema, struct pk_error *err);
int pk_jsonschema_validate(const json_t *schema, const json_t *value,
                           void (*on_fault)(void *arg, const char *pointer, const char *message,
                                            const char *hint),
                           void *arg, struct pk_error *err);
/* Fills in "default"s of absent members, recursively, in place. */
int pk_jsonschema_fill_defaults(const json_t *schema, json_t *value, struct pk_error *err);

/* Builds the image of a package's version line from its recipe, and loads it into Podman. on_line
 * gets progress. *ret_digest: "sha256:..." of the image; pk_free(). */
struct pk_image_build_options {
    const char *podman_socket; /* libpod REST socket */
    const char *work_dir;
    bool force; /* build even if an image of the same recipe hash is there */
    /* Where the recipe's base image comes from: HOST[:PORT], "none", NULL or "" = as this host's
     * Podman resolves short names. Plain HTTP is spoken on loopback only. */
    const char *registry;
    const char
        *containers_conf; /* text for Podman, where its own does not fit this host; or NULL */
    void (*on_line)(void *arg, const char *line);
    void *on_line_arg;
};
int pk_image_build(const struct pk_package *package, const struct pk_package_version *version,
                   const struct pk_image_build_options *options, char **ret_digest,
                   struct pk_error *err);

#endif
