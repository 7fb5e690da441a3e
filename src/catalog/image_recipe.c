/* SPDX-License-Identifier: Apache-2.0 */
/* Reads image.yaml. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/doc.h"
#include "base/fs.h"
#include "base/json.h"
#include "catalog/image_internal.h"

void pk_recipe_done(struct pk_recipe *recipe)
{
    pk_free(recipe->base);
    pk_free(recipe->release);
    pk_strv_done(&recipe->suites);
    pk_strv_done(&recipe->packages);
    pk_strv_done(&recipe->programs);
    pk_strv_done(&recipe->files);
    pk_strv_done(&recipe->directories);
    pk_strv_done(&recipe->command);
    pk_strv_done(&recipe->check);
    memset(recipe, 0, sizeof(*recipe));
}

/* What a text of the recipe may be; it becomes part of a command's arguments or a path. */
enum text_kind { TEXT_WORD, TEXT_PACKAGE, TEXT_IMAGE, TEXT_PATH, TEXT_ARGUMENT };

/* NAME:TAG or FOLDER/NAME:TAG. Which host has it is not the recipe's business, so what a reader of
 * image names takes for a host is refused: a first part with a dot, a port or "localhost". */
static bool is_image(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789._-/";
    size_t name = strspn(text, plain);
    size_t first = strcspn(text, "/");
    if (text[0] < '0' || strchr("/._-", text[0]) != NULL || text[name] != ':' || strlen(text) > 200)
        return false;
    bool host = first < name && (memchr(text, '.', first) != NULL ||
                                 (first == 9 && memcmp(text, "localhost", 9) == 0));
    const char *tag = text + name + 1;
    static const char tags[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return !host && tag[0] != '\0' && tag[strspn(tag, tags)] == '\0' && strstr(text, "//") == NULL;
}

static bool text_fits(const char *text, enum text_kind kind)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    static const char package[] = "abcdefghijklmnopqrstuvwxyz0123456789-+./";

    switch (kind) {
    case TEXT_WORD:
        return text[0] != '\0' && text[0] != '-' && text[strspn(text, word)] == '\0';
    case TEXT_PACKAGE:
        return text[0] != '\0' && text[0] != '-' && text[strspn(text, package)] == '\0';
    case TEXT_IMAGE:
        return is_image(text);
    case TEXT_PATH:
        return text[0] == '/' && text[1] != '\0' && strstr(text, "/../") == NULL &&
               !pk_str_ends(text, "/..") && strlen(text) < 256;
    case TEXT_ARGUMENT:
        return true;
    }
    return false;
}

static int read_text(const struct pk_doc *doc, const struct pk_node *node, enum text_kind kind,
                     const char **ret_text, struct pk_error *err)
{
    if (node->kind != PK_NODE_STRING || !text_fits(node->text, kind))
        return pk_node_fail(doc, node, err, "%s",
                            kind == TEXT_WORD      ? "not a suite's name"
                            : kind == TEXT_PACKAGE ? "not a package: NAME or NAME/SUITE"
                            : kind == TEXT_IMAGE   ? "not an image without a host: NAME:TAG"
                            : kind == TEXT_PATH    ? "not an absolute path"
                                                   : "not a text");
    *ret_text = node->text;
    return 0;
}

static int read_list(const struct pk_doc *doc, const struct pk_node *map, const char *key,
                     enum text_kind kind, bool required, struct pk_strv *strv, struct pk_error *err)
{
    const struct pk_node *list = pk_node_get(map, key);
    if (list == NULL && !required)
        return 0;
    if (list == NULL || list->kind != PK_NODE_LIST || (required && list->count == 0))
        return pk_node_fail(doc, list != NULL ? list : map, err, "%s: a list is needed", key);
    for (size_t i = 0; i < list->count; i++) {
        const char *text;
        int r = read_text(doc, list->items[i], kind, &text, err);
        if (r < 0)
            return r;
        if (pk_strv_add(strv, text) < 0)
            return pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    return 0;
}

static int refuse_unknown(const struct pk_doc *doc, const struct pk_node *map,
                          const char *const *known, size_t count, struct pk_error *err)
{
    for (size_t i = 0; i < map->count; i++) {
        const struct pk_node *item = map->items[i];
        bool found = false;
        for (size_t k = 0; k < count; k++)
            found = found || strcmp(item->key, known[k]) == 0;
        if (found)
            continue;
        pk_node_fail(doc, item, err, "there is no key '%s' here", item->key);
        pk_error_at(err, pk_doc_name(doc), item->key_line, item->key_col);
        const char *closest = pk_str_closest(item->key, known, count);
        if (closest != NULL)
            pk_hint(err, "did you mean '%s'?", closest);
        return PK_E_INVALID;
    }
    return 0;
}

static int read_version(const struct pk_doc *doc, const struct pk_node *node,
                        struct pk_recipe *recipe, struct pk_error *err)
{
    static const char *const keys[] = { "version", "base", "debian", "final", "check" };
    static const char *const debian_keys[] = { "release", "suites", "packages" };
    static const char *const final_keys[] = { "programs", "files", "directories", "command" };

