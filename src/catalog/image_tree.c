/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The final stage: what a program needs to run, found by following links and the ELF files' own
 * lists of libraries, as the dynamic loader would. Every byte read here comes from a package, so
 * every offset is checked.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/map.h"
#include "catalog/image_internal.h"

#define ENTRIES_MAX 20000
#define DEPTH_MAX   64 /* of links, folders and libraries that need libraries */

struct chooser {
    const char *root;
    struct pk_tree *tree;
    struct pk_map *seen; /* paths in the tree */
    unsigned depth;
    struct pk_error *err;
};

static int choose_path(struct chooser *chooser, const char *path);

static int no_memory(struct chooser *chooser)
{
    return pk_fail(chooser->err, PK_E_NOMEM, "out of memory");
}

/* Appends an entry for path unless there is one; *ret_entry NULL when there was. Valid until the
 * next. */
static int add_entry(struct chooser *chooser, const char *path, char type,
                     struct pk_tree_entry **ret_entry)
{
    static char there;
    struct pk_tree *tree = chooser->tree;

    *ret_entry = NULL;
    if (pk_map_get(chooser->seen, path) != NULL)
        return 0;
    if (tree->count == ENTRIES_MAX)
        return pk_fail(chooser->err, PK_E_NOSPACE, "an image has at most %d files", ENTRIES_MAX);
    if (tree->count == tree->capacity) {
        size_t capacity = PK_MAX(tree->capacity * 2, (size_t)256);
        struct pk_tree_entry *entries = pk_realloc_array(tree->entries, capacity, sizeof(*entries));
        if (entries == NULL)
            return no_memory(chooser);
        tree->entries = entries;
        tree->capacity = capacity;
    }
    char *copy = pk_strdup(path);
    if (copy == NULL || pk_map_set_take(chooser->seen, path, &there) < 0) {
        pk_free(copy);
        return no_memory(chooser);
    }
    tree->entries[tree->count] = (struct pk_tree_entry){ .path = copy, .type = type };
    *ret_entry = &tree->entries[tree->count++];
    return 0;
}

static int add_folder(struct chooser *chooser, const char *path, mode_t mode)
{
    char part[512];
    if (strlen(path) >= sizeof(part))
        return pk_fail(chooser->err, PK_E_INVALID, "%s: the path is too long", path);
    struct pk_tree_entry *entry;
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        memcpy(part, path, (size_t)(slash - path));
        part[slash - path] = '\0';
        int r = add_entry(chooser, part, 'd', &entry);
        if (r < 0)
            return r;
        if (entry != NULL)
            entry->mode = 0755;
    }
    int r = add_entry(chooser, path, 'd', &entry);
    if (r == 0 && entry != NULL)
        entry->mode = mode;
    return r;
}

static int add_parents(struct chooser *chooser, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == path)
        return 0;
    PK_CLEANUP(pk_free_p) char *parent = pk_strndup(path, (size_t)(slash - path));
    return parent != NULL ? add_folder(chooser, parent, 0755) : no_memory(chooser);
}

/* A file whose text is made here. */
static int add_text(struct chooser *chooser, const char *path, const char *text)
{
    int r = add_parents(chooser, path);
    struct pk_tree_entry *entry;
    if (r == 0)
        r = add_entry(chooser, path, 'f', &entry);
    if (r < 0 || entry == NULL)
        return r;
    entry->mode = 0644;
    entry->size = strlen(text);
    entry->data = pk_strdup(text);
    return entry->data != NULL ? 0 : no_memory(chooser);
}

/* ---- ELF ---- */

struct elf {
    const unsigned char *data;
    size_t size;
    const Elf64_Ehdr *head;
};

/* The count items of size bytes at offset, or NULL when they are not all inside the file. */
static const void *elf_at(const struct elf *elf, uint64_t offset, uint64_t count, size_t size)
{
    if (offset > elf->size || count > (elf->size - offset) / size || offset % 8 != 0)
        return NULL;
    return elf->data + offset;
}

static const Elf64_Phdr *elf_segments(const struct elf *elf)
{
    if (elf->head->e_phentsize != sizeof(Elf64_Phdr))
        return NULL;
    return elf_at(elf, elf->head->e_phoff, elf->head->e_phnum, sizeof(Elf64_Phdr));
}

