/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's records of shunts, in files that 'picket ship' follows. A batch is written first and
 * its entries are deleted from the kernel then: an agent that died between finds them again, and in
 * the file's tail that they are told already. Nothing is synced: a crash of the machine takes the
 * kernel's entries too.
 *
 * The folders belong to who runs the shipper, who need not be root, as the agent is: they may be
 * something else at any time. So no link is followed below the state's folder, and what is given
 * away is what is open.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"
#include "node/shunt.h"

#define FILE_BYTES (16u << 20) /* then the next one */
#define PAGE       4096u       /* the kernel's, or a part of it */

char *pk_shunt_log_dir(const struct pk_paths *paths, const char *fleet, const char *group)
{
    /* A unit's name has no '.', so that no container has this one. */
    return pk_asprintf("%s/units/%s-%s-%s.shunts/log", paths->state_dir, paths->tag, fleet, group);
}

void pk_shunt_log_done(struct pk_shunt_log *log)
{
    pk_free(log->dir);
    pk_free(log->known);
    *log = (struct pk_shunt_log){ 0 };
}

static int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define FOLDERS 3 /* below the state's: pk_shunt_log_dir() */

/* One folder on the way; make: where it is missing. Negative: errno says why. */
static int step_into(const struct pk_shunt_log *log, int at, const char *name, bool make)
{
    struct stat st;
    if (make && mkdirat(at, name, 0750) < 0 && errno != EEXIST)
        return -1;
    PK_CLEANUP(pk_close_p)
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    if (make && log->uid != (uid_t)-1 && log->uid != st.st_uid && st.st_uid == geteuid() &&
        fchown(fd, log->uid, log->gid) < 0)
        return -1;
    return take_fd(&fd);
}

static int open_dir(const struct pk_shunt_log *log, bool make)
{
    PK_CLEANUP(pk_free_p) char *path = pk_strdup(log->dir);
    const char *names[FOLDERS];
    for (size_t i = FOLDERS; i-- > 0;) {
        char *slash = path != NULL ? strrchr(path, '/') : NULL;
        if (slash == NULL) {
            errno = path == NULL ? ENOMEM : EINVAL;
            return -1;
        }
        *slash = '\0';
        names[i] = slash + 1;
    }
    if (make)
        (void)pk_mkdir_p(path, 0750, NULL);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < FOLDERS && fd >= 0; i++) {
        int next = step_into(log, fd, names[i], make);
        int sys = errno;
        (void)close(fd);
        errno = sys;
        fd = next;
    }
    return fd;
}

/* flags with O_CREAT: in a folder that is made too. */
static int open_file(const struct pk_shunt_log *log, unsigned number, int flags)
{
    char name[32];
    PK_CLEANUP(pk_close_p) int dir = open_dir(log, (flags & O_CREAT) != 0);
    if (dir < 0)
        return -1;
    (void)snprintf(name, sizeof name, "shunt-%u.json", number);
    return openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
}

/* The newest file's number, 0 when there is none. */
static unsigned newest(const char *dir)
{
    unsigned number = 0;
    DIR *folder = opendir(dir);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        static const char before[] = "shunt-", after[] = ".json";
        size_t len = strlen(entry->d_name), around = sizeof before - 1 + sizeof after - 1;
        char digits[12] = "";
        uint64_t each = 0;
        if (!pk_str_starts(entry->d_name, before) || !pk_str_ends(entry->d_name, after) ||
            len <= around || len - around > 9)
            continue;
        memcpy(digits, entry->d_name + sizeof before - 1, len - around);
        if (pk_parse_u64(digits, &each, NULL) == 0)
            number = PK_MAX(number, (unsigned)each);
    }
    if (folder != NULL)
        (void)closedir(folder);
    return number;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int read_known(struct pk_shunt_log *log, const char *text, size_t len, struct pk_error *err)
{
    size_t room = 0;
    for (const char *line = text, *end = text + len; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        uint64_t id = 0;
        if (stop == NULL)
            break; /* cut off: it was not told */
        if (pk_shunt_record_find_id(line, (size_t)(stop - line), &id)) {
            if (log->known_count == room) {
                room = room > 0 ? room * 2 : 256;
                uint64_t *grown = pk_realloc_array(log->known, room, sizeof *grown);
                if (grown == NULL)
                    return pk_no_memory(err);
                log->known = grown;
            }
            log->known[log->known_count++] = id;
        }
        line = stop + 1;
    }
    if (log->known_count > 0)
        qsort(log->known, log->known_count, sizeof *log->known, by_id);
    return 0;
}

