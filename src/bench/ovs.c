/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open vSwitch with its user-space datapath, as the kernel's module is often not there: a database
 * and a switch of our own, in our namespaces, with their files in our tmpfs. Both end with this
 * process.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/time.h"
#include "bench/internal.h"

#define DIR      BENCH_DIR "/ovs"
#define SOCKET   DIR "/db.sock"
#define PATHS    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define WAIT_MS  10000u
#define GROUP_ID 1u

static const char *const environment[] = { PATHS, "OVS_RUNDIR=" DIR, "OVS_DBDIR=" DIR,
                                           "OVS_LOGDIR=" DIR, NULL };

static int run(struct pk_error *err, const char *const argv[])
{
    struct pk_buf out = PK_BUF_INIT(4096);
    int r = pk_proc_check(
        &(struct pk_proc_options){ .argv = argv, .env = environment, .timeout_ms = WAIT_MS }, &out,
        err);
    pk_buf_done(&out);
    return r;
}
#define RUN(err, ...) run((err), (const char *const[]){ __VA_ARGS__, NULL })

static const char *find(const char *name, char *path, size_t size)
{
    static const char *const folders[] = { "/usr/local/sbin", "/usr/sbin", "/usr/local/bin",
                                           "/usr/bin",        "/sbin",     "/bin" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(folders); i++) {
        snprintf(path, size, "%s/%s", folders[i], name);
        if (access(path, X_OK) == 0)
            return path;
    }
    return NULL;
}

static int start(const char *name, const char *const argv[], pid_t *ret_pid, struct pk_error *err)
{
    char path[128];
    if (find(name, path, sizeof path) == NULL)
        return pk_fail(err, PK_E_UNSUPPORTED, "Open vSwitch is not installed (no %s)", name);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return pk_fail_errno(err, errno, "cannot start %s", name);
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || null < 0)
            _exit(1);
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        execve(path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)environment);
        _exit(127);
    }
    *ret_pid = pid;
    return 0;
}

static int wait_for_socket(struct pk_error *err)
{
    for (unsigned waited = 0; access(SOCKET, F_OK) < 0; waited += 20) {
        if (waited > WAIT_MS)
            return pk_fail(err, PK_E_TIMEOUT, "Open vSwitch's database does not start");
        (void)usleep(20000);
    }
    return 0;
}

static int start_all(struct bench_way *way, struct pk_error *err)
{
    static const char *const database[] = { "ovsdb-server",
                                            DIR "/conf.db",
                                            "--remote=punix:" SOCKET,
                                            "--no-chdir",
                                            "-vconsole:off",
                                            "-vsyslog:off",
                                            NULL };
    static const char *const daemon[] = { "ovs-vswitchd",  "unix:" SOCKET, "--no-chdir",
                                          "-vconsole:off", "-vsyslog:off", NULL };
    char path[128];
    if (find("ovs-vswitchd", path, sizeof path) == NULL)
        return pk_fail(err, PK_E_UNSUPPORTED, "Open vSwitch is not installed (no ovs-vswitchd)");
    if (access("/dev/net/tun", R_OK | W_OK) < 0)
        return pk_fail(err, PK_E_UNSUPPORTED,
                       "Open vSwitch's user-space datapath needs "
                       "/dev/net/tun");
    if (mkdir(DIR, 0700) < 0 && errno != EEXIST)
        return pk_fail_errno(err, errno, "cannot make " DIR);
    (void)unlink(DIR "/conf.db");
    (void)unlink(DIR "/.conf.db.~lock~");
    (void)unlink(SOCKET);
    int r = RUN(err, "ovsdb-tool", "create", DIR "/conf.db",
                "/usr/share/openvswitch/vswitch.ovsschema");
    if (r >= 0)
        r = start("ovsdb-server", database, &way->helpers[0], err);
    if (r >= 0)
        r = wait_for_socket(err);
    if (r >= 0)
        r = RUN(err, "ovs-vsctl", "--db=unix:" SOCKET, "--no-wait", "init");
    if (r >= 0)
        r = start("ovs-vswitchd", daemon, &way->helpers[1], err);
    way->helper = way->helpers[1];
    return r;
}

static int add_port(const char *port, unsigned number, struct pk_error *err)
{
    char wanted[40];
    snprintf(wanted, sizeof wanted, "ofport_request=%u", number);
    return RUN(err, "ovs-vsctl", "--db=unix:" SOCKET, "--timeout=10", "add-port", "br0", port, "--",
               "set", "interface", port, wanted);
}

/* Each packet to each group, and of each group to the lane that its addresses and ports pick. */
static int add_flows(struct bench_rig *rig, struct pk_error *err)
{
    struct pk_buf flow = PK_BUF_INIT(1024);
    int r = RUN(err, "ovs-ofctl", "del-flows", "br0");
    pk_buf_puts(&flow, "in_port=1,actions=");
    for (unsigned group = 0; group < rig->groups && r >= 0; group++) {
        struct pk_buf text = PK_BUF_INIT(1024);
        pk_buf_printf(&text, "group_id=%u,type=select", GROUP_ID + group);
        for (unsigned lane = 0; lane < rig->lanes; lane++)
            pk_buf_printf(&text, ",bucket=output:%u", 2 + group * rig->lanes + lane);
        pk_buf_printf(&flow, "%sgroup:%u", group > 0 ? "," : "", GROUP_ID + group);
        r = text.failed ? pk_no_memory(err)
                        : RUN(err, "ovs-ofctl", "-O", "OpenFlow13", "add-group", "br0", text.data);
        pk_buf_done(&text);
    }
    if (r >= 0)
        r = flow.failed ? pk_no_memory(err)
                        : RUN(err, "ovs-ofctl", "-O", "OpenFlow13", "add-flow", "br0", flow.data);
    pk_buf_done(&flow);
    return r;
}

int bench_ovs_make(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    int r = start_all(way, err);
    if (r >= 0)
        r = RUN(err, "ovs-vsctl", "--db=unix:" SOCKET, "--timeout=10", "add-br", "br0", "--", "set",
                "bridge", "br0", "datapath_type=netdev", "protocols=OpenFlow10,OpenFlow13",
                "fail_mode=secure");
    if (r >= 0)
        r = bench_way_wire(rig, way, err);
    if (r >= 0)
        r = add_port(way->host, 1, err);
    if (r >= 0)
        r = bench_way_containers(rig, way, err);
    for (unsigned i = 0; i < way->container_count && r >= 0; i++)
        r = add_port(way->containers[i].outer, 2 + i, err);
    return r < 0 ? r : add_flows(rig, err);
}
