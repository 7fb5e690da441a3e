/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "store/store.h"

struct fixture {
    char dir[64];
    char path[96];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    (void)snprintf(fixture->dir, sizeof(fixture->dir), "/tmp/pk-test-state-XXXXXX");
    if (mkdtemp(fixture->dir) == NULL)
        return -1;
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/fleet.db", fixture->dir);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    int r = pk_rm_rf(fixture->dir, NULL);
    free(fixture);
    return r;
}

static struct pk_state *open_state(const char *path)
{
    struct pk_state *state = NULL;
    struct pk_error err = { 0 };
    int r = pk_state_open(path, &state, &err);
    if (r < 0)
        print_error("%s\n", err.msg);
    assert_int_equal(r, 0);
    return state;
}

static uint64_t begin(struct pk_state *state, char *fleet, char *document)
{
    struct pk_revision revision = { .fleet = fleet,
                                    .user = (char[]){ "ann" },
                                    .reason = (char[]){ "because" },
                                    .document = document,
                                    .plan_id = (char[]){ "0123456789ab" } };
    uint64_t number = 0;
    assert_int_equal(pk_state_revision_begin(state, &revision, &number, NULL), 0);
    return number;
}

static void test_revisions(void **arg)
{
    struct fixture *fixture = *arg;
    struct pk_state *state = open_state(fixture->path);
    char a[] = "a";
    char b[] = "b";
    char one[] = "one: 1\n";
    assert_int_equal(begin(state, a, one), 1);
    assert_int_equal(begin(state, b, one), 1);

    PK_JSON steps = json_pack("[{s:s,s:s}]", "name", "analysis/0", "state", "done");
    assert_int_equal(pk_state_revision_step(state, "a", 1, steps, NULL), 0);
    assert_int_equal(pk_state_revision_finish(state, "a", 1, "applied", "", NULL), 0);
    assert_int_equal(begin(state, a, one), 2);
    assert_int_equal(begin(state, a, one), 3); /* 2 was never finished */
    pk_state_close(state);

    state = open_state(fixture->path); /* all of it is on disk */
    struct pk_revision revision;
    assert_int_equal(pk_state_revision_get(state, "a", 1, &revision, NULL), 0);
    assert_string_equal(revision.outcome, "applied");
    assert_string_equal(revision.user, "ann");
    assert_string_equal(revision.reason, "because");
    assert_string_equal(revision.document, "one: 1\n");
    assert_string_equal(revision.plan_id, "0123456789ab");
    assert_true(json_equal(revision.steps, steps));
    assert_true(revision.finished_at >= revision.created_at);
    pk_revision_done(&revision);

    assert_int_equal(pk_state_revision_get(state, "a", 2, &revision, NULL), 0);
    assert_string_equal(revision.outcome, "interrupted");
    assert_string_equal(revision.detail, "superseded by revision 3");
    pk_revision_done(&revision);
    assert_int_equal(pk_state_revision_get(state, "a", 0, &revision, NULL), 0);
    assert_int_equal(revision.number, 3);
    assert_string_equal(revision.outcome, "applying");
    pk_revision_done(&revision);

    struct pk_revision *list = NULL;
    size_t count = 0;
    assert_int_equal(pk_state_revision_list(state, "a", 0, 2, &list, &count, NULL), 0);
    assert_int_equal(count, 2);
    assert_int_equal(list[0].number, 3);
    assert_int_equal(list[1].number, 2);
    pk_revision_list_free(list, count);
    assert_int_equal(pk_state_revision_list(state, "a", 2, 10, &list, &count, NULL), 0);
    assert_int_equal(count, 1);
    pk_revision_list_free(list, count);

    PK_JSON fleets = NULL;
    assert_int_equal(pk_state_fleets(state, &fleets, NULL), 0);
    PK_JSON want = json_pack("{s:i,s:i}", "a", 3, "b", 1);
    assert_true(json_equal(fleets, want));
    assert_int_equal(pk_state_fleet_remove(state, "a", NULL), 0);
    PK_JSON left = NULL;
    assert_int_equal(pk_state_fleets(state, &left, NULL), 0);
    assert_int_equal(json_object_size(left), 1);
    assert_int_equal(pk_state_revision_get(state, "a", 0, &revision, NULL), 0); /* history stays */
    pk_revision_done(&revision);
    assert_int_equal(begin(state, a, one), 4); /* and numbers are never used twice */
    pk_state_close(state);
}

