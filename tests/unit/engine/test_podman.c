/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Podman engine against a Podman service of its own, with an image of one static program. Needs
 * root and Podman; skipped with a reason without. Storage is the machine's; everything made carries
 * a tag of its own and is removed at the end.
 */
#include "../pk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/paths.h"
#include "base/proc.h"
#include "base/time.h"
#include "catalog/image_internal.h"
#include "conformance.h"
#include "engine/podman/service.h"

static struct {
    struct bench bench;
    char dir[64];
    char image[64];
    struct pk_paths paths;
    struct pk_proc_id service;
    bool started;
} world;

static void let_exit(struct bench *bench, const char *name)
{
    /* "exit 7" does so by itself. */
    (void)bench, (void)name;
}

static void let_write(struct bench *bench, const char *name)
{
    for (int i = 0; i < 200; i++) {
        PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(4096);
        if (bench->engine->ops->logs(bench->engine->self, name, 10, &out, NULL) == 0 &&
            out.data != NULL && strstr(out.data, "line 5\n") != NULL)
            return;
        pk_sleep_ms(20);
    }
    fail_msg("%s wrote nothing", name);
}

static const char *why_not(void)
{
    struct pk_podman_host host;
    if (geteuid() != 0)
        return "needs root";
    if (pk_podman_host_probe(&host, NULL) < 0 || !host.podman)
        return "Podman is not installed";
    if (host.runtime[0] == '\0')
        return "no container runtime works with this machine's cgroups";
    return NULL;
}

static int make_image(void)
{
    char layer[128], archive[128], helper[128];
    snprintf(layer, sizeof(layer), "%s/layer.tar", world.dir);
    snprintf(archive, sizeof(archive), "%s/image.tar", world.dir);
    snprintf(helper, sizeof(helper), "%s/root", world.dir);
    const char *program = getenv("UNIT_HELPER");
    char *data = NULL;
    size_t len;
    if (program == NULL || pk_mkdir_p(helper, 0755, NULL) < 0 ||
        pk_file_read(program, 64u << 20, &data, &len, NULL) < 0)
        return -1;
    snprintf(helper, sizeof(helper), "%s/root/helper", world.dir);
    int r = pk_file_write(helper, data, len, 0755, NULL);
    pk_free(data);

    struct pk_recipe recipe = { 0 };
    pk_strv_add(&recipe.programs, "/helper");
    pk_strv_add(&recipe.command, "/helper");
    pk_strv_add(&recipe.directories, "/data");
    pk_strv_add(&recipe.directories, "/config");
    struct pk_tree tree = { 0 };
    PK_JSON labels = json_object();
    snprintf(helper, sizeof(helper), "%s/root", world.dir);
    struct pk_error err = { 0 };
    if (r == 0)
        r = pk_tree_choose(helper, &recipe, &tree, &err);
    if (r == 0)
        r = pk_tree_write_tar(&tree, helper, layer, &err);
    struct pk_image_meta meta = {
        .name = world.image, .command = &recipe.command, .labels = labels, .created = 1700000000
    };
    if (r == 0)
        r = pk_image_write_archive(layer, &meta, archive, &world.bench.digest, &err);
    pk_tree_done(&tree);
    pk_recipe_done(&recipe);
    if (r == 0) {
        PK_CLEANUP(pk_free_p) char *socket = pk_path_join(world.paths.run_dir, "podman.sock");
        r = pk_podman_image_load(socket, archive, &err);
    }
    if (r < 0)
        print_error("image: %s (%s)\n", err.msg, err.hint);
    return r;
}

