/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what. Over the unix socket the kernel says who asks: root, the server's own user and
 * the members of its group may do everything. Over TLS a bearer token says it: its SHA-256 is the
 * key of the stored row, so neither the state file nor a comparison's time tells a token (32 random
 * bytes need no slow hash).
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"
#include "serve/internal.h"

#define TOKEN_KIND         "token"
#define TOKEN_PREFIX       "picket_"
#define TOKEN_NAME_MAX     40u
#define TOKEN_SECRET_BYTES 32u
#define TOKEN_TEXT_MAX     128u
/* "Last used" is for people: one write a minute is enough. */
#define LAST_USED_GRAIN (60 * PK_NSEC_PER_SEC)

static void user_name(uid_t uid, char *out, size_t size)
{
    struct passwd entry, *found = NULL;
    char buffer[4096];
    if (getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) == 0 && found != NULL)
        (void)snprintf(out, size, "%s", found->pw_name);
    else
        (void)snprintf(out, size, "uid %u", (unsigned)uid);
}

static bool in_group(const struct pk_http_peer *peer, gid_t group)
{
    if (group == (gid_t)-1)
        return false;
    if (peer->gid == group)
        return true;
    struct passwd entry, *found = NULL;
    char buffer[4096];
    if (getpwuid_r(peer->uid, &entry, buffer, sizeof(buffer), &found) != 0 || found == NULL)
        return false;
    gid_t groups[256];
    int count = (int)PK_ARRAY_SIZE(groups);
    if (getgrouplist(found->pw_name, peer->gid, groups, &count) < 0)
        count = (int)PK_ARRAY_SIZE(groups); /* more than we look at: the first 256 are filled */
    for (int i = 0; i < count; i++)
        if (groups[i] == group)
            return true;
    return false;
}

static enum pk_role role_of(const char *name)
{
    if (pk_str_equal(name, "admin"))
        return PK_ROLE_ADMIN;
    return pk_str_equal(name, "read") ? PK_ROLE_READ : PK_ROLE_NONE;
}

bool pk_serve_role_allows(enum pk_role role, const char *method, const char *path)
{
    if (role == PK_ROLE_ADMIN)
        return true;
    /* Who else has a token, and the shipper's offsets, are nothing for readers. */
    return role == PK_ROLE_READ && strcmp(method, "GET") == 0 &&
           !pk_str_starts(path, "/v1/tokens") && !pk_str_starts(path, "/v1/ingest");
}

/* The stored row of a token, NULL if there is none. hash gets its key. */
static json_t *find_token(struct pk_serve *serve, const char *token, char hash[65])
{
    size_t len = strnlen(token, TOKEN_TEXT_MAX + 1);
    if (len > TOKEN_TEXT_MAX || !pk_str_starts(token, TOKEN_PREFIX))
        return NULL;
    pk_sha256_hex(token, len, hash);
    json_t *row = NULL;
    if (pk_state_get(serve->state, TOKEN_KIND, hash, &row, NULL) < 0)
        return NULL;
    return row;
}

static void note_use(struct pk_serve *serve, const char *hash, json_t *row)
{
    pk_nsec last = 0;
    const char *text = pk_json_string_or(row, "lastUsedAt", "");
    (void)pk_time_parse(text, strlen(text), &last, NULL);
    pk_nsec now = pk_time_now();
    if (now - last < LAST_USED_GRAIN)
        return;
    char when[36];
    (void)json_object_set_new(row, "lastUsedAt",
                              json_string(pk_time_format(now, 0, when, sizeof(when))));
    /* A token that is revoked meanwhile must not come back. */
    pthread_mutex_lock(&serve->token_lock);
    json_t *still = NULL;
    if (pk_state_get(serve->state, TOKEN_KIND, hash, &still, NULL) == 0) {
        json_decref(still);
        (void)pk_state_put(serve->state, TOKEN_KIND, hash, row, NULL);
    }
    pthread_mutex_unlock(&serve->token_lock);
}

static int authorise(struct pk_serve *serve, const struct pk_http_peer *peer, const char *method,
                     const char *path, struct pk_error *err)
{
    if (peer->local) {
        if (peer->uid == 0 || peer->uid == geteuid() || in_group(peer, serve->group))
            return 0;
        char name[64];
        user_name(peer->uid, name, sizeof(name));
        (void)pk_fail(err, PK_E_DENIED, "user %s may not use this server", name);
        if (serve->options->group != NULL)
            return pk_hint(err, "run as root, or become a member of group '%s'",
                           serve->options->group);
        return pk_hint(err, "run as root, or start 'picket serve' with --group");
    }
    if (peer->token == NULL) {
        (void)pk_fail(err, PK_E_DENIED, "no token was sent");
        return pk_hint(err, "make one with 'picket token create NAME' on the server, then use "
                            "--token-file");
    }
    char hash[65];
    PK_JSON row = find_token(serve, peer->token, hash);
    if (row == NULL) {
        (void)pk_fail(err, PK_E_DENIED, "the token is not known");
        return pk_hint(err, "it may have been revoked: 'picket token list' on the server shows "
                            "which ones hold");
    }
    if (!pk_serve_role_allows(role_of(pk_json_string_or(row, "role", "")), method, path)) {
        (void)pk_fail(err, PK_E_DENIED, "token '%s' may only read",
                      pk_json_string_or(row, "name", ""));
        return pk_hint(err, "use a token made with --role admin");
    }
    note_use(serve, hash, row);
    return 0;
}