static void test_missing(void **arg)
{
    struct fixture *fixture = *arg;
    struct pk_state *state = open_state(fixture->path);
    struct pk_revision revision;
    struct pk_error err = { 0 };
    assert_int_equal(pk_state_revision_get(state, "x", 0, &revision, &err), PK_E_NOTFOUND);
    assert_string_equal(err.msg, "fleet x has no revision");
    assert_int_equal(pk_state_revision_get(state, "x", UINT64_MAX, &revision, &err), PK_E_NOTFOUND);
    assert_int_equal(pk_state_revision_finish(state, "x", 7, "applied", "", &err), PK_E_NOTFOUND);
    assert_string_equal(err.msg, "fleet x has no revision 7");
    assert_true(err.hint[0] != '\0');
    PK_JSON steps = json_array();
    assert_int_equal(pk_state_revision_step(state, "x", 7, steps, &err), PK_E_NOTFOUND);
    json_t *value = NULL;
    assert_int_equal(pk_state_get(state, "plan", "x", &value, &err), PK_E_NOTFOUND);
    assert_null(value);
    assert_int_equal(pk_state_fleet_remove(state, "x", &err), 0);
    pk_state_close(state);
}

static void test_documents(void **arg)
{
    struct fixture *fixture = *arg;
    struct pk_state *state = open_state(fixture->path);
    PK_JSON one = json_pack("{s:s}", "text", "quote ' and \xc3\xbc");
    PK_JSON two = json_pack("[i,i]", 1, 2);
    assert_int_equal(pk_state_put(state, "plan", "a", one, NULL), 0);
    assert_int_equal(pk_state_put(state, "plan", "b", one, NULL), 0);
    assert_int_equal(pk_state_put(state, "plan", "b", two, NULL), 0);
    assert_int_equal(pk_state_put(state, "token", "a", two, NULL), 0);
    PK_JSON got = NULL;
    assert_int_equal(pk_state_get(state, "plan", "b", &got, NULL), 0);
    assert_true(json_equal(got, two));
    PK_JSON all = NULL;
    assert_int_equal(pk_state_list(state, "plan", &all, NULL), 0);
    PK_JSON want = json_pack("{s:O,s:O}", "a", one, "b", two);
    assert_true(json_equal(all, want));
    assert_int_equal(pk_state_put(state, "plan", "a", NULL, NULL), 0);
    assert_int_equal(pk_state_put(state, "plan", "a", NULL, NULL), 0);
    json_t *value = NULL;
    assert_int_equal(pk_state_get(state, "plan", "a", &value, NULL), PK_E_NOTFOUND);
    pk_state_close(state);
}

static void write_at(const char *path, off_t offset, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, offset), (ssize_t)len);
    close(fd);
}

static void test_damaged(void **arg)
{
    struct fixture *fixture = *arg;
    char junk[8192];
    memset(junk, 'x', sizeof(junk));
    write_at(fixture->path, 0, junk, sizeof(junk));
    struct pk_state *state = NULL;
    struct pk_error err = { 0 };
    assert_int_equal(pk_state_open(fixture->path, &state, &err), PK_E_IO);
    assert_non_null(strstr(err.msg, "damaged"));
    assert_true(err.hint[0] != '\0');
    assert_null(state);
}

/* A page in the middle overwritten: found when the file is opened, not in the middle of an apply.
 */
static void test_damaged_page(void **arg)
{
    struct fixture *fixture = *arg;
    struct pk_state *state = open_state(fixture->path);
    char name[16];
    char document[2000];
    memset(document, 'd', sizeof(document) - 1);
    document[sizeof(document) - 1] = '\0';
    for (int i = 0; i < 50; i++) {
        (void)snprintf(name, sizeof(name), "fleet-%d", i);
        begin(state, name, document);
    }
    pk_state_close(state); /* the last close writes the log back */
    char junk[4096];
    memset(junk, 0x5a, sizeof(junk));
    struct stat st;
    assert_int_equal(stat(fixture->path, &st), 0);
    for (off_t at = 4096 * 2; at + 4096 <= st.st_size; at += 4096 * 2)
        write_at(fixture->path, at, junk, sizeof(junk));
    struct pk_error err = { 0 };
    state = NULL;
    assert_int_equal(pk_state_open(fixture->path, &state, &err), PK_E_IO);
    assert_non_null(strstr(err.msg, "damaged"));
}

static void test_newer_schema(void **arg)
{
    struct fixture *fixture = *arg;
    pk_state_close(open_state(fixture->path));
    /* user_version is the big-endian number at offset 60 of the file. */
    write_at(fixture->path, 60, "\0\0\3\347", 4);
    struct pk_state *state = NULL;
    struct pk_error err = { 0 };
    assert_int_equal(pk_state_open(fixture->path, &state, &err), PK_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "999"));
}

static void test_no_folder(void **arg)
{
    (void)arg;
    struct pk_state *state = NULL;
    struct pk_error err = { 0 };
    assert_true(pk_state_open("/nonexistent/folder/fleet.db", &state, &err) < 0);
    assert_true(err.msg[0] != '\0');
    assert_null(state);
}

