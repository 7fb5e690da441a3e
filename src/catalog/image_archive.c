/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar files (POSIX ustar) and the archive that 'podman load' takes: manifest.json, the image's
 * configuration and its one layer. Equal input gives equal bytes, so that equal packages give an
 * image of the same digest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "catalog/image_internal.h"

#define BLOCK 512u

struct ustar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
        magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct ustar) == BLOCK, "a tar header is one block");

static void close_file(FILE **file)
{
    if (*file != NULL)
        (void)fclose(*file);
}

static void octal(char *field, size_t size, uint64_t value)
{
    field[size - 1] = '\0';
    for (size_t i = size - 1; i-- > 0; value >>= 3)
        field[i] = (char)('0' + (value & 7));
}

/* A text field of a header need not end in a NUL. */
static void put_text(char *field, const char *text, size_t len)
{
    memcpy(field, text, len);
}

static bool split_name(struct ustar *head, const char *name)
{
    size_t len = strlen(name);
    if (len <= sizeof(head->name)) {
        put_text(head->name, name, len);
        return true;
    }
    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t before = (size_t)(slash - name), after = len - before - 1;
        if (before > sizeof(head->prefix))
            return false;
        if (after > 0 && after <= sizeof(head->name)) {
            put_text(head->prefix, name, before);
            put_text(head->name, slash + 1, after);
            return true;
        }
    }
    return false;
}

static int write_head(FILE *file, const char *name, const struct pk_tree_entry *entry,
                      struct pk_error *err)
{
    struct ustar head = { .type = entry->type == 'd' ? '5' : entry->type == 'l' ? '2' : '0' };
    const char *target = entry->type == 'l' ? entry->target : "";
    if (!split_name(&head, name) || strlen(target) > sizeof(head.link) ||
        entry->size >= UINT64_C(1) << 33)
        return pk_fail(err, PK_E_UNSUPPORTED, "%s: its name or size is too long for a tar file",
                       name);
    put_text(head.link, target, strlen(target));
    octal(head.mode, sizeof(head.mode), entry->mode & 07777);
    octal(head.uid, sizeof(head.uid), 0);
    octal(head.gid, sizeof(head.gid), 0);
    octal(head.size, sizeof(head.size), entry->size);
    octal(head.mtime, sizeof(head.mtime), (uint64_t)PK_MAX(entry->mtime, (int64_t)0));
    put_text(head.magic, "ustar", 6);
    put_text(head.version, "00", 2);
    put_text(head.user, "root", 4);
    put_text(head.group, "root", 4);

    memset(head.checksum, ' ', sizeof(head.checksum));
    unsigned sum = 0;
    const unsigned char *bytes = (const unsigned char *)&head;
    for (size_t i = 0; i < sizeof(head); i++)
        sum += bytes[i];
    octal(head.checksum, 7, sum);
    (void)fwrite(&head, sizeof(head), 1, file);
    return 0;
}

static void pad(FILE *file, uint64_t size)
{
    static const char zeros[BLOCK];
    if (size % BLOCK != 0)
        (void)fwrite(zeros, BLOCK - size % BLOCK, 1, file);
}

static int finish(FILE *file, const char *path, struct pk_error *err)
{
    static const char zeros[2 * BLOCK];
    (void)fwrite(zeros, sizeof(zeros), 1, file);
    if (fflush(file) == EOF || ferror(file) != 0) {
        int sys = errno != 0 ? errno : EIO;
        pk_fail_errno(err, sys, "%s", path);
        return pk_hint(err, "see the free space below the state folder (--state-dir)");
    }
    return 0;
}

static int copy_file(FILE *to, const char *path, uint64_t size, struct pk_error *err)
{
    PK_CLEANUP(close_file) FILE *from = fopen(path, "re");
    if (from == NULL)
        return pk_fail_errno(err, errno, "%s", path);
    char block[65536];
    uint64_t left = size;
    while (left > 0) {
        size_t got = fread(block, 1, (size_t)PK_MIN(left, (uint64_t)sizeof(block)), from);
        if (got == 0)
            return pk_fail(err, PK_E_IO, "%s became shorter while it was read", path);
        if (fwrite(block, 1, got, to) != got)
            return pk_fail_errno(err, errno, "writing an archive");
        left -= got;
    }
    pad(to, size);
    return 0;
}