/* File offset of a virtual address; UINT64_MAX when no segment has it. */
static uint64_t elf_offset(const struct elf *elf, const Elf64_Phdr *segments, uint64_t address)
{
    for (unsigned i = 0; i < elf->head->e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
            address - segment->p_vaddr < segment->p_filesz &&
            segment->p_offset < UINT64_MAX - (address - segment->p_vaddr))
            return address - segment->p_vaddr + segment->p_offset;
    }
    return UINT64_MAX;
}

/* The text at strings + index, or NULL when it is not NUL-terminated inside the file. */
static const char *elf_text(const struct elf *elf, uint64_t strings, uint64_t index)
{
    if (strings >= elf->size || index >= elf->size - strings)
        return NULL;
    const char *text = (const char *)elf->data + strings + index;
    return memchr(text, '\0', elf->size - strings - index) != NULL ? text : NULL;
}

static const char *multiarch(unsigned machine)
{
    switch (machine) {
    case EM_X86_64:
        return "x86_64-linux-gnu";
    case EM_AARCH64:
        return "aarch64-linux-gnu";
    case EM_RISCV:
        return "riscv64-linux-gnu";
    default:
        return "unknown";
    }
}

static bool in_root(const struct chooser *chooser, const char *path)
{
    PK_CLEANUP(pk_free_p) char *full = pk_asprintf("%s%s", chooser->root, path);
    struct stat st;
    return full != NULL && lstat(full, &st) == 0;
}

/* The loader's order: the file's own search path, then Debian's folders. */
static int choose_library(struct chooser *chooser, const char *name, const char *run_path,
                          const char *origin, unsigned machine)
{
    char path[512];
    char dirs[1024];
    snprintf(dirs, sizeof(dirs), "%s:/lib/%s:/usr/lib/%s:/lib:/usr/lib:/lib64:/usr/lib64",
             run_path != NULL ? run_path : "", multiarch(machine), multiarch(machine));
    char *save = NULL;
    for (char *dir = strtok_r(dirs, ":", &save); dir != NULL; dir = strtok_r(NULL, ":", &save)) {
        if (pk_str_starts(dir, "$ORIGIN"))
            snprintf(path, sizeof(path), "%.200s%.100s/%.150s", origin, dir + 7, name);
        else
            snprintf(path, sizeof(path), "%.300s/%.150s", dir, name);
        if (path[0] == '/' && in_root(chooser, path))
            return choose_path(chooser, path);
    }
    pk_fail(chooser->err, PK_E_NOTFOUND, "the packages lack the library %s", name);
    pk_hint(chooser->err, "add the package that has it to the recipe");
    return PK_E_NOTFOUND;
}

static int choose_needs_of(struct chooser *chooser, const struct elf *elf, const char *path)
{
    const Elf64_Phdr *segments = elf_segments(elf);
    const Elf64_Dyn *dynamic = NULL;
    uint64_t count = 0;
    if (segments == NULL)
        return 0;
    for (unsigned i = 0; i < elf->head->e_phnum; i++) {
        if (segments[i].p_type == PT_DYNAMIC) {
            count = segments[i].p_filesz / sizeof(*dynamic);
            dynamic = elf_at(elf, segments[i].p_offset, count, sizeof(*dynamic));
        } else if (segments[i].p_type == PT_INTERP) {
            const char *loader = elf_text(elf, segments[i].p_offset, 0);
            int r = loader != NULL && loader[0] == '/' ? choose_path(chooser, loader) : 0;
            if (r < 0)
                return r;
        }
    }
    if (dynamic == NULL)
        return 0;

    uint64_t strings = UINT64_MAX, run_path = UINT64_MAX;
    for (uint64_t i = 0; i < count && dynamic[i].d_tag != DT_NULL; i++) {
        if (dynamic[i].d_tag == DT_STRTAB)
            strings = elf_offset(elf, segments, dynamic[i].d_un.d_ptr);
        else if (dynamic[i].d_tag == DT_RUNPATH || dynamic[i].d_tag == DT_RPATH)
            run_path = dynamic[i].d_un.d_val;
    }
    const char *search = elf_text(elf, strings, run_path);
    PK_CLEANUP(pk_free_p) char *origin = pk_strndup(path, (size_t)(strrchr(path, '/') - path));
    if (origin == NULL)
        return no_memory(chooser);
    for (uint64_t i = 0; i < count && dynamic[i].d_tag != DT_NULL; i++) {
        if (dynamic[i].d_tag != DT_NEEDED)
            continue;
        const char *name = elf_text(elf, strings, dynamic[i].d_un.d_val);
        if (name == NULL || name[0] == '\0' || strchr(name, '/') != NULL)
            continue;
        int r = choose_library(chooser, name, search, origin, elf->head->e_machine);
        if (r < 0)
            return pk_wrap(chooser->err, "%s", path), r;
    }
    return 0;
}

