/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"
#include "ship/internal.h"

#define QUIET_AFTER \
    (10 * PK_NSEC_PER_SEC) /* where the kernel cannot tell whether writers are left */
#define MOVED_AWAY_AFTER (3600 * PK_NSEC_PER_SEC)
#define FILES_MAX        65536u

void pk_ship_file_free(struct pk_ship_file *file)
{
    if (file == NULL)
        return;
    pk_close_p(&file->fd);
    pk_free(file->path);
    pk_free(file->fleet);
    pk_free(file->group);
    pk_free(file->tool);
    pk_free(file);
}
PK_DEFINE_CLEANUP(struct pk_ship_file, pk_ship_file_free);

/* ---- identity ---- */

static int identify(int fd, struct pk_ship_file *file, struct pk_error *err)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st) < 0)
        return pk_fail_errno(err, errno, "cannot look at a log");
    if (!S_ISREG(st.stx_mode))
        return pk_fail(err, PK_E_UNSUPPORTED, "not a regular file");
    struct stat plain;
    if (fstat(fd, &plain) < 0)
        return pk_fail_errno(err, errno, "cannot look at a log");
    file->dev = plain.st_dev;
    file->ino = plain.st_ino;
    file->size = (uint64_t)plain.st_size;
    file->btime = (st.stx_mask & STATX_BTIME) != 0
                      ? st.stx_btime.tv_sec * PK_NSEC_PER_SEC + st.stx_btime.tv_nsec
                      : 0;
    (void)snprintf(file->key, sizeof(file->key), "%llx-%llx", (unsigned long long)file->ino,
                   (unsigned long long)file->btime);
    return 0;
}

static char *hold_path(const struct pk_ship *ship, const struct pk_ship_file *file,
                       const char *suffix)
{
    return pk_asprintf("%s/%s%s", ship->hold, file->key, suffix);
}

static int write_meta(const struct pk_ship *ship, const struct pk_ship_file *file,
                      struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = hold_path(ship, file, ".json");
    char token[PK_CANARY_TOKEN_TEXT] = "";
    if (file->has_canary)
        pk_canary_token_print(&file->canary, token);
    PK_JSON meta = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:I, s:b, s:s}", "path", file->path, "fleet",
        file->fleet, "group", file->group, "tool", file->tool, "lane", (json_int_t)file->lane,
        "format", file->format == PK_LOG_EVE ? "eve" : "zeek-json", "type", file->type, "id",
        file->id, "epoch", (json_int_t)file->epoch, "done", file->done, "canary", token);
    PK_CLEANUP(pk_free_p) char *text = meta != NULL ? pk_json_compact(meta) : NULL;

    if (path == NULL || text == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    return pk_file_write(path, text, strlen(text), 0640, err);
}

/* A second name for the inode, which neither the tool nor our own death takes away. */
static void pin(struct pk_ship *ship, struct pk_ship_file *file)
{
    char self[40];
    PK_CLEANUP(pk_free_p) char *path = hold_path(ship, file, ".log");

    if (file->held || path == NULL)
        return;
    (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
    if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 || errno == EEXIST) {
        file->held = true;
    } else if (!file->hold_warned) {
        file->hold_warned = true; /* the open descriptor still keeps it while we live */
        pk_log(PK_LOG_INFO, "ship", "cannot pin %s: %s; keep the logs and %s on one file system",
               file->path, strerrordesc_np(errno), ship->hold);
    }
}

static void unpin(struct pk_ship *ship, struct pk_ship_file *file)
{
    PK_CLEANUP(pk_free_p) char *path = hold_path(ship, file, ".log");

    if (path != NULL && (unlink(path) == 0 || errno == ENOENT))
        file->held = false;
}

void pk_ship_forget_hold(struct pk_ship *ship, const struct pk_ship_file *file)
{
    PK_CLEANUP(pk_free_p) char *log = hold_path(ship, file, ".log");
    PK_CLEANUP(pk_free_p) char *meta = hold_path(ship, file, ".json");

    if (log != NULL)
        (void)unlink(log);
    if (meta != NULL)
        (void)unlink(meta);
}

