/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "serve/internal.h"

struct fixture {
    char dir[64];
    struct pk_serve_options options;
    struct pk_serve serve;
};

static int set_up(void **state)
{
    struct fixture *f = pk_zalloc(sizeof(*f));
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/picket-test-auth-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    PK_CLEANUP(pk_free_p) char *db = pk_path_join(f->dir, "fleet.db");
    f->serve.options = &f->options;
    f->serve.group = (gid_t)-1;
    assert_int_equal(pthread_mutex_init(&f->serve.token_lock, NULL), 0);
    assert_int_equal(pk_state_open(db, &f->serve.state, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pk_state_close(f->serve.state);
    pthread_mutex_destroy(&f->serve.token_lock);
    assert_int_equal(pk_rm_rf(f->dir, NULL), 0);
    pk_free(f);
    return 0;
}

static int ask(struct fixture *f, const char *token, const char *method, const char *path,
               struct pk_error *err)
{
    const struct pk_http_peer peer = { .token = token };
    return pk_serve_authorise(&f->serve, &peer, method, path, err);
}

static void test_roles(void **state)
{
    (void)state;
    assert_true(pk_serve_role_allows(PK_ROLE_ADMIN, "POST", "/v1/plans"));
    assert_true(pk_serve_role_allows(PK_ROLE_READ, "GET", "/v1/fleets"));
    assert_false(pk_serve_role_allows(PK_ROLE_READ, "POST", "/v1/plans"));
    assert_false(pk_serve_role_allows(PK_ROLE_READ, "DELETE", "/v1/tokens/a"));
    assert_false(pk_serve_role_allows(PK_ROLE_READ, "GET", "/v1/tokens"));
    assert_false(pk_serve_role_allows(PK_ROLE_READ, "GET", "/v1/ingest"));
    assert_false(pk_serve_role_allows(PK_ROLE_NONE, "GET", "/v1/fleets"));
}

static void test_peers(void **state)
{
    struct fixture *f = *state;
    struct pk_error err = { 0 };
    struct pk_http_peer peer = { .local = true, .uid = 0 };
    assert_int_equal(pk_serve_authorise(&f->serve, &peer, "POST", "/v1/plans", &err), 0);
    peer.uid = geteuid();
    assert_int_equal(pk_serve_authorise(&f->serve, &peer, "POST", "/v1/plans", &err), 0);
    peer.uid = 64123; /* nobody's */
    peer.gid = 64123;
    assert_int_equal(pk_serve_authorise(&f->serve, &peer, "GET", "/v1/fleets", &err), PK_E_DENIED);
    assert_string_not_equal(err.hint, "");
    f->options.group = "picket";
    f->serve.group = 64123;
    assert_int_equal(pk_serve_authorise(&f->serve, &peer, "GET", "/v1/fleets", &err), 0);
    f->serve.group = 64124;
    assert_int_equal(pk_serve_authorise(&f->serve, &peer, "GET", "/v1/fleets", &err), PK_E_DENIED);
    assert_non_null(strstr(err.hint, "picket"));
}

static void test_token_life(void **state)
{
    struct fixture *f = *state;
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_free_p) char *reader = NULL;
    PK_CLEANUP(pk_free_p) char *admin = NULL;
    assert_int_equal(pk_serve_token_create(&f->serve, "dash", "read", "root", &reader, &err), 0);
    assert_int_equal(pk_serve_token_create(&f->serve, "ci", "admin", "root", &admin, &err), 0);
    assert_string_not_equal(reader, admin);
    assert_int_equal(strncmp(reader, "picket_", 7), 0);
    assert_int_equal(strlen(reader), 7 + 43); /* 32 random bytes */

    assert_int_equal(ask(f, reader, "GET", "/v1/fleets", &err), 0);
    assert_int_equal(ask(f, reader, "POST", "/v1/plans", &err), PK_E_DENIED);
    assert_int_equal(ask(f, admin, "POST", "/v1/plans", &err), 0);
    assert_int_equal(ask(f, NULL, "GET", "/v1/fleets", &err), PK_E_DENIED);
    assert_int_equal(ask(f, "", "GET", "/v1/fleets", &err), PK_E_DENIED);
    assert_int_equal(ask(f, "picket_", "GET", "/v1/fleets", &err), PK_E_DENIED);

    /* One character changed at each place. */
    for (size_t i = 0; reader[i] != '\0'; i++) {
        PK_CLEANUP(pk_free_p) char *wrong = pk_strdup(reader);
        wrong[i] = wrong[i] == 'x' ? 'y' : 'x';
        assert_int_equal(ask(f, wrong, "GET", "/v1/fleets", &err), PK_E_DENIED);
    }

    char user[80];
    const struct pk_http_peer peer = { .token = admin };
    pk_serve_user(&f->serve, &peer, user, sizeof(user));
    assert_string_equal(user, "token ci");

    PK_JSON list = NULL;
    assert_int_equal(pk_serve_token_list(&f->serve, &list, &err), 0);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(pk_json_string_or(json_array_get(list, 0), "name", ""), "ci");
    assert_string_equal(pk_json_string_or(json_array_get(list, 1), "name", ""), "dash");
    assert_string_not_equal(pk_json_string_or(json_array_get(list, 1), "lastUsedAt", ""), "");

    assert_int_equal(pk_serve_token_revoke(&f->serve, "dash", &err), 0);
    assert_int_equal(ask(f, reader, "GET", "/v1/fleets", &err), PK_E_DENIED);
    assert_int_equal(pk_serve_token_revoke(&f->serve, "dash", &err), PK_E_NOTFOUND);
    assert_int_equal(ask(f, admin, "GET", "/v1/fleets", &err), 0);
}

static void test_token_refusals(void **state)
{
    struct fixture *f = *state;
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_free_p) char *token = NULL;
    static const char *const names[] = {
        "", "Big", "with space", "../x", "a/b", "-a", "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddx"
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        assert_int_equal(pk_serve_token_create(&f->serve, names[i], "read", "root", &token, &err),
                         PK_E_USAGE);
        assert_null(token);
        assert_string_not_equal(err.hint, "");
    }
    assert_int_equal(pk_serve_token_create(&f->serve, "a", "root", "root", &token, &err),
                     PK_E_USAGE);
    assert_int_equal(pk_serve_token_create(&f->serve, "a", "read", "root", &token, &err), 0);
    char *second = NULL;
    assert_int_equal(pk_serve_token_create(&f->serve, "a", "admin", "root", &second, &err),
                     PK_E_CONFLICT);
    assert_null(second);
}

/* The token is nowhere on disk, only its hash. */
static void test_token_is_not_stored(void **state)
{
    struct fixture *f = *state;
    PK_CLEANUP(pk_free_p) char *token = NULL;
    assert_int_equal(pk_serve_token_create(&f->serve, "a", "read", "root", &token, NULL), 0);
    static const char *const files[] = { "fleet.db", "fleet.db-wal" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(files); i++) {
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(f->dir, files[i]);
        PK_CLEANUP(pk_free_p) char *data = NULL;
        size_t len = 0;
        if (pk_file_read(path, 64u << 20, &data, &len, NULL) < 0)
            continue;
        assert_null(memmem(data, len, token + 7, strlen(token) - 7));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roles),
        cmocka_unit_test_setup_teardown(test_peers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_token_life, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_token_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_token_is_not_stored, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