/* A disk that runs full: each call says so, what was there stays, and it goes on with space. */
static void test_disk_full(void **arg)
{
    struct fixture *fixture = *arg;
    if (geteuid() != 0 || mount("none", fixture->dir, "tmpfs", 0, "size=512k") < 0)
        PK_SKIP("needs root to mount a small disk");
    struct pk_state *state = open_state(fixture->path);
    char fleet[] = "a";
    char document[4096];
    memset(document, 'd', sizeof(document) - 1);
    document[sizeof(document) - 1] = '\0';
    struct pk_revision revision = { .fleet = fleet, .document = document };
    struct pk_error err = { 0 };
    uint64_t good = 0;
    int r = 0;
    for (int i = 0; i < 1000 && r >= 0; i++) {
        uint64_t number = 0;
        r = pk_state_revision_begin(state, &revision, &number, &err);
        if (r >= 0)
            good = number;
    }
    assert_int_equal(r, PK_E_NOSPACE);
    assert_true(err.hint[0] != '\0');
    assert_true(good > 3);
    struct pk_revision newest;
    assert_int_equal(pk_state_revision_get(state, fleet, 0, &newest, NULL), 0);
    assert_int_equal(newest.number, good);
    pk_revision_done(&newest);

    assert_int_equal(mount("none", fixture->dir, "tmpfs", MS_REMOUNT, "size=8m"), 0);
    uint64_t number = 0;
    assert_int_equal(pk_state_revision_begin(state, &revision, &number, &err), 0);
    assert_int_equal(number, good + 1);
    pk_state_close(state);
    state = open_state(fixture->path);
    pk_state_close(state);
    assert_int_equal(umount(fixture->dir), 0);
}

/* kill -9 in the middle of writes: what was reported done is there, and the file is sound. */
static void test_killed(void **arg)
{
    struct fixture *fixture = *arg;
    for (int round = 0; round < 8; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(pipes[0]);
            struct pk_state *state = NULL;
            if (pk_state_open(fixture->path, &state, NULL) < 0)
                _exit(1);
            char fleet[] = "k";
            struct pk_revision revision = { .fleet = fleet };
            for (;;) {
                uint64_t number = 0;
                if (pk_state_revision_begin(state, &revision, &number, NULL) < 0)
                    _exit(2);
                if (write(pipes[1], &number, sizeof(number)) != sizeof(number))
                    _exit(3);
            }
        }
        close(pipes[1]);
        uint64_t reported = 0;
        uint64_t number;
        for (int i = 0; i < 3 + round && read(pipes[0], &number, sizeof(number)) > 0; i++)
            reported = number;
        kill(pid, SIGKILL);
        while (read(pipes[0], &number, sizeof(number)) == sizeof(number))
            reported = number;
        close(pipes[0]);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));

        struct pk_state *state = open_state(fixture->path);
        struct pk_revision newest;
        assert_int_equal(pk_state_revision_get(state, "k", 0, &newest, NULL), 0);
        assert_true(newest.number >= reported && newest.number <= reported + 1);
        pk_revision_done(&newest);
        pk_state_close(state);
    }
}

static void *hammer(void *arg)
{
    struct pk_state *state = arg;
    char fleet[] = "t";
    struct pk_revision revision = { .fleet = fleet };
    for (int i = 0; i < 20; i++) {
        uint64_t number = 0;
        if (pk_state_revision_begin(state, &revision, &number, NULL) < 0)
            return state;
    }
    return NULL;
}

static void test_threads(void **arg)
{
    struct fixture *fixture = *arg;
    struct pk_state *state = open_state(fixture->path);
    pthread_t threads[4];
    for (size_t i = 0; i < PK_ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, state), 0);
    for (size_t i = 0; i < PK_ARRAY_SIZE(threads); i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    struct pk_revision newest;
    assert_int_equal(pk_state_revision_get(state, "t", 0, &newest, NULL), 0);
    assert_int_equal(newest.number, 80);
    pk_revision_done(&newest);
    pk_state_close(state);
}

static void test_out_of_memory(void **arg)
{
    struct fixture *fixture = *arg;
    pk_state_close(open_state(fixture->path));
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_state *state = NULL;
        r = pk_state_open(fixture->path, &state, NULL);
        pk_state_close(state);
    });
    struct pk_state *state = open_state(fixture->path);
    char fleet[] = "m";
    char text[] = "x";
    begin(state, fleet, text);
    /* jansson reports some of its own failed allocations as bad syntax: any error will do here. */
    for (unsigned long nth = 1;; nth++) {
        struct pk_revision *list = NULL;
        size_t count = 0;
        pk_alloc_fail_nth(nth);
        r = pk_state_revision_list(state, fleet, 0, 10, &list, &count, NULL);
        bool reached = pk_alloc_count() >= nth;
        pk_alloc_fail_nth(0);
        if (r >= 0)
            pk_revision_list_free(list, count);
        if (!reached)
            break;
        assert_true(r < 0);
        assert_null(list);
    }
    assert_int_equal(r, 0);
    pk_state_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_revisions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_documents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_schema, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };
    return cmocka_run_group_tests_name("store/state", tests, NULL, NULL);
}