/* Chooses what the file needs when it is a program or library; other files need nothing. */
static int choose_needs(struct chooser *chooser, const char *path, const char *full, size_t size)
{
    if (size < sizeof(Elf64_Ehdr))
        return 0;
    PK_CLEANUP(pk_close_p) int fd = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return pk_fail_errno(chooser->err, errno, "%s", full);
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return pk_fail_errno(chooser->err, errno, "%s", full);
    struct elf elf = { .data = data, .size = size, .head = data };
    int r = 0;
    if (memcmp(data, ELFMAG, SELFMAG) == 0 && elf.head->e_ident[EI_CLASS] == ELFCLASS64 &&
        elf.head->e_ident[EI_DATA] == ELFDATA2LSB)
        r = choose_needs_of(chooser, &elf, path);
    munmap(data, size);
    return r;
}

/* ---- paths ---- */

static int choose_folder(struct chooser *chooser, const char *path, const char *full)
{
    int r = add_folder(chooser, path, 0755);
    DIR *dir = r == 0 ? opendir(full) : NULL;
    if (dir == NULL)
        return r < 0 ? r : pk_fail_errno(chooser->err, errno, "%s", full);
    for (struct dirent *entry = readdir(dir); entry != NULL && r == 0; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        PK_CLEANUP(pk_free_p) char *child = pk_path_join(path, entry->d_name);
        r = child != NULL ? choose_path(chooser, child) : no_memory(chooser);
    }
    closedir(dir);
    return r;
}

/* What a link at path leads to: an absolute path, not yet without "..". */
static char *link_goal(const char *path, const char *target, const char *rest)
{
    if (target[0] == '/')
        return pk_asprintf("%s%s", target, rest);
    return pk_asprintf("%.*s/%s%s", (int)(strrchr(path, '/') - path), path, target, rest);
}

static void drop_dots(char *path)
{
    char *out = path;
    for (const char *at = path; *at != '\0';) {
        const char *end = strchrnul(at + 1, '/');
        size_t len = (size_t)(end - at);
        if (len == 3 && memcmp(at, "/..", 3) == 0) {
            while (out > path && *--out != '/')
                ;
        } else if (len > 1 && !(len == 2 && at[1] == '.')) {
            memmove(out, at, len);
            out += len;
        }
        at = end;
    }
    *out = '\0';
}

static int choose_link(struct chooser *chooser, const char *path, const char *full,
                       const char *rest, const struct stat *st)
{
    char target[512];
    ssize_t len = readlink(full, target, sizeof(target) - 1);
    if (len < 0)
        return pk_fail_errno(chooser->err, errno, "%s", full);
    target[len] = '\0';
    int r = add_parents(chooser, path);
    struct pk_tree_entry *entry;
    if (r == 0)
        r = add_entry(chooser, path, 'l', &entry);
    if (r < 0)
        return r;
    if (entry != NULL) {
        entry->mode = 0777;
        entry->mtime = st->st_mtime;
        entry->target = pk_strdup(target);
        if (entry->target == NULL)
            return no_memory(chooser);
    }
    PK_CLEANUP(pk_free_p) char *goal = link_goal(path, target, rest);
    if (goal == NULL)
        return no_memory(chooser);
    drop_dots(goal);
    return choose_path(chooser, goal);
}

