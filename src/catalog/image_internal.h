/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files that build images. The way of an image: recipe (image.yaml) -> builder stage (a
 * folder that Debian's packages are unpacked into) -> final stage (the programs with the libraries
 * that they link, and the files named) -> layer -> archive -> Podman.
 */
#ifndef PICKET_CATALOG_IMAGE_INTERNAL_H
#define PICKET_CATALOG_IMAGE_INTERNAL_H

#include <jansson.h>
#include <sys/types.h>

#include "base/common.h"
#include "base/error.h"
#include "base/str.h"
#include "catalog/catalog.h"

/* Counts up when equal recipes come to build other images. */
#define PK_IMAGE_FORMAT 2

/* ---- image_recipe.c ---- */

/* One version line of image.yaml. */
struct pk_recipe {
    char *base;                 /* image to begin with, no host: "debian:bookworm-slim"; or "" */
    char *release;              /* "bookworm" */
    struct pk_strv suites;      /* "bookworm-backports" ... */
    struct pk_strv packages;    /* "suricata/bookworm-backports" ... */
    struct pk_strv programs;    /* absolute paths in the builder stage */
    struct pk_strv files;       /* files or folders, absolute */
    struct pk_strv directories; /* empty folders made in the image: places to mount */
    struct pk_strv command;     /* the image's default command */
    struct pk_strv check;       /* must end well in the final stage */
    char hash[65];              /* SHA-256 over all of it and PK_IMAGE_FORMAT */
};
/* Reads dir/image.yaml. Faults have positions in it. PK_E_NOTFOUND when it has no such version. */
int pk_recipe_load(const char *dir, const char *version, struct pk_recipe *ret_recipe,
                   struct pk_error *err);
void pk_recipe_done(struct pk_recipe *recipe);

/* ---- image_debian.c ---- */

/* Unpacks the recipe's packages and all that they depend on into the new folder root, with the
 * package mirrors and keys that this host's apt has (or PICKET_DEBIAN_MIRROR and
 * PICKET_DEBIAN_SECURITY_MIRROR). Nothing of the host's own package state changes. *ret_packages:
 * "name version", sorted. */
int pk_debian_unpack(const struct pk_recipe *recipe, const char *root, const char *tmp_dir,
                     void (*on_line)(void *arg, const char *line), void *on_line_arg,
                     struct pk_strv *ret_packages, struct pk_error *err);

/* The text of a sources.list for a container that sees the folder stage as seen_as: Debian's keys
 * and this host's certificates are copied into it. *ret_text: pk_free(). */
int pk_debian_sources(const struct pk_recipe *recipe, const char *stage, const char *seen_as,
                      char **ret_text, struct pk_error *err);

/* ---- image_registry.c ---- */

/* A base image of a registry, and the container of it that packages are installed in. */
struct pk_base {
    char *image;     /* as asked for: "127.0.0.1:5000/debian:bookworm-slim" */
    char *id;        /* of the image; NULL = there is none */
    char *container; /* removed by pk_base_done() */
    char *root;      /* its files, as long as it runs */
    struct pk_strv env;
};
void pk_base_done(struct pk_base *base);
/* HOST or HOST:PORT? PK_E_USAGE otherwise. */
int pk_registry_check(const char *registry, struct pk_error *err);
/* Gets the recipe's base from the registry ("" = as this host's Podman resolves short names). None
 * that answers quickly is success without an id, *ret_why says why in a few words; pk_free().
 * containers_conf: text for Podman, NULL = its own. dir: a folder for files of ours. */
int pk_base_pull(const struct pk_recipe *recipe, const char *registry, const char *containers_conf,
                 const char *dir, struct pk_base *ret_base, char **ret_why, struct pk_error *err);
/* Installs the recipe's packages in a container of the base, whose files are then at base->root. */
int pk_base_install(struct pk_base *base, const struct pk_recipe *recipe, const char *dir,
                    struct pk_strv *ret_packages, struct pk_error *err);

/* ---- image_tree.c ---- */

struct pk_tree_entry {
    char *path;   /* absolute in the image */
    char type;    /* 'f' file, 'l' link, 'd' folder */
    char *target; /* of a link */
    char *data;   /* contents when made here; NULL = of the builder stage */
    uint64_t size;
    mode_t mode;
    int64_t mtime; /* seconds */
};
/* What goes into the final stage, sorted by path. */
struct pk_tree {
    struct pk_tree_entry *entries;
    size_t count, capacity;
    int64_t newest; /* latest mtime of the files */
    uint64_t bytes; /* of all files */
};
/* Chooses the files of the final stage from the builder stage. PK_E_NOTFOUND when a program, file
 * or library is missing there. */
int pk_tree_choose(const char *root, const struct pk_recipe *recipe, struct pk_tree *ret_tree,
                   struct pk_error *err);
void pk_tree_done(struct pk_tree *tree);

/* ---- image_archive.c ---- */

/* Writes the tree as a tar file; equal trees give equal bytes. root: where the files are. */
int pk_tree_write_tar(const struct pk_tree *tree, const char *root, const char *path,
                      struct pk_error *err);
struct pk_image_meta {
    const char *name; /* "localhost/picket/suricata:7" */
    const struct pk_strv *command;
    json_t *labels;  /* borrowed */
    int64_t created; /* seconds */
};
/* Wraps a layer (tar) as an archive that 'podman load' takes. *ret_digest: "sha256:..." which
 * Podman will call the image; pk_free(). */
int pk_image_write_archive(const char *layer_path, const struct pk_image_meta *meta,
                           const char *path, char **ret_digest, struct pk_error *err);

/* ---- image_load.c ---- */

struct pk_podman_image {
    char *digest;   /* "sha256:..." (the image's id), NULL = there is no such image */
    char *recipe;   /* hash of the recipe that it was built from (a label), "" = not by us */
    char *release;  /* full version of the tool in it (a label), "" = not said */
    uint64_t bytes; /* unpacked */
};
void pk_podman_image_done(struct pk_podman_image *image);
/* Looks an image up by name or id. None of that name is success, with digest NULL. */
int pk_podman_image_find(const char *socket, const char *name, struct pk_podman_image *ret_image,
                         struct pk_error *err);
/* Loads an archive: through the REST socket when a service listens there, else with the podman
 * program. */
int pk_podman_image_load(const char *socket, const char *archive_path, struct pk_error *err);

#endif