static int read_tail(struct pk_shunt_log *log, struct pk_error *err)
{
    struct stat st;
    PK_CLEANUP(pk_close_p) int fd = open_file(log, log->number, O_RDWR | O_APPEND);
    if (fd < 0 || fstat(fd, &st) < 0)
        return pk_fail_errno(err, errno, "cannot read %s/shunt-%u.json", log->dir, log->number);
    log->size = (uint64_t)st.st_size;
    size_t len = (size_t)PK_MIN(log->size, PK_SHUNT_LOG_TAIL);
    PK_CLEANUP(pk_free_p) char *tail = pk_zalloc(len + 1);
    if (tail == NULL)
        return pk_no_memory(err);
    ssize_t n = pread(fd, tail, len, (off_t)(log->size - len));
    if (n < 0)
        return pk_fail_errno(err, errno, "cannot read %s/shunt-%u.json", log->dir, log->number);
    /* A line that was cut off, by what is no kill, stays one that says nothing. */
    ssize_t last = n;
    while (last > 0 && tail[last - 1] == ' ')
        last--;
    if (last > 0 && tail[last - 1] != '\n' && write(fd, "\n", 1) == 1)
        log->size++;
    return read_known(log, tail, (size_t)n, err);
}

int pk_shunt_log_open(struct pk_shunt_log *log, const char *dir, uid_t uid, gid_t gid,
                      struct pk_error *err)
{
    *log = (struct pk_shunt_log){ .uid = uid, .gid = gid };
    log->dir = pk_strdup(dir);
    if (log->dir == NULL)
        return pk_no_memory(err);
    log->number = newest(dir);
    int r = log->number > 0 ? read_tail(log, err) : 0;
    if (r < 0)
        pk_shunt_log_done(log);
    return r;
}

bool pk_shunt_log_knows(const struct pk_shunt_log *log, uint64_t id)
{
    return log->known_count > 0 &&
           bsearch(&id, log->known, log->known_count, sizeof *log->known, by_id) != NULL;
}

void pk_shunt_log_forget_known(struct pk_shunt_log *log)
{
    pk_free(log->known);
    log->known = NULL;
    log->known_count = 0;
}

/* A kill may cut a write() at the end of each page: no line goes over one. Spaces fill the page
 * before a line that would. */
static size_t whole_lines(const char *from, const char *end, size_t room)
{
    size_t size = 0;
    while (from + size < end) {
        const char *stop = memchr(from + size, '\n', (size_t)(end - from) - size);
        size_t next = stop != NULL ? (size_t)(stop + 1 - from) : (size_t)(end - from);
        if (next > room)
            break;
        size = next;
    }
    return size;
}

/* Within one page. */
static int put(int fd, const char *data, size_t len)
{
    ssize_t n;
    do
        n = write(fd, data, len);
    while (n < 0 && errno == EINTR);
    if (n >= 0 && (size_t)n < len)
        errno = ENOSPC;
    return n >= 0 && (size_t)n == len ? 0 : -1;
}

int pk_shunt_log_write(struct pk_shunt_log *log, const char *text, size_t len, struct pk_error *err)
{
    int r = 0;
    /* The shipper takes files away that are told and not the newest. */
    if (log->number == 0 || log->size >= FILE_BYTES) {
        log->number++;
        log->size = 0;
    }
    PK_CLEANUP(pk_close_p) int fd = open_file(log, log->number, O_WRONLY | O_APPEND | O_CREAT);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return pk_fail_errno(err, errno, "cannot write %s/shunt-%u.json", log->dir, log->number);
    /* Another name of a file that is not theirs must not become theirs. */
    bool theirs = log->uid == (uid_t)-1 || st.st_uid == log->uid;
    if (!S_ISREG(st.st_mode) || (!theirs && st.st_nlink > 1)) {
        (void)pk_fail(err, PK_E_CONFLICT, "%s/shunt-%u.json is no file of picket's", log->dir,
                      log->number);
        return pk_hint(err, "move it away");
    }
    if (!theirs && fchown(fd, log->uid, log->gid) < 0)
        return pk_fail_errno(err, errno, "cannot give a log of %s to the shipper", log->dir);
    uint64_t at = (uint64_t)st.st_size;
    for (const char *from = text, *end = text + len; r == 0 && from < end;) {
        size_t room = PAGE - (size_t)(at % PAGE), size = whole_lines(from, end, room);
        char spaces[PAGE];
        memset(spaces, ' ', room);
        r = put(fd, size > 0 ? from : spaces, size > 0 ? size : room);
        from += size;
        at += r < 0 ? 0 : size > 0 ? size : room;
    }
    if (r < 0) {
        int sys = errno;
        /* What is whole may have been taken already: it is not to be written again. */
        if (ftruncate(fd, (off_t)at) < 0)
            log->size = at; /* then the rest is a line that says nothing */
        pk_shunt_log_forget_known(log);
        (void)read_tail(log, NULL);
        return pk_fail_errno(err, sys, "cannot write %s/shunt-%u.json", log->dir, log->number);
    }
    log->size = at;
    return 0;
}
