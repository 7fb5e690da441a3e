/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's life: lock, rights, plane, API, loop; and the removal without an agent. */
#include "node/node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/rtnetlink.h>
#include <netlink/netlink.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/http.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "node/agent.h"

#define AREA        "node"
#define SWEEP_EVERY (500 * PK_NSEC_PER_MS)
/* For readers that begin, and those whose processes are not known; the end of one that is known is
 * told at once. */
#define READERS_EVERY (20 * PK_NSEC_PER_MS)
/* A tool that is stopped is found within a second. */
#define LOOK_EVERY (200 * PK_NSEC_PER_MS)
/* Links change in bursts: one sweep for all that comes within this time. */
#define SWEEP_SOON (20 * PK_NSEC_PER_MS)

struct daemon {
    struct pk_agent *agent;
    struct pk_loop *loop;
    struct nl_sock *events;
    struct pk_loop_source *soon; /* a sweep that is on its way, or NULL */
};

static int take_lock(const struct pk_paths *paths, int *ret_fd, struct pk_error *err)
{
    char path[sizeof(paths->run_dir) + 16];
    (void)snprintf(path, sizeof(path), "%s/node.lock", paths->run_dir);
    int r = pk_mkdir_p(paths->run_dir, 0755, err);
    if (r < 0)
        return r;
    r = pk_lock_process(path, PK_LOCK_WAIT_MS, ret_fd, err);
    if (r != PK_E_CONFLICT)
        return r;
    (void)pk_wrap(err, "an agent runs already for %s", paths->run_dir);
    return pk_hint(err, "stop it first ('picket down', or 'systemctl stop picket-node'), or give "
                        "this one another --run-dir");
}

/* ---- the loop ---- */

static void sweep(void *arg)
{
    struct daemon *daemon = arg;
    pk_agent_sweep(daemon->agent);
}

static void sweep_once(void *arg)
{
    struct daemon *daemon = arg;
    pk_loop_remove(PK_TAKE(daemon->soon));
    pk_agent_sweep(daemon->agent);
}

static void poll_readers(void *arg)
{
    struct daemon *daemon = arg;
    pk_agent_poll_readers(daemon->agent);
}

static void look_at_lanes(void *arg)
{
    struct daemon *daemon = arg;
    pk_agent_look_at_lanes(daemon->agent);
}

static void on_reader_end(void *arg, int fd, uint32_t revents)
{
    struct daemon *daemon = arg;
    (void)fd;
    (void)revents;
    pk_agent_reader_ended(daemon->agent);
}

static void on_link_event(void *arg, int fd, uint32_t revents)
{
    struct daemon *daemon = arg;
    (void)revents;
    char drain[8192]; /* what changed does not matter, the sweep looks at all */
    ssize_t n;
    do
        n = recv(fd, drain, sizeof(drain), MSG_DONTWAIT);
    while (n > 0 || (n < 0 && (errno == EINTR || errno == ENOBUFS)));
    if (daemon->soon == NULL)
        (void)pk_loop_add_timer(daemon->loop, SWEEP_SOON, 0, sweep_once, daemon, &daemon->soon,
                                NULL);
}

static void on_signal(void *arg, int signo)
{
    struct daemon *daemon = arg;
    pk_log(PK_LOG_INFO, AREA, "signal %d: ending; taps and lanes stay", signo);
    pk_loop_quit(daemon->loop);
}

static int watch_links(struct daemon *daemon, struct pk_error *err)
{
    int r = pk_nl_open(&daemon->events, err);
    if (r < 0)
        return r;
    if (nl_socket_add_memberships(daemon->events, RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR,
                                  RTNLGRP_IPV6_IFADDR, 0) < 0)
        return pk_fail(err, PK_E_IO, "cannot watch the machine's links");
    return pk_loop_add_fd(daemon->loop, nl_socket_get_fd(daemon->events), EPOLLIN, on_link_event,
                          daemon, NULL, err);
}