int pk_serve_authorise(void *arg, const struct pk_http_peer *peer, const char *method,
                       const char *path, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    int r = authorise(serve, peer, method, path, err);
    if (peer->local)
        pk_log(PK_LOG_DEBUG, "serve", "%s %s by uid %u pid %d%s", method, path, (unsigned)peer->uid,
               (int)peer->pid, r < 0 ? ": denied" : "");
    else
        pk_log(PK_LOG_DEBUG, "serve", "%s %s by token%s", method, path, r < 0 ? ": denied" : "");
    return r;
}

void pk_serve_user(struct pk_serve *serve, const struct pk_http_peer *peer, char *out, size_t size)
{
    if (peer->local) {
        user_name(peer->uid, out, size);
        return;
    }
    char hash[65];
    PK_JSON row = peer->token == NULL ? NULL : find_token(serve, peer->token, hash);
    (void)snprintf(out, size, "token %s", pk_json_string_or(row, "name", "?"));
}

/* The key of the row with this name, NULL if there is none; borrowed from rows. */
static const char *key_of_name(json_t *rows, const char *name)
{
    const char *key;
    json_t *row;
    json_object_foreach(rows, key, row)
    {
        if (pk_str_equal(pk_json_string_or(row, "name", NULL), name))
            return key;
    }
    return NULL;
}

static int store_new(struct pk_serve *serve, const char *name, const char *hash, json_t *row,
                     struct pk_error *err)
{
    PK_JSON rows = NULL;
    int r = pk_state_list(serve->state, TOKEN_KIND, &rows, err);
    if (r < 0)
        return r;
    if (key_of_name(rows, name) != NULL) {
        (void)pk_fail(err, PK_E_CONFLICT, "there is a token '%s' already", name);
        return pk_hint(err, "take another name, or 'picket token revoke %s' first", name);
    }
    return pk_state_put(serve->state, TOKEN_KIND, hash, row, err);
}

int pk_serve_token_create(struct pk_serve *serve, const char *name, const char *role,
                          const char *user, char **ret_token, struct pk_error *err)
{
    if (!pk_str_is_name(name, TOKEN_NAME_MAX)) {
        (void)pk_fail(err, PK_E_USAGE, "'%.60s' is not a name for a token", name);
        return pk_hint(err, "use lower-case letters, digits and '-', at most %u of them",
                       TOKEN_NAME_MAX);
    }
    if (role_of(role) == PK_ROLE_NONE) {
        (void)pk_fail(err, PK_E_USAGE, "'%.60s' is not a role", role);
        return pk_hint(err, "use 'admin' or 'read'");
    }
    unsigned char secret[TOKEN_SECRET_BYTES];
    char encoded[sodium_base64_ENCODED_LEN(TOKEN_SECRET_BYTES,
                                           sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
    randombytes_buf(secret, sizeof(secret));
    sodium_bin2base64(encoded, sizeof(encoded), secret, sizeof(secret),
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *token = pk_asprintf(TOKEN_PREFIX "%s", encoded);
    sodium_memzero(secret, sizeof(secret));
    sodium_memzero(encoded, sizeof(encoded));
    if (token == NULL)
        return pk_no_memory(err);

    char hash[65], when[36];
    pk_sha256_hex(token, strlen(token), hash);
    PK_JSON row =
        json_pack("{s:s,s:s,s:s,s:s}", "name", name, "role", role, "createdAt",
                  pk_time_format(pk_time_now(), 0, when, sizeof(when)), "createdBy", user);
    int r;
    if (row == NULL) {
        r = pk_no_memory(err);
    } else {
        pthread_mutex_lock(&serve->token_lock);
        r = store_new(serve, name, hash, row, err);
        pthread_mutex_unlock(&serve->token_lock);
    }
    if (r < 0) {
        sodium_memzero(token, strlen(token));
        pk_free(token);
        return r;
    }
    *ret_token = token;
    return 0;
}

int pk_serve_token_list(struct pk_serve *serve, json_t **ret_list, struct pk_error *err)
{
    PK_JSON rows = NULL;
    int r = pk_state_list(serve->state, TOKEN_KIND, &rows, err);
    if (r < 0)
        return r;
    /* An object by name, so that the answer is sorted whatever the keys' hashes are. */
    struct pk_strv names = { 0 };
    PK_JSON by_name = json_object();
    const char *key;
    json_t *row;
    json_object_foreach(rows, key, row)
    {
        const char *name = pk_json_string_or(row, "name", "");
        if (pk_strv_add(&names, name) < 0 || json_object_set(by_name, name, row) < 0)
            r = PK_E_NOMEM;
    }
    pk_strv_sort(&names);
    PK_JSON list = json_array();
    for (size_t i = 0; i < names.count; i++)
        if (json_array_append(list, json_object_get(by_name, names.list[i])) < 0)
            r = PK_E_NOMEM;
    pk_strv_done(&names);
    if (r < 0 || list == NULL)
        return pk_no_memory(err);
    *ret_list = PK_TAKE(list);
    return 0;
}

int pk_serve_token_revoke(struct pk_serve *serve, const char *name, struct pk_error *err)
{
    pthread_mutex_lock(&serve->token_lock);
    PK_JSON rows = NULL;
    int r = pk_state_list(serve->state, TOKEN_KIND, &rows, err);
    const char *key = r < 0 ? NULL : key_of_name(rows, name);
    if (key != NULL) {
        r = pk_state_put(serve->state, TOKEN_KIND, key, NULL, err);
    } else if (r >= 0) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no token '%.60s'", name);
        r = pk_hint(err, "'picket token list' shows them");
    }
    pthread_mutex_unlock(&serve->token_lock);
    return r;
}