static int add_file_take(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err)
{
    if (ship->file_count >= FILES_MAX) {
        (void)pk_fail(err, PK_E_NOSPACE, "more than %u log files", FILES_MAX);
        return pk_hint(err, "let the tools rotate less often");
    }
    struct pk_ship_file **grown =
        pk_realloc_array(ship->files, ship->file_count + 1, sizeof(struct pk_ship_file *));
    if (grown == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    ship->files = grown;
    grown[ship->file_count++] = file;
    file->changed_at = file->seen_at = pk_time_monotonic();
    return 0;
}

/* "conn.log" is of type conn, and so is what Zeek makes of it when it rotates:
 * "conn-26-01-31_12.00.00.log". */
static void set_type(struct pk_ship_file *file)
{
    const char *slash = strrchr(file->path, '/');
    const char *name = slash != NULL ? slash + 1 : file->path;
    size_t len = 0;

    while (name[len] != '\0' && name[len] != '.' &&
           !(name[len] == '-' && name[len + 1] >= '0' && name[len + 1] <= '9'))
        len++;
    (void)snprintf(file->type, sizeof(file->type), "%.*s", (int)PK_MIN(len, sizeof(file->type) - 1),
                   name);
}

/* ---- hold/ of earlier runs ---- */

static int load_one(struct pk_ship *ship, const char *key, struct pk_error *err)
{
    PK_CLEANUP(pk_ship_file_free_p) struct pk_ship_file *file = pk_zalloc(sizeof(*file));
    PK_CLEANUP(pk_free_p) char *meta_path = pk_asprintf("%s/%s.json", ship->hold, key);
    PK_CLEANUP(pk_free_p) char *log_path = pk_asprintf("%s/%s.log", ship->hold, key);
    PK_JSON meta = NULL;
    struct pk_error trouble;

    if (file == NULL || meta_path == NULL || log_path == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    file->fd = -1;
    if (pk_json_load(meta_path, &meta, &trouble) < 0) {
        pk_log_error(PK_LOG_INFO, "ship", &trouble, "cannot read a pin's description");
        return 0; /* kept as it is: somebody may want to look */
    }
    const char *path = pk_json_string_or(meta, "path", "");
    file->fd = open(log_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    file->held = file->fd >= 0;
    if (file->fd < 0)
        file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file->fd < 0 || identify(file->fd, file, &trouble) < 0 || strcmp(file->key, key) != 0) {
        (void)unlink(meta_path); /* its log is gone: sealed, and deleted by somebody */
        return 0;
    }
    file->path = pk_strdup(path);
    file->fleet = pk_strdup(pk_json_string_or(meta, "fleet", ""));
    file->group = pk_strdup(pk_json_string_or(meta, "group", ""));
    file->tool = pk_strdup(pk_json_string_or(meta, "tool", ""));
    file->lane = (uint64_t)pk_json_int_or(meta, "lane", 0);
    file->epoch = (uint64_t)pk_json_int_or(meta, "epoch", 0);
    file->has_canary = pk_canary_token_parse(pk_json_string_or(meta, "canary", ""), &file->canary);
    file->format = strcmp(pk_json_string_or(meta, "format", "eve"), "eve") == 0 ? PK_LOG_EVE
                                                                                : PK_LOG_ZEEK_JSON;
    (void)snprintf(file->type, sizeof(file->type), "%s", pk_json_string_or(meta, "type", ""));
    (void)snprintf(file->id, sizeof(file->id), "%s", pk_json_string_or(meta, "id", ""));
    if (file->path == NULL || file->fleet == NULL || file->group == NULL || file->tool == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = add_file_take(ship, file, err);
    if (r == 0)
        (void)PK_TAKE(file);
    return r;
}

int pk_ship_load_hold(struct pk_ship *ship, struct pk_error *err)
{
    DIR *dir = opendir(ship->hold);
    int r = 0;

    if (dir == NULL)
        return pk_fail_errno(err, errno, "cannot list %s", ship->hold);
    for (struct dirent *entry; r == 0 && (entry = readdir(dir)) != NULL;) {
        size_t len = strlen(entry->d_name);
        if (strstr(entry->d_name, ".json.") != NULL) /* a description that a kill cut off */
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
        if (len < 6 || len > 60 || !pk_str_ends(entry->d_name, ".json"))
            continue;
        char key[64];
        (void)snprintf(key, sizeof(key), "%.*s", (int)(len - 5), entry->d_name);
        r = load_one(ship, key, err);
    }
    (void)closedir(dir);
    return r;
}

/* ---- looking for files ---- */

static int read_sources(struct pk_ship *ship, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/sources.json", ship->dir);
    struct stat st;
    json_t *document = NULL;

    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    if (stat(path, &st) < 0)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot look at %s", path);
    pk_nsec mtime = st.st_mtim.tv_sec * PK_NSEC_PER_SEC + st.st_mtim.tv_nsec;
    if (mtime == ship->sources_mtime && st.st_ino == ship->sources_ino)
        return 0;
    int r = pk_json_load(path, &document, err);
    if (r < 0)
        return r; /* the last good list stays */
    json_decref(ship->source_list);
    ship->source_list = document;
    ship->sources_mtime = mtime;
    ship->sources_ino = st.st_ino;
    return 0;
}

static struct pk_ship_file *find_file(const struct pk_ship *ship, dev_t dev, ino_t ino)
{
    for (size_t i = 0; i < ship->file_count; i++)
        if (ship->files[i]->ino == ino && ship->files[i]->dev == dev && !ship->files[i]->gone)
            return ship->files[i];
    return NULL;
}

/* A file seen for the first time: open, describe, pin; in this order, so that a pin is never
 * without its description. */
static int discover(struct pk_ship *ship, const json_t *source, const char *dir, int dir_fd,
                    const char *name, enum pk_log_format format, struct pk_ship_file **ret_file,
                    struct pk_error *err)
{
    PK_CLEANUP(pk_ship_file_free_p) struct pk_ship_file *file = pk_zalloc(sizeof(*file));

    if (file == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    file->fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file->fd < 0)
        return errno == ENOENT ? PK_E_NOTFOUND
                               : pk_fail_errno(err, errno, "cannot read %s/%s", dir, name);
    int r = identify(file->fd, file, err);
    if (r < 0)
        return r;
    const json_t *lane = json_object_get(source, "lane");
    file->path = pk_asprintf("%s/%s", dir, name);
    file->fleet = pk_strdup(pk_json_string_or(source, "fleet", ""));
    file->group = pk_strdup(pk_json_string_or(source, "group", ""));
    file->tool = pk_strdup(pk_json_string_or(source, "tool", ""));
    file->lane = json_is_integer(lane) && json_integer_value(lane) > 0
                     ? (uint64_t)json_integer_value(lane)
                     : 0;
    file->format = format;
    file->has_canary =
        pk_canary_token_parse(pk_json_string_or(source, "canary", ""), &file->canary);
    if (file->path == NULL || file->fleet == NULL || file->group == NULL || file->tool == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    set_type(file);
    r = write_meta(ship, file, err);
    if (r == 0) {
        pin(ship, file);
        r = add_file_take(ship, file, err);
    }
    if (r == 0)
        *ret_file = PK_TAKE(file);
    return r;
}

static int scan_dir(struct pk_ship *ship, const json_t *source, const char *dir, const char *glob,
                    enum pk_log_format format, struct pk_error *err)
{
    struct pk_ship_file *newest = NULL;
    bool active = pk_json_bool_or(source, "active", true);
    DIR *folder = opendir(dir);
    int r = 0;

    if (folder == NULL)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot list %s", dir);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        struct stat st;
        struct pk_ship_file *file;
        if (fnmatch(glob, entry->d_name, FNM_PERIOD) != 0 ||
            fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode))
            continue;
        file = find_file(ship, st.st_dev, st.st_ino);
        if (file == NULL) {
            int one = discover(ship, source, dir, dirfd(folder), entry->d_name, format, &file, err);
            if (one < 0) {
                r = one == PK_E_NOTFOUND ? r : one; /* the others are not to suffer */
                continue;
            }
        }
        if (!file->has_canary) /* listed by an earlier version */
            file->has_canary =
                pk_canary_token_parse(pk_json_string_or(source, "canary", ""), &file->canary);
        const char *slash = strrchr(file->path, '/');
        if (slash == NULL || strcmp(slash + 1, entry->d_name) != 0) { /* renamed */
            char *path = pk_asprintf("%s/%s", dir, entry->d_name);
            if (path != NULL) {
                pk_free(file->path);
                file->path = path;
            }
        }
        if (!file->done)
            pin(ship, file); /* where a crash came between a description and its pin */
        file->seen = true;
        file->active = active;
        file->newer = true; /* all but the newest, below */
        if (newest == NULL || file->btime > newest->btime ||
            (file->btime == newest->btime && strcmp(file->path, newest->path) > 0))
            newest = file;
    }
    if (newest != NULL)
        newest->newer = false;
    (void)closedir(folder);
    return r;
}

int pk_ship_scan(struct pk_ship *ship, struct pk_error *err)
{
    size_t i, j;
    json_t *source, *log;
    int r = read_sources(ship, err);

    for (size_t n = 0; n < ship->file_count; n++)
        ship->files[n]->seen = ship->files[n]->newer = ship->files[n]->active = false;
    json_array_foreach(json_object_get(ship->source_list, "sources"), i, source)
    {
        const char *dir = pk_json_string_or(source, "dir", "");
        json_array_foreach(json_object_get(source, "logs"), j, log)
        {
            const char *glob = pk_json_string_or(log, "glob", "");
            const char *format = pk_json_string_or(log, "format", "eve");
            if (dir[0] != '/' || glob[0] == '\0' || strchr(glob, '/') != NULL)
                continue;
            int one = scan_dir(ship, source, dir, glob,
                               strcmp(format, "eve") == 0 ? PK_LOG_EVE : PK_LOG_ZEEK_JSON, err);
            r = one < 0 ? one : r;
        }
    }
    for (size_t n = 0; n < ship->file_count; n++) { /* of fleets that are not listed any more */
        struct pk_ship_file *file = ship->files[n];
        struct stat st;
        if (!file->seen && lstat(file->path, &st) == 0 && st.st_dev == file->dev &&
            st.st_ino == file->ino)
            file->seen = true;
    }
    return r;
}

/* ---- one file ---- */

/* The id comes from what does not change while the file grows, moves, or the machine restarts. */
static int fingerprint(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err)
{
    char head[PK_HEAD_MAX];
    ssize_t n = pread(file->fd, head, sizeof(head), 0);

    if (n < 0)
        return pk_fail_errno(err, errno, "cannot read %s", file->path);
    const char *end = memchr(head, '\n', (size_t)n);
    size_t len = end != NULL ? (size_t)(end - head) + 1 : (size_t)n;
    if (n == 0 || (end == NULL && (size_t)n < sizeof(head) && !file->closed))
        return 0; /* not yet */
    crypto_generichash_state state;
    unsigned char hash[16];
    const uint64_t numbers[] = { (uint64_t)file->ino, (uint64_t)file->btime, file->epoch };
    crypto_generichash_init(&state, NULL, 0, sizeof(hash));
    crypto_generichash_update(&state, (const unsigned char *)numbers, sizeof(numbers));
    crypto_generichash_update(&state, (const unsigned char *)head, len);
    crypto_generichash_final(&state, hash, sizeof(hash));
    char id[sizeof(file->id)];
    pk_hex(hash, sizeof(hash), id);
    file->head_len = PK_MIN(len, sizeof(file->head));
    memcpy(file->head, head, file->head_len);
    if (strcmp(id, file->id) == 0)
        return 0;
    if (file->id[0] != '\0') { /* of an earlier run: the file was written anew meanwhile */
        file->truncated = true;
        return 0;
    }
    (void)snprintf(file->id, sizeof(file->id), "%s", id);
    int r = write_meta(ship, file, err);
    if (r < 0) {
        file->id[0] = '\0';
        return r;
    }
    const json_t *known = json_object_get(ship->known, file->id);
    file->offset = (uint64_t)pk_json_int_or(known, "received", 0);
    file->sealed = (uint64_t)pk_json_int_or(known, "sealed", 0);
    return 0;
}

int pk_ship_refresh(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err)
{
    struct stat st;
    char head[sizeof(file->head)];

    if (fstat(file->fd, &st) < 0)
        return pk_fail_errno(err, errno, "cannot look at %s", file->path);
    uint64_t size = (uint64_t)st.st_size;
    bool grew = size != file->size;
    if (grew) {
        file->changed_at = pk_time_monotonic();
        file->closed = false;
    }
    if (file->truncated)
        return 0;
    if (file->id[0] == '\0' || file->head_len == 0) {
        file->size = size;
        int r = fingerprint(ship, file, err);
        if (r < 0 || file->id[0] == '\0')
            return r;
    }
    bool rewritten = size < file->offset || size < file->size;
    if (!rewritten && grew) {
        ssize_t n = pread(file->fd, head, file->head_len, 0);
        rewritten =
            n >= 0 && ((size_t)n < file->head_len || memcmp(head, file->head, (size_t)n) != 0);
    }
    if (rewritten && !file->truncated) {
        /* What was there beyond what is received cannot be read any more. */
        file->lost_until = PK_MAX(file->size, file->offset);
        file->truncated = true;
    }
    file->size = size;
    if (file->done && size > file->offset && !file->truncated) { /* it goes on after all */
        file->done = false;
        pin(ship, file);
    }
    return 0;
}

int pk_ship_next_epoch(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err)
{
    file->epoch++;
    file->id[0] = '\0';
    file->head_len = 0;
    file->offset = file->sealed = file->lost_until = 0;
    file->truncated = file->loss_sent = file->closed = file->done = false;
    pin(ship, file);
    return write_meta(ship, file, err);
}

/* Is nobody writing to it any more? The kernel grants a read lease only then. */
static bool has_no_writer(const struct pk_ship_file *file)
{
    if (fcntl(file->fd, F_SETLEASE, F_RDLCK) == 0) {
        (void)fcntl(file->fd, F_SETLEASE, F_UNLCK);
        return true;
    }
    return errno != EAGAIN && pk_time_monotonic() - file->changed_at > QUIET_AFTER;
}

void pk_ship_settle(struct pk_ship *ship, struct pk_ship_file *file)
{
    pk_nsec now = pk_time_monotonic();
    struct stat st;

    if (file->truncated)
        return;
    /* A tool that was restarted may go on in its newest file. */
    if (!file->closed && (file->newer || !file->active || !file->seen) && has_no_writer(file)) {
        if (fstat(file->fd, &st) == 0 && (uint64_t)st.st_size == file->size)
            file->closed = true;
    }
    bool complete = file->closed && file->offset >= file->size && file->sealed >= file->size;
    if (complete && !file->done) {
        file->done = true;
        file->done_at = now;
        unpin(ship,
              file); /* its description stays: it tells the epoch as long as the log is there */
    }
    if (!file->done)
        return;
    if (file->seen && now - file->done_at >= ship->keep && lstat(file->path, &st) == 0 &&
        st.st_dev == file->dev && st.st_ino == file->ino && has_no_writer(file)) {
        if (unlink(file->path) == 0)
            file->seen = false;
    }
    /* A rename may hide it from one look into the folder, so only the inode's own word counts: no
     * name is left. What was moved out of our sight is given up after a while. */
    if (file->seen)
        file->seen_at = now;
    file->gone =
        !file->seen && !file->held &&
        ((fstat(file->fd, &st) == 0 && st.st_nlink == 0) || now - file->seen_at > MOVED_AWAY_AFTER);
}