/* Takes path part by part, so that links among its folders are kept and followed inside root. */
static int choose_parts(struct chooser *chooser, const char *path)
{
    const char *end = path;
    for (;;) {
        end = strchrnul(end + 1, '/');
        PK_CLEANUP(pk_free_p) char *part = pk_strndup(path, (size_t)(end - path));
        PK_CLEANUP(pk_free_p)
        char *full = part != NULL ? pk_asprintf("%s%s", chooser->root, part) : NULL;
        if (full == NULL)
            return no_memory(chooser);
        struct stat st;
        if (lstat(full, &st) < 0) {
            pk_fail(chooser->err, PK_E_NOTFOUND, "the packages lack %s", part);
            pk_hint(chooser->err, "see the recipe's packages and paths");
            return PK_E_NOTFOUND;
        }
        if (S_ISLNK(st.st_mode))
            return choose_link(chooser, part, full, end, &st);
        if (*end != '\0')
            continue;
        if (S_ISDIR(st.st_mode))
            return choose_folder(chooser, part, full);
        if (!S_ISREG(st.st_mode))
            return 0;
        int r = add_parents(chooser, part);
        struct pk_tree_entry *entry;
        if (r == 0)
            r = add_entry(chooser, part, 'f', &entry);
        if (r < 0 || entry == NULL)
            return r;
        /* No set-uid and set-gid, whatever the package says. */
        entry->mode = (st.st_mode & 0111) != 0 ? 0755 : 0644;
        entry->size = (uint64_t)st.st_size;
        entry->mtime = st.st_mtime;
        return choose_needs(chooser, part, full, (size_t)st.st_size);
    }
}

static int choose_path(struct chooser *chooser, const char *path)
{
    if (pk_map_get(chooser->seen, path) != NULL)
        return 0;
    if (chooser->depth == DEPTH_MAX)
        return pk_fail(chooser->err, PK_E_INVALID, "%s: links lead in circles", path);
    chooser->depth++;
    int r = choose_parts(chooser, path);
    chooser->depth--;
    return r;
}

static int by_path(const void *a, const void *b)
{
    const struct pk_tree_entry *x = a, *y = b;
    return strcmp(x->path, y->path);
}

static int choose_all(struct chooser *chooser, const struct pk_recipe *recipe)
{
    int r = 0;
    for (size_t i = 0; i < recipe->programs.count && r == 0; i++)
        r = choose_path(chooser, recipe->programs.list[i]);
    for (size_t i = 0; i < recipe->files.count && r == 0; i++)
        r = choose_path(chooser, recipe->files.list[i]);
    for (size_t i = 0; i < recipe->directories.count && r == 0; i++)
        r = add_folder(chooser, recipe->directories.list[i], 0755);
    /* Places where the runtime mounts; with a read-only root it could not make them. */
    static const char *const mounts[] = { "/dev", "/proc", "/run", "/sys" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(mounts) && r == 0; i++)
        r = add_folder(chooser, mounts[i], 0755);
    if (r == 0)
        r = add_folder(chooser, "/tmp", 01777);
    if (r == 0)
        r = add_text(chooser, "/etc/passwd",
                     "root:x:0:0:root:/:/usr/sbin/nologin\n"
                     "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
    if (r == 0)
        r = add_text(chooser, "/etc/group", "root:x:0:\nnogroup:x:65534:\n");
    return r;
}

int pk_tree_choose(const char *root, const struct pk_recipe *recipe, struct pk_tree *ret_tree,
                   struct pk_error *err)
{
    struct pk_tree tree = { 0 };
    struct chooser chooser = { .root = root, .tree = &tree, .seen = pk_map_new(NULL), .err = err };
    int r = chooser.seen != NULL ? choose_all(&chooser, recipe) : no_memory(&chooser);
    pk_map_free(chooser.seen);
    if (r < 0) {
        pk_tree_done(&tree);
        return r;
    }
    qsort(tree.entries, tree.count, sizeof(*tree.entries), by_path);
    for (size_t i = 0; i < tree.count; i++) {
        tree.newest = PK_MAX(tree.newest, tree.entries[i].mtime);
        tree.bytes += tree.entries[i].size;
    }
    /* What has no time of its own gets one that depends on the packages only. */
    for (size_t i = 0; i < tree.count; i++)
        if (tree.entries[i].mtime == 0)
            tree.entries[i].mtime = tree.newest;
    *ret_tree = tree;
    return 0;
}

void pk_tree_done(struct pk_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        pk_free(tree->entries[i].path);
        pk_free(tree->entries[i].target);
        pk_free(tree->entries[i].data);
    }
    pk_free(tree->entries);
    memset(tree, 0, sizeof(*tree));
}
