/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an instance of picket keeps its things. Everything lives below two folders, so instances
 * run side by side; what the kernel names globally (namespaces, links, containers) carries the
 * instance's tag.
 *
 *   <run>/serve.sock  node.sock  podman.sock   sockets (serve, node, Podman's API when we run it)
 *   <run>/bpf/                                 a bpffs of our own: maps, programs, links
 *   <run>/up/                                  pid files and logs of 'picket up'
 *   <state>/fleet.db                           fleets, revisions, plans (SQLite)
 *   <state>/events/                            manifest.db (SQLite), Parquet below <dataset>/<day>/
 *   <state>/units/<container>/                 config/<hash>/ (read-only in the tool), log/, run/
 *   <state>/ship/                              sources.json (from serve), hold/ (hard links)
 *   <state>/node/                              plane.json: the desired taps, groups and lanes
 *   <state>/images/                            image recipes' work area and built images' records
 */
#ifndef PICKET_BASE_PATHS_H
#define PICKET_BASE_PATHS_H

#include "base/common.h"
#include "base/error.h"

#define PK_DEFAULT_STATE_DIR "/var/lib/picket"
#define PK_DEFAULT_RUN_DIR   "/run/picket"

struct pk_paths {
    char state_dir[160]; /* absolute, no trailing slash */
    char run_dir[64];    /* short: a socket's path has at most 107 bytes */
    char tag[8];         /* "pk" + 4 hex digits of the run folder's SHA-256: "pk3f2a" */
};
/* NULL = PICKET_STATE_DIR / PICKET_RUN_DIR, else the defaults. Makes nothing. */
int pk_paths_init(const char *state_dir, const char *run_dir, struct pk_paths *ret_paths,
                  struct pk_error *err);

#endif
