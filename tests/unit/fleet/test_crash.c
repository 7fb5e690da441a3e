/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of a manager at random times, many times, while it applies. The agent and the containers
 * outlive it, as in reality. After each kill a new manager must come to what the newest revision
 * says, with nothing left over and nothing twice.
 */
#include "world.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"

#define ROUNDS_DEFAULT 12

/* Documents of different size and content, so that each apply adds, changes and removes. */
static char *document(unsigned variant)
{
    static const char *const tap[] = { "eth7", "eth8" };
    unsigned lanes = 1 + variant % 4;
    return pk_asprintf(
        "apiVersion: picket.dev/v1alpha1\nkind: Fleet\nmetadata:\n  name: edge\n"
        "spec:\n  taps:\n    - name: uplink\n      interface: %s\n"
        "  groups:\n    - name: %s\n      taps: [uplink]\n      lanes: %u\n"
        "      tools:\n        - package: sniffer@%u\n          values: {verbose: %s}\n",
        tap[variant / 2 % 2], variant % 5 == 0 ? "other" : "analysis", lanes, 1 + variant / 3 % 2,
        variant % 2 == 0 ? "true" : "false");
}

/* The child: one life that applies and waits; the parent kills it somewhere in between. */
static void child(struct world *world, unsigned variant)
{
    struct life life;
    struct pk_error err = { 0 };
    uint64_t revision = 0;
    PK_CLEANUP(pk_free_p) char *text = document(variant);
    life_begin(&life, world, NULL);
    for (int i = 0; i < 100; i++) {
        int r = life_apply(&life, text, &revision, &err);
        if (r >= 0)
            break;
        if (r != PK_E_CONFLICT) /* the revision that was cut off is being finished: again */
            fprintf(stderr, "apply: %s\n", err.msg);
        pk_sleep_ms(20);
    }
    for (;;)
        pk_sleep_ms(1000);
}

static size_t files_in(const char *path, const char *ending)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.' && pk_str_ends(entry->d_name, ending))
            count++;
    if (dir != NULL)
        (void)closedir(dir);
    return count;
}

/* What is there is what the newest revision says, exactly. */
static void check(struct life *life, struct world *world)
{
    PK_JSON status = life_wait_state(life, "edge", "converged");
    struct pk_revision revision = { 0 };
    assert_int_equal(pk_state_revision_get(life->state, "edge", 0, &revision, NULL), 0);
    assert_string_equal(revision.outcome, "applied");
    assert_int_equal((uint64_t)pk_json_int_or(status, "revision", 0), revision.number);
    const char *at = strstr(revision.document, "lanes: ");
    assert_non_null(at);
    size_t lanes = strtoul(at + 7, NULL, 10);
    bool eth7 = strstr(revision.document, "interface: eth7") != NULL;
    pk_revision_done(&revision);

    pthread_mutex_lock(&world->lock);
    assert_int_equal(json_object_size(world->lanes), lanes);
    assert_int_equal(json_object_size(world->groups), 1);
    assert_int_equal(json_object_size(world->taps), 1);
    const json_t *tap = json_object_get(world->taps, "edge/uplink");
    assert_string_equal(pk_json_string_or(tap, "interface", ""), eth7 ? "eth7" : "eth8");
    pthread_mutex_unlock(&world->lock);

    char path[256];
    (void)snprintf(path, sizeof(path), "%s/containers", world->dir);
    assert_int_equal(files_in(path, ".json"), lanes);
    /* Folders of units that went have no logs here, so they went too; of those that are, only the
     * present config is left. */
    (void)snprintf(path, sizeof(path), "%s/units", world->paths.state_dir);
    assert_int_equal(files_in(path, ""), lanes);
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    assert_int_equal(life->engine->ops->list(life->engine->self, "edge", &list, &count, NULL), 0);
    assert_int_equal(count, lanes);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(list[i].state, PK_UNIT_RUNNING);
        (void)snprintf(path, sizeof(path), "%s/units/%s/config", world->paths.state_dir,
                       list[i].name);
        assert_int_equal(files_in(path, ""), 1);
    }
    pk_unit_status_list_free(list, count);

    struct pk_revision *history = NULL;
    size_t revisions = 0;
    assert_int_equal(
        pk_state_revision_list(life->state, "edge", 0, 100, &history, &revisions, NULL), 0);
    for (size_t i = 0; i < revisions; i++) {
        assert_int_equal(history[i].number, revisions - i);
        if (strcmp(history[i].outcome, "applied") != 0 &&
            strcmp(history[i].outcome, "interrupted") != 0)
            fail_msg("revision %llu: %s %s", (unsigned long long)history[i].number,
                     history[i].outcome, history[i].detail);
    }
    pk_revision_list_free(history, revisions);
}

static void test_killed_while_applying(void **state)
{
    struct world *world = *state;
    const char *wanted = getenv("PICKET_CRASH_ROUNDS");
    unsigned rounds = wanted != NULL ? (unsigned)strtoul(wanted, NULL, 10) : ROUNDS_DEFAULT;
    const char *given = getenv("PICKET_CRASH_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid();
    print_message("# seed %u\n", seed);
    pk_log_setup(PK_LOG_ERROR, false);
    unsigned cut_off = 0;
    unsigned variant = 0;
    for (unsigned round = 0; round < rounds; round++) {
        /* Forked before this process has a manager; the agent's threads stay with the parent. */
        unsigned kills = 1 + (unsigned)rand_r(&seed) % 3;
        for (unsigned i = 0; i < kills; i++) {
            variant = (unsigned)rand_r(&seed) % 60;
            pid_t pid = fork();
            assert_true(pid >= 0);
            if (pid == 0) {
                child(world, variant);
                _exit(0);
            }
            pk_sleep_ms((unsigned)rand_r(&seed) % 1500);
            assert_int_equal(kill(pid, SIGKILL), 0);
            assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
        struct life life;
        life_begin(&life, world, NULL);
        struct pk_revision revision = { 0 };
        if (pk_state_revision_get(life.state, "edge", 0, &revision, NULL) == 0) {
            cut_off += strcmp(revision.outcome, "applying") == 0;
            pk_revision_done(&revision);
            check(&life, world);
        }
        life_end(&life);
    }
    print_message("# %u of %u rounds took up a revision that was cut off\n", cut_off, rounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_killed_while_applying, world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("fleet/crash", tests, NULL, NULL);
}