    const struct pk_node *debian = pk_node_get(node, "debian");
    const struct pk_node *final = pk_node_get(node, "final");
    if (debian == NULL || debian->kind != PK_NODE_MAP)
        return pk_node_fail(doc, debian != NULL ? debian : node, err, "debian: a map is needed");
    if (final == NULL || final->kind != PK_NODE_MAP)
        return pk_node_fail(doc, final != NULL ? final : node, err, "final: a map is needed");
    int r = refuse_unknown(doc, node, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = refuse_unknown(doc, debian, debian_keys, PK_ARRAY_SIZE(debian_keys), err);
    if (r == 0)
        r = refuse_unknown(doc, final, final_keys, PK_ARRAY_SIZE(final_keys), err);
    if (r < 0)
        return r;

    const struct pk_node *release = pk_node_get(debian, "release");
    const char *text;
    r = release != NULL ? read_text(doc, release, TEXT_WORD, &text, err)
                        : pk_node_fail(doc, debian, err, "release is missing");
    if (r < 0)
        return r;
    recipe->release = pk_strdup(text);
    const struct pk_node *base = pk_node_get(node, "base");
    text = "";
    r = base != NULL ? read_text(doc, base, TEXT_IMAGE, &text, err) : 0;
    if (r < 0)
        return r;
    recipe->base = pk_strdup(text);
    if (recipe->release == NULL || recipe->base == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");

    r = read_list(doc, debian, "suites", TEXT_WORD, true, &recipe->suites, err);
    if (r == 0)
        r = read_list(doc, debian, "packages", TEXT_PACKAGE, true, &recipe->packages, err);
    if (r == 0)
        r = read_list(doc, final, "programs", TEXT_PATH, true, &recipe->programs, err);
    if (r == 0)
        r = read_list(doc, final, "files", TEXT_PATH, false, &recipe->files, err);
    if (r == 0)
        r = read_list(doc, final, "directories", TEXT_PATH, false, &recipe->directories, err);
    if (r == 0)
        r = read_list(doc, final, "command", TEXT_ARGUMENT, true, &recipe->command, err);
    if (r == 0)
        r = read_list(doc, node, "check", TEXT_ARGUMENT, true, &recipe->check, err);
    return r;
}

static int hash_version(const struct pk_node *node, char out[65], struct pk_error *err)
{
    PK_JSON json = pk_node_to_json(node);
    if (json != NULL)
        json_object_set_new(json, "format", json_integer(PK_IMAGE_FORMAT));
    PK_CLEANUP(pk_free_p) char *text = json != NULL ? pk_json_canonical(json) : NULL;
    if (text == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    pk_sha256_hex(text, strlen(text), out);
    return 0;
}

int pk_recipe_load(const char *dir, const char *version, struct pk_recipe *ret_recipe,
                   struct pk_error *err)
{
    static const char *const keys[] = { "apiVersion", "kind", "versions" };

    PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, "image.yaml");
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = NULL;
    int r = pk_doc_load(path, &doc, err);
    if (r < 0)
        return pk_wrap(err, "image recipe"), r;
    const struct pk_node *root = pk_doc_root(doc);
    if (root->kind != PK_NODE_MAP)
        return pk_node_fail(doc, root, err, "an image recipe is a map");
    r = refuse_unknown(doc, root, keys, PK_ARRAY_SIZE(keys), err);
    if (r < 0)
        return r;
    const struct pk_node *versions = pk_node_get(root, "versions");
    if (versions == NULL || versions->kind != PK_NODE_LIST)
        return pk_node_fail(doc, versions != NULL ? versions : root, err,
                            "versions: a list is needed");
    for (size_t i = 0; i < versions->count; i++) {
        const struct pk_node *node = versions->items[i];
        const struct pk_node *name =
            node->kind == PK_NODE_MAP ? pk_node_get(node, "version") : NULL;
        if (name == NULL || name->text == NULL)
            return pk_node_fail(doc, node, err, "version is missing");
        if (strcmp(name->text, version) != 0)
            continue;
        struct pk_recipe recipe = { 0 };
        r = read_version(doc, node, &recipe, err);
        if (r == 0)
            r = hash_version(node, recipe.hash, err);
        if (r < 0) {
            pk_recipe_done(&recipe);
            return r;
        }
        *ret_recipe = recipe;
        return 0;
    }
    pk_fail(err, PK_E_NOTFOUND, "%s has no recipe for version %s", path, version);
    return pk_hint(err, "add it under versions"), PK_E_NOTFOUND;
}
