/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the shipper: the files it follows. */
#ifndef PICKET_SHIP_INTERNAL_H
#define PICKET_SHIP_INTERNAL_H

#include <sys/types.h>

#include "base/canary.h"
#include "ship/record.h"
#include "ship/ship.h"

#define PK_HEAD_MAX 4096u /* of the first line, for the fingerprint */

struct pk_ship_file {
    dev_t dev;
    ino_t ino;
    pk_nsec btime;
    int fd;
    char key[64];   /* names in hold/: <key>.log, <key>.json */
    char id[40];    /* the source's; "" until the first line is there */
    uint64_t epoch; /* how often the file was truncated */
    char *path, *fleet, *group, *tool;
    uint64_t lane;
    enum pk_log_format format;
    char type[64];                 /* of records that name none: Zeek's file name */
    struct pk_canary_token canary; /* of its lane */
    bool has_canary;
    uint64_t canary_number; /* the newest that was read */
    char head[64];          /* how the file begins, to see that it was written anew */
    size_t head_len;

    uint64_t offset; /* all before it is received */
    uint64_t sealed;
    uint64_t size;       /* as last seen */
    uint64_t lost_until; /* after a truncation: what was not received before this is lost */
    bool loss_sent;      /* tried to tell so; whether it arrived, the store says */
    bool truncated, held, seen, active, newer, closed, done, gone, sent_end, hold_warned;
    bool trouble_told;
    pk_nsec changed_at, done_at, seen_at; /* monotonic */
};

struct pk_ship {
    char *dir, *hold;
    struct pk_ship_sink sink;
    pk_nsec keep;
    struct pk_records *records;
    int host;    /* the column of a DNS question's name */
    char *chunk; /* PK_LINE_MAX */
    struct pk_buf batch;
    struct pk_ship_file **files;
    size_t file_count;
    json_t *source_list; /* sources.json, or NULL */
    pk_nsec sources_mtime;
    ino_t sources_ino;
    char session[40];
    json_t *canaries;    /* seen, not told yet */
    pk_nsec canaries_at; /* monotonic: told last, or tried to */
    json_t *known;       /* sources as of the last sync */
    bool synced;
    pk_nsec scanned_at, asked_at, retry_at; /* monotonic */
    unsigned backoff_ms;
    int last_trouble;
    struct pk_ship_numbers numbers;
};

/* ---- files.c ---- */
void pk_ship_file_free(struct pk_ship_file *file);
/* What hold/ tells of earlier runs. */
int pk_ship_load_hold(struct pk_ship *ship, struct pk_error *err);
/* Reads sources.json when it changed and looks into its folders for files. */
int pk_ship_scan(struct pk_ship *ship, struct pk_error *err);
/* Size, truncation, identity; the id once there is a first line. */
int pk_ship_refresh(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err);
/* After a truncation was told: the file begins again as another source. */
int pk_ship_next_epoch(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err);
/* Closed, done, unpinned, deleted, forgotten: whatever is due. */
void pk_ship_settle(struct pk_ship *ship, struct pk_ship_file *file);
/* Takes the entry's traces out of hold/. */
void pk_ship_forget_hold(struct pk_ship *ship, const struct pk_ship_file *file);

#endif
