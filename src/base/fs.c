/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"

/* Each level of a tree that is removed holds one descriptor. */
#define RM_MAX_DEPTH 200

void pk_close_p(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd); /* a second close after EINTR could hit another thread's file */
        errno = saved;
        *fd = -1;
    }
}

int pk_file_read(const char *path, size_t max, char **ret_data, size_t *ret_len,
                 struct pk_error *err)
{
    bool standard_input = strcmp(path, "-") == 0;
    PK_CLEANUP(pk_close_p) int opened = -1;
    if (!standard_input) {
        opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (opened < 0)
            return pk_fail_errno(err, errno, "cannot open %s", path);
    }
    int fd = standard_input ? STDIN_FILENO : opened;
    struct stat st;
    size_t chunk = 4096;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        chunk = PK_MIN((size_t)st.st_size + 1, (size_t)1 << 20);
    PK_CLEANUP(pk_buf_done) struct pk_buf buf = PK_BUF_INIT(max == SIZE_MAX ? max - 2 : max + 1);
    for (;;) {
        size_t want = PK_MIN(chunk, buf.max - buf.len);
        if (want == 0) {
            pk_fail(err, PK_E_NOSPACE, "%s is larger than %zu bytes", path, max);
            pk_hint(err, "give a smaller file");
            return PK_E_NOSPACE;
        }
        if (pk_buf_reserve(&buf, want) < 0)
            return pk_fail(err, PK_E_NOMEM, "cannot read %s: out of memory", path);
        ssize_t n = read(fd, buf.data + buf.len, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pk_fail_errno(err, errno, "cannot read %s", path);
        if (n == 0)
            break;
        buf.len += (size_t)n;
    }
    if (buf.len > max) {
        pk_fail(err, PK_E_NOSPACE, "%s is larger than %zu bytes", path, max);
        pk_hint(err, "give a smaller file");
        return PK_E_NOSPACE;
    }
    buf.data[buf.len] = '\0';
    if (ret_len != NULL)
        *ret_len = buf.len;
    *ret_data = PK_TAKE(buf.data);
    return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* A rename is only durable once the folder is on disk too. */
static int sync_parent(const char *path, struct pk_error *err)
{
    const char *slash = strrchr(path, '/');
    PK_CLEANUP(pk_free_p) char *parent = NULL;
    if (slash == NULL)
        parent = pk_strdup(".");
    else
        parent = pk_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot write %s: out of memory", path);
    PK_CLEANUP(pk_close_p) int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return pk_fail_errno(err, errno, "cannot sync folder %s", parent);
    return 0;
}

int pk_file_write(const char *path, const void *data, size_t len, mode_t mode, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *temporary = pk_asprintf("%s.XXXXXX", path);
    if (temporary == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot write %s: out of memory", path);
    PK_CLEANUP(pk_close_p) int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot create a file beside %s", path);
    if (fchmod(fd, mode) < 0 || write_all(fd, data, len) < 0 || fsync(fd) < 0 ||
        rename(temporary, path) < 0) {
        int r = pk_fail_errno(err, errno, "cannot write %s", path);
        (void)unlink(temporary);
        return r;
    }
    return sync_parent(path, err);
}

bool pk_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int pk_mkdir_p(const char *path, mode_t mode, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *partial = pk_strdup(path);
    if (partial == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot make folder %s: out of memory", path);
    for (char *p = partial + (partial[0] == '/' ? 1 : 0);; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char saved = *p;
        *p = '\0';
        if (partial[0] != '\0' && mkdir(partial, mode) < 0) {
            int sys = errno;
            struct stat st;
            if (stat(partial, &st) < 0)
                return pk_fail_errno(err, sys, "cannot make folder %s", partial);
            if (!S_ISDIR(st.st_mode)) {
                pk_fail(err, PK_E_CONFLICT, "cannot make folder %s: a file has that name", partial);
                pk_hint(err, "remove or rename the file %s", partial);
                return PK_E_CONFLICT;
            }
        }
        *p = saved;
        if (saved == '\0')
            return 0;
    }
}

static int remove_entry(int parent, const char *name, dev_t device, unsigned depth, const char *top,
                        struct pk_error *err);

static int remove_content(int fd_take, dev_t device, unsigned depth, const char *top,
                          struct pk_error *err)
{
    DIR *dir = fdopendir(fd_take);
    if (dir == NULL) {
        int r = pk_fail_errno(err, errno, "cannot read a folder in %s", top);
        (void)close(fd_take);
        return r;
    }
    int r = 0;
    while (r == 0) {
        errno = 0;
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this call's own */
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            if (errno != 0)
                r = pk_fail_errno(err, errno, "cannot read a folder in %s", top);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = remove_entry(dirfd(dir), entry->d_name, device, depth + 1, top, err);
    }
    (void)closedir(dir);
    return r;
}

/* device 0: the top itself, whose file system is the one not to leave. */
static int remove_entry(int parent, const char *name, dev_t device, unsigned depth, const char *top,
                        struct pk_error *err)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot remove %s in %s", name, top);
    bool folder = S_ISDIR(st.st_mode);
    if (folder && device != 0 && st.st_dev != device) {
        pk_fail(err, PK_E_CONFLICT, "cannot remove %s in %s: another file system is mounted there",
                name, top);
        pk_hint(err, "unmount it first");
        return PK_E_CONFLICT;
    }
    if (folder) {
        if (depth > RM_MAX_DEPTH)
            return pk_fail(err, PK_E_UNSUPPORTED, "cannot remove %s: folders nest deeper than %d",
                           top, RM_MAX_DEPTH);
        int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return pk_fail_errno(err, errno, "cannot remove %s in %s", name, top);
        int r = remove_content(fd, st.st_dev, depth, top, err);
        if (r < 0)
            return r;
    }
    if (unlinkat(parent, name, folder ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "cannot remove %s in %s", name, top);
    return 0;
}

int pk_rm_rf(const char *path, struct pk_error *err)
{
    return remove_entry(AT_FDCWD, path, 0, 0, path, err);
}

char *pk_path_join(const char *dir, const char *name)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    return pk_asprintf("%.*s%s%s", (int)len, dir, len == 1 && dir[0] == '/' ? "" : "/", name);
}

int pk_lock_file(const char *path, int *ret_fd, struct pk_error *err)
{
    for (;;) {
        PK_CLEANUP(pk_close_p) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return pk_fail_errno(err, errno, "cannot open lock %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            if (errno != EWOULDBLOCK)
                return pk_fail_errno(err, errno, "cannot lock %s", path);
            pk_fail(err, PK_E_CONFLICT, "%s is held by another process", path);
            pk_hint(err, "another picket uses this folder: stop it, or give other --state-dir and "
                         "--run-dir");
            return PK_E_CONFLICT;
        }
        struct stat st;
        if (fstat(fd, &st) < 0)
            return pk_fail_errno(err, errno, "cannot look at lock %s", path);
        if (st.st_nlink == 0)
            continue; /* its last holder removed it: a lock that nobody else would meet */
        *ret_fd = fd;
        fd = -1;
        return 0;
    }
}

int pk_disk_free(const char *path, uint64_t *ret_bytes, struct pk_error *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) < 0)
        return pk_fail_errno(err, errno, "cannot ask for free space at %s", path);
    *ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}