static bool answers(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static int start_service(struct pk_error *err)
{
    struct pk_podman_service service;
    int r = pk_podman_service_prepare(&world.paths, &service, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *log = pk_path_join(world.dir, "podman.log");
    struct pk_daemon_options options = { .argv = (const char *const *)service.argv.list,
                                         .env = (const char *const *)service.env.list,
                                         .cwd = world.dir, /* conmon leaves a file "oom" there */
                                         .log_path = log };
    pid_t pid = 0;
    r = pk_proc_spawn_daemon(&options, &pid, err);
    if (r == 0)
        r = pk_proc_id_of(pid, &world.service, err);
    world.started = r == 0;
    for (int i = 0; r == 0 && i < 200 && !answers(service.socket); i++)
        pk_sleep_ms(50);
    pk_podman_service_done(&service);
    return r;
}

static int teardown(void **state)
{
    (void)state;
    struct pk_engine *engine = world.bench.engine;
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    if (engine != NULL && engine->ops->list(engine->self, NULL, &list, &count, NULL) == 0) {
        for (size_t i = 0; i < count; i++)
            engine->ops->remove(engine->self, list[i].name, NULL);
        pk_unit_status_list_free(list, count);
    }
    pk_engine_free(engine);
    pk_engine_free(world.bench.other);
    const char *const argv[] = { "podman", "rmi", "--force", world.image, NULL };
    struct pk_proc_options options = { .argv = argv, .timeout_ms = 60000 };
    int status;
    (void)pk_proc_run(&options, NULL, NULL, &status, NULL);
    if (world.started)
        (void)pk_proc_stop(&world.service, 5000, NULL);
    pk_free(world.bench.digest);
    return pk_rm_rf(world.dir, NULL);
}

static int setup(void **state)
{
    memset(&world, 0, sizeof(world));
    snprintf(world.dir, sizeof(world.dir), "/tmp/pk-engine-XXXXXX");
    struct pk_error err = { 0 };
    if (mkdtemp(world.dir) == NULL || chmod(world.dir, 0755) < 0 ||
        pk_paths_init(world.dir, world.dir, &world.paths, &err) < 0)
        return -1;
    struct bench *bench = &world.bench;
    snprintf(bench->tag, sizeof(bench->tag), "%s", world.paths.tag);
    snprintf(world.image, sizeof(world.image), "localhost/picket/helper-%s:1", bench->tag);
    bench->image = world.image;
    bench->let_exit = let_exit;
    bench->let_write = let_write;
    PK_CLEANUP(pk_free_p) char *socket = pk_path_join(world.dir, "podman.sock");
    *state = bench;
    if (start_service(&err) == 0 && make_image() == 0 &&
        pk_engine_open("podman", socket, bench->tag, &bench->engine, &err) == 0 &&
        pk_engine_podman_new(socket, "pkother", &bench->other, &err) == 0)
        return 0;
    print_error("setup: %s (%s)\n", err.msg, err.hint);
    teardown(state);
    return -1;
}

/* ---- what only a real engine can show ---- */

#define ok(call)                                               \
    do {                                                       \
        struct pk_error err = { 0 };                           \
        int r_ = (call);                                       \
        if (r_ < 0)                                            \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)
#define OP(bench, op, ...) ((bench)->engine->ops->op((bench)->engine->self, ##__VA_ARGS__))

/* A network namespace with one link more, held by a bind mount as the agent does it. */
static void make_netns(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWNET) == 0 &&
                      mount("/proc/self/ns/net", path, NULL, MS_BIND, NULL) == 0
                  ? 0
                  : 1);
    int status = -1;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void add_mount(struct pk_unit *unit, const char *source, const char *target, bool read_only)
{
    struct pk_mount *mounts =
        pk_realloc_array(unit->mounts, unit->mount_count + 1, sizeof(*mounts));
    assert_non_null(mounts);
    unit->mounts = mounts;
    mounts[unit->mount_count++] = (struct pk_mount){ .source = pk_strdup(source),
                                                     .target = pk_strdup(target),
                                                     .read_only = read_only };
}

static void expect_line(const struct pk_buf *out, const char *line)
{
    if (strstr(out->data, line) == NULL)
        fail_msg("no '%s' in:\n%s", line, out->data);
}

static void test_sandbox(void **state)
{
    struct bench *bench = *state;
    char netns[96], data[96];
    snprintf(netns, sizeof(netns), "%s/netns", world.dir);
    snprintf(data, sizeof(data), "%s/data", world.dir);
    make_netns(netns);
    assert_int_equal(pk_mkdir_p(data, 0755, NULL), 0);

    struct pk_unit *unit = unit_new(bench, "box", 0, "show", "a");
    pk_free(unit->netns);
    unit->netns = pk_strdup(netns);
    pk_free(unit->cpuset);
    unit->cpuset = pk_strdup("0");
    add_mount(unit, data, "/data", false);
    add_mount(unit, data, "/config", true);
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(16384);
    for (int i = 0; i < 100; i++) {
        pk_buf_clear(&out);
        ok(OP(bench, logs, unit->name, 100, &out, &err));
        if (out.data != NULL && strstr(out.data, "end\n") != NULL)
            break;
        pk_sleep_ms(50);
    }
    expect_line(&out, "CapEff:\t0000000000002000\n"); /* CAP_NET_RAW alone */
    expect_line(&out, "CapBnd:\t0000000000002000\n");
    expect_line(&out, "NoNewPrivs:\t1\n");
    expect_line(&out, "Seccomp:\t2\n");
    expect_line(&out, "Cpus_allowed_list:\t0\n");
    expect_line(&out, "root read-only\n");
    expect_line(&out, "tmp writable\n");
    expect_line(&out, "data writable\n");
    expect_line(&out, "config read-only\n");
    expect_line(&out, "nofile 64\n");
    expect_line(&out, "link lo\n");

    /* The container is in the namespace that was named. */
    struct pk_unit_status status;
    assert_true(unit_find(bench->engine, unit->name, &status));
    char path[64];
    struct stat inside, named;
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)status.pid);
    assert_int_equal(stat(path, &inside), 0);
    assert_int_equal(stat(netns, &named), 0);
    assert_true(inside.st_ino == named.st_ino);
    unit_status_done(&status);
    ok(OP(bench, remove, unit->name, &err));
    unit_free(unit);
    umount2(netns, MNT_DETACH);
}