static int write_entry(FILE *file, const struct pk_tree_entry *entry, const char *root,
                       struct pk_error *err)
{
    /* Names in a layer are relative, and folders' end in a slash. */
    PK_CLEANUP(pk_free_p)
    char *name = pk_asprintf("%s%s", entry->path + 1, entry->type == 'd' ? "/" : "");
    PK_CLEANUP(pk_free_p) char *full = pk_asprintf("%s%s", root, entry->path);
    if (name == NULL || full == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = write_head(file, name, entry, err);
    if (r < 0 || entry->type != 'f')
        return r;
    if (entry->data == NULL)
        return copy_file(file, full, entry->size, err);
    (void)fwrite(entry->data, 1, entry->size, file);
    pad(file, entry->size);
    return 0;
}

int pk_tree_write_tar(const struct pk_tree *tree, const char *root, const char *path,
                      struct pk_error *err)
{
    PK_CLEANUP(close_file) FILE *file = fopen(path, "we");
    if (file == NULL)
        return pk_fail_errno(err, errno, "%s", path);
    for (size_t i = 0; i < tree->count; i++) {
        int r = write_entry(file, &tree->entries[i], root, err);
        if (r < 0)
            return r;
    }
    return finish(file, path, err);
}

static int hash_file(const char *path, char out[65], uint64_t *ret_size, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return pk_fail_errno(err, errno, "%s", path);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return pk_fail_errno(err, errno, "%s", path);
    pk_sha256_hex(data, (size_t)st.st_size, out);
    munmap(data, (size_t)st.st_size);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static const char *architecture(void)
{
    struct utsname name;
    if (uname(&name) < 0 || strcmp(name.machine, "x86_64") == 0)
        return "amd64";
    return strcmp(name.machine, "aarch64") == 0 ? "arm64" : "unknown";
}

static json_t *config_json(const struct pk_image_meta *meta, const char *layer_hash)
{
    char created[40];
    pk_time_format(meta->created * PK_NSEC_PER_SEC, 0, created, sizeof(created));
    json_t *command = json_array();
    for (size_t i = 0; command != NULL && i < meta->command->count; i++)
        json_array_append_new(command, json_string(meta->command->list[i]));
    return json_pack("{s:s, s:s, s:s, s:{s:[s], s:o, s:O}, s:{s:s, s:[s+]}, s:[{s:s, s:s}]}",
                     "created", created, "architecture", architecture(), "os", "linux", "config",
                     "Env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "Cmd", command, "Labels",
                     meta->labels, "rootfs", "type", "layers", "diff_ids", "sha256:", layer_hash,
                     "history", "created", created, "created_by", "picket image build");
}

int pk_image_write_archive(const char *layer_path, const struct pk_image_meta *meta,
                           const char *path, char **ret_digest, struct pk_error *err)
{
    char layer_hash[65], config_hash[65];
    uint64_t layer_size = 0;
    int r = hash_file(layer_path, layer_hash, &layer_size, err);
    if (r < 0)
        return r;
    PK_JSON config = config_json(meta, layer_hash);
    PK_CLEANUP(pk_free_p) char *config_text = config != NULL ? pk_json_canonical(config) : NULL;
    if (config_text == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    pk_sha256_hex(config_text, strlen(config_text), config_hash);
    char config_name[80], layer_name[80];
    snprintf(config_name, sizeof(config_name), "%s.json", config_hash);
    snprintf(layer_name, sizeof(layer_name), "%s.tar", layer_hash);
    PK_JSON manifest = json_pack("[{s:s, s:[s], s:[s]}]", "Config", config_name, "RepoTags",
                                 meta->name, "Layers", layer_name);
    PK_CLEANUP(pk_free_p) char *text = manifest != NULL ? pk_json_canonical(manifest) : NULL;
    PK_CLEANUP(pk_free_p) char *digest = pk_asprintf("sha256:%s", config_hash);
    if (text == NULL || digest == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");

    struct {
        const char *name;
        const char *data; /* NULL = the layer */
        uint64_t size;
    } const members[] = { { "manifest.json", text, strlen(text) },
                          { config_name, config_text, strlen(config_text) },
                          { layer_name, NULL, layer_size } };
    PK_CLEANUP(close_file) FILE *file = fopen(path, "we");
    if (file == NULL)
        return pk_fail_errno(err, errno, "%s", path);
    for (size_t i = 0; i < PK_ARRAY_SIZE(members); i++) {
        struct pk_tree_entry entry = {
            .type = 'f', .size = members[i].size, .mode = 0644, .mtime = meta->created
        };
        r = write_head(file, members[i].name, &entry, err);
        if (r < 0)
            return r;
        if (members[i].data == NULL) {
            r = copy_file(file, layer_path, layer_size, err);
            if (r < 0)
                return r;
        } else {
            (void)fwrite(members[i].data, 1, members[i].size, file);
            pad(file, members[i].size);
        }
    }
    r = finish(file, path, err);
    if (r < 0)
        return r;
    *ret_digest = PK_TAKE(digest);
    return 0;
}