static int run_loop(struct daemon *daemon, const struct pk_node_options *options,
                    struct pk_error *err)
{
    /* Signals first: threads made later inherit that they are blocked. */
    int r = pk_loop_add_signal(daemon->loop, SIGTERM, on_signal, daemon, NULL, err);
    if (r == 0)
        r = pk_loop_add_signal(daemon->loop, SIGINT, on_signal, daemon, NULL, err);
    if (r == 0)
        r = watch_links(daemon, err);
    if (r < 0)
        return r;
    pk_agent_remove_strays(daemon->agent);
    pk_agent_sweep(daemon->agent);
    pk_agent_poll_readers(daemon->agent);
    r = pk_shunts_start(daemon->agent->shunts, err);
    if (r < 0)
        return r;
    /* Before the API: from then on the plane is behind the lock. */
    pk_log(PK_LOG_INFO, AREA, "agent %s runs: %zu taps, %zu lanes", PICKET_VERSION,
           daemon->agent->plane.tap_count, daemon->agent->plane.lane_count);
    PK_CLEANUP(pk_http_server_stop_p) struct pk_http_server *server = NULL;
    PK_CLEANUP(pk_http_server_stop_p) struct pk_http_server *metrics = NULL;
    r = pk_node_api_start(daemon->agent, options->socket_gid, &server, err);
    if (r == 0 && options->metrics != NULL)
        r = pk_node_metrics_start(daemon->agent, options->metrics, &metrics, err);
    if (r == 0)
        r = pk_loop_add_timer(daemon->loop, SWEEP_EVERY, SWEEP_EVERY, sweep, daemon, NULL, err);
    if (r == 0)
        r = pk_loop_add_timer(daemon->loop, READERS_EVERY, READERS_EVERY, poll_readers, daemon,
                              NULL, err);
    if (r == 0)
        r = pk_loop_add_timer(daemon->loop, LOOK_EVERY, LOOK_EVERY, look_at_lanes, daemon, NULL,
                              err);
    if (r == 0)
        r = pk_loop_add_fd(daemon->loop, daemon->agent->ends_fd, EPOLLIN, on_reader_end, daemon,
                           NULL, err);
    if (r < 0)
        return r;
    return pk_loop_run(daemon->loop, err);
}

int pk_node_run(const struct pk_node_options *options, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int lock = -1;
    int r = pk_node_check_rights(err);
    if (r == 0)
        r = take_lock(&options->paths, &lock, err);
    if (r == 0)
        r = pk_node_drop_rights(err);
    if (r < 0)
        return r;
    (void)signal(SIGPIPE, SIG_IGN);
    PK_CLEANUP(pk_agent_close_p) struct pk_agent *agent = NULL;
    PK_CLEANUP(pk_loop_free_p) struct pk_loop *loop = NULL;
    r = pk_agent_open(&options->paths, &agent, err);
    if (r == 0)
        r = pk_loop_new(&loop, err);
    if (r < 0)
        return r;
    struct daemon daemon = { .agent = agent, .loop = loop };
    r = run_loop(&daemon, options, err);
    pk_nl_close(daemon.events);
    return r;
}

/* ---- without an agent ---- */

static void clear_run_dir(const struct pk_paths *paths)
{
    DIR *dir = opendir(paths->run_dir);
    if (dir == NULL)
        return;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        if (pk_str_starts(entry->d_name, "replay.") || pk_str_equal(entry->d_name, "node.sock") ||
            pk_str_equal(entry->d_name, "node.lock"))
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
}

/* Without the broker's help (its pins are damaged, or the kernel has no BPF): closing the bpffs
 * lets go of all programs, and the rest is links and namespaces. */
static int clean_rest(const struct pk_paths *paths, struct pk_error *err)
{
    char bpf_path[sizeof(paths->run_dir) + 8], prefix[16];
    (void)snprintf(bpf_path, sizeof(bpf_path), "%s/bpf", paths->run_dir);
    (void)snprintf(prefix, sizeof(prefix), "%s-", paths->tag);
    int first = pk_bpffs_unmount(bpf_path, err);
    PK_CLEANUP(pk_nl_close_p) struct nl_sock *nl = NULL;
    int r = pk_nl_open(&nl, first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    if (r == 0)
        r = pk_link_delete_all(nl, paths->tag, NULL, NULL, first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    r = pk_netns_remove_all(prefix, NULL, NULL, first < 0 ? NULL : err);
    return first < 0 ? first : r;
}

int pk_node_clean(const struct pk_paths *paths, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int lock = -1;
    char bpf_path[sizeof(paths->run_dir) + 8], plane_path[sizeof(paths->state_dir) + 32];
    (void)snprintf(bpf_path, sizeof(bpf_path), "%s/bpf", paths->run_dir);
    (void)snprintf(plane_path, sizeof(plane_path), "%s/node/plane.json", paths->state_dir);
    if (!pk_file_exists(plane_path) && !pk_bpffs_mounted(bpf_path)) {
        /* No agent ever ran here, all is cleaned, or both folders were removed by hand. */
        clear_run_dir(paths);
        return geteuid() == 0 ? clean_rest(paths, err) : 0;
    }
    int r = pk_node_check_rights(err);
    if (r == 0)
        r = take_lock(paths, &lock, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_agent_close_p) struct pk_agent *agent = NULL;
    struct pk_error fault = { 0 };
    r = pk_agent_open(paths, &agent, &fault);
    if (r == 0)
        r = pk_agent_delete_all(agent, &fault);
    if (r == 0 || agent != NULL)
        r = pk_broker_remove_all(agent->broker, r < 0 ? NULL : &fault);
    int rest = clean_rest(paths, err);
    if (rest < 0)
        return rest;
    if (r < 0 && agent != NULL) {
        if (err != NULL)
            *err = fault;
        return r;
    }
    if (unlink(plane_path) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "cannot remove %s", plane_path);
    clear_run_dir(paths);
    return 0;
}