static void test_out_of_memory(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "oom", 0, "eat", "a");
    unit->memory_bytes = 16u << 20;
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    unit_wait(bench->engine, unit->name, PK_UNIT_EXITED);
    struct pk_unit_status status;
    assert_true(unit_find(bench->engine, unit->name, &status));
    assert_int_equal(status.exit_code, 128 + SIGKILL);
    /* On version 1 conmon does not always hear of it. */
    struct pk_engine_info info;
    ok(OP(bench, probe, &info, &err));
    if (strcmp(info.cgroups, "v2") == 0)
        assert_true(status.oom_killed);
    unit_status_done(&status);
    ok(OP(bench, remove, unit->name, &err));
    unit_free(unit);
}

static void test_stubborn(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "stub", 0, "stubborn", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    pk_sleep_ms(200);
    pk_nsec before = pk_time_monotonic();
    ok(OP(bench, stop, unit->name, 1000, &err));
    assert_true(pk_time_monotonic() - before < 8 * PK_NSEC_PER_SEC);
    struct pk_unit_status status;
    assert_true(unit_find(bench->engine, unit->name, &status));
    assert_int_equal(status.state, PK_UNIT_EXITED);
    assert_int_equal(status.exit_code, 128 + SIGKILL);
    unit_status_done(&status);
    ok(OP(bench, remove, unit->name, &err));
    unit_free(unit);
}

/* Without conmon nobody tells Podman of the end. */
static void test_monitor_killed(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "forsaken", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    struct pk_unit_status status;
    assert_true(unit_find(bench->engine, unit->name, &status));
    assert_int_equal(status.state, PK_UNIT_RUNNING);
    pid_t first = status.pid;
    char path[64], text[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)first);
    PK_CLEANUP(pk_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    int monitor = 0;
    assert_int_equal(sscanf(strrchr(text, ')'), ") %*c %d", &monitor), 1);
    assert_true(monitor > 1);
    unit_status_done(&status);

    /* It runs on, and is known to. */
    assert_int_equal(kill(monitor, SIGKILL), 0);
    pk_sleep_ms(300);
    assert_true(unit_find(bench->engine, unit->name, &status));
    assert_int_equal(status.state, PK_UNIT_RUNNING);
    assert_false(status.end_unseen);
    unit_status_done(&status);

    assert_int_equal(kill(first, SIGKILL), 0);
    unit_wait(bench->engine, unit->name, PK_UNIT_EXITED);
    assert_true(unit_find(bench->engine, unit->name, &status));
    assert_true(status.end_unseen);
    assert_int_equal(status.pid, 0);
    unit_status_done(&status);

    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    assert_true(unit_find(bench->engine, unit->name, &status));
    assert_int_equal(status.state, PK_UNIT_RUNNING);
    assert_int_not_equal(status.pid, first);
    unit_status_done(&status);
    ok(OP(bench, remove, unit->name, &err));
    unit_free(unit);
}

static void test_foreign(void **state)
{
    /* A container of another instance has the name. */
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "mine", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    struct pk_engine *other = bench->other;
    struct pk_error fault = { 0 };
    assert_int_equal(other->ops->create(other->self, unit, &fault), PK_E_CONFLICT);
    assert_non_null(strstr(fault.hint, "podman rename"));
    assert_int_equal(other->ops->remove(other->self, unit->name, &fault), PK_E_CONFLICT);
    struct pk_unit_status status;
    assert_true(unit_find(bench->engine, unit->name, &status));
    unit_status_done(&status);
    ok(OP(bench, remove, unit->name, &err));
    unit_free(unit);
}

static void test_lane_missing(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "nolane", 0, "run", "a");
    pk_free(unit->netns);
    unit->netns = pk_asprintf("%s/no-such-netns", world.dir);
    struct pk_error fault = { 0 };
    int r = OP(bench, create, unit, &fault);
    if (r == 0)
        r = OP(bench, start, unit->name, &fault);
    assert_int_equal(r, PK_E_NOTFOUND);
    assert_string_not_equal(fault.hint, "");
    ok(OP(bench, remove, unit->name, &err));
    unit_free(unit);
}

static void test_no_service(void **state)
{
    (void)state;
    struct pk_engine *engine = NULL;
    PK_CLEANUP(pk_free_p) char *socket = pk_path_join(world.dir, "nothing.sock");
    assert_int_equal(pk_engine_podman_new(socket, "pk", &engine, NULL), 0);
    struct pk_error err = { 0 };
    struct pk_engine_info info;
    assert_int_equal(engine->ops->probe(engine->self, &info, &err), PK_E_UNREACHABLE);
    assert_non_null(strstr(err.hint, "picket up"));
    bool changed;
    assert_int_equal(engine->ops->wait_change(engine->self, 1000, &changed, &err),
                     PK_E_UNREACHABLE);
    pk_engine_free(engine);
}

int main(void)
{
    const char *reason = why_not();
    if (reason != NULL) {
        printf("1..0 # SKIP %s\n", reason);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sandbox),        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_stubborn),       cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_lane_missing),   cmocka_unit_test(test_no_service),
        cmocka_unit_test(test_monitor_killed),
    };
    int failed = conformance_run("engine podman, conformance", setup, teardown);
    return failed + cmocka_run_group_tests_name("engine podman", tests, setup, teardown);
}
