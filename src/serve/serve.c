/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon: opens the parts in their order, serves, closes them in reverse. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/time.h"
#include "serve/internal.h"
#include "spec/spec.h"

/* Limits of the store until a fleet says otherwise: the defaults of spec's store section. */
#define STORE_RETAIN       (30 * 24 * 3600 * PK_NSEC_PER_SEC)
#define STORE_MAX_BYTES    (50ull << 30)
#define STORE_SEAL_AFTER   (5 * PK_NSEC_PER_SEC)
#define STORE_MEMORY_BYTES (256ull << 20)
/* A batch of the shipper is the largest body. */
#define MAX_BODY (16u << 20)
/* A client that does not read may keep its stream open so much longer. */
#define STREAM_END_MS 2000u

static void close_all(struct pk_serve *serve)
{
    atomic_store(&serve->stopping, true);
    /* Streams see it between two looks for events and end in order. */
    for (unsigned waited = 0; atomic_load(&serve->streams) > 0 && waited < STREAM_END_MS;
         waited += 20)
        pk_sleep_ms(20);
    pk_http_server_stop(serve->server);
    pk_manager_stop(serve->manager);
    pk_events_close(serve->events);
    pk_engine_free(serve->engine);
    pk_state_close(serve->state);
    pk_catalog_free(serve->catalog);
    pthread_mutex_destroy(&serve->token_lock);
    pk_close_p(&serve->lock_fd);
}

static int take_lock(struct pk_serve *serve, struct pk_error *err)
{
    const char *state_dir = serve->options->paths.state_dir;
    PK_CLEANUP(pk_free_p) char *path = pk_path_join(state_dir, "serve.lock");
    if (path == NULL)
        return pk_no_memory(err);
    int r = pk_lock_process(path, PK_LOCK_WAIT_MS, &serve->lock_fd, err);
    if (r == PK_E_CONFLICT)
        (void)pk_wrap(err, "another 'picket serve' has %s", state_dir);
    return r;
}

static int find_group(const char *name, gid_t *ret_gid, struct pk_error *err)
{
    struct group entry, *found = NULL;
    char buffer[8192];
    int sys = getgrnam_r(name, &entry, buffer, sizeof(buffer), &found);
    if (found == NULL) {
        if (sys != 0 && sys != ENOENT)
            return pk_fail_errno(err, sys, "--group %s", name);
        (void)pk_fail(err, PK_E_NOTFOUND, "--group: there is no group '%s'", name);
        return pk_hint(err, "make it with 'groupadd --system %s', or leave --group out", name);
    }
    *ret_gid = found->gr_gid;
    return 0;
}

static int start_http(struct pk_serve *serve, struct pk_error *err)
{
    const struct pk_serve_options *options = serve->options;
    PK_CLEANUP(pk_free_p) char *socket = pk_path_join(options->paths.run_dir, "serve.sock");
    if (socket == NULL)
        return pk_no_memory(err);
    size_t route_count = 0;
    const struct pk_http_route *routes = pk_serve_routes(&route_count);
    struct pk_http_server_options http = {
        .routes = routes,
        .route_count = route_count,
        .arg = serve,
        .socket_path = socket,
        .socket_mode = serve->group == (gid_t)-1 ? 0600 : 0660,
        .socket_gid = serve->group,
        .cert_file = options->cert_file,
        .key_file = options->key_file,
        .max_body = MAX_BODY,
        .authorise = pk_serve_authorise,
    };
    char address[64];
    if (options->listen != NULL) {
        int r = pk_http_parse_listen("--listen", options->listen, NULL, address, sizeof(address),
                                     &http.port, err);
        if (r < 0)
            return r;
        http.address = address;
    }
    return pk_http_server_start(&http, &serve->server, err);
}

static int open_catalog(struct pk_serve *serve, struct pk_error *err)
{
    struct pk_errors errors = { 0 };
    int r = pk_catalog_open(NULL, &serve->catalog, &errors);
    for (size_t i = 0; i < errors.count; i++)
        pk_log_error(PK_LOG_WARN, "serve", &errors.list[i], "a package is left out");
    if (r < 0 && errors.count > 0 && err != NULL)
        *err = errors.list[0];
    else if (r < 0)
        (void)pk_fail(err, r, "cannot open the catalog of packages");
    pk_errors_done(&errors);
    return r;
}

static int open_stores(struct pk_serve *serve, struct pk_error *err)
{
    const char *state_dir = serve->options->paths.state_dir;
    PK_CLEANUP(pk_free_p) char *db = pk_path_join(state_dir, "fleet.db");
    PK_CLEANUP(pk_free_p) char *events = pk_path_join(state_dir, "events");
    if (db == NULL || events == NULL)
        return pk_no_memory(err);
    int r = pk_state_open(db, &serve->state, err);
    if (r >= 0)
        r = pk_mkdir_p(events, 0750, err);
    const struct pk_events_options options = { .dir = events,
                                               .retain = STORE_RETAIN,
                                               .max_bytes = STORE_MAX_BYTES,
                                               .seal_after = STORE_SEAL_AFTER,
                                               .memory_bytes = STORE_MEMORY_BYTES };
    if (r >= 0)
        r = pk_events_open(&options, &serve->events, err);
    return r;
}

static int open_all(struct pk_serve *serve, struct pk_error *err)
{
    const struct pk_serve_options *options = serve->options;
    const struct pk_paths *paths = &options->paths;
    int r = 0;
    if (options->group != NULL)
        r = find_group(options->group, &serve->group, err);
    if (r >= 0)
        r = pk_mkdir_p(paths->state_dir, 0750, err);
    if (r >= 0)
        r = pk_mkdir_p(paths->run_dir, 0755, err);
    if (r >= 0)
        r = take_lock(serve, err);
    if (r >= 0)
        r = open_catalog(serve, err);
    if (r >= 0)
        r = open_stores(serve, err);
    PK_CLEANUP(pk_free_p) char *podman = pk_path_join(paths->run_dir, "podman.sock");
    if (r >= 0 && podman == NULL)
        r = pk_no_memory(err);
    if (r >= 0)
        r = pk_engine_open(options->engine == NULL ? "podman" : options->engine, podman, paths->tag,
                           &serve->engine, err);
    const struct pk_manager_options manager = { .paths = *paths,
                                                .catalog = serve->catalog,
                                                .engine = serve->engine,
                                                .state = serve->state,
                                                .events = serve->events,
                                                .lane_netns = options->lane_netns };
    if (r >= 0)
        r = pk_manager_start(&manager, &serve->manager, err);
    if (r >= 0)
        r = start_http(serve, err);
    return r;
}

static int check_options(const struct pk_serve_options *options, struct pk_error *err)
{
    if (options->listen != NULL && (options->cert_file == NULL || options->key_file == NULL)) {
        (void)pk_fail(err, PK_E_USAGE, "--listen needs --cert and --key: tokens never go in clear");
        return pk_hint(err, "docs/running.md shows how to make a certificate");
    }
    if (options->listen == NULL && (options->cert_file != NULL || options->key_file != NULL)) {
        (void)pk_fail(err, PK_E_USAGE, "--cert and --key go with --listen");
        return pk_hint(err, "add --listen ADDRESS:PORT");
    }
    return 0;
}

static void on_signal(void *arg, int signo)
{
    pk_log(PK_LOG_INFO, "serve", "%s: stopping", signo == SIGINT ? "SIGINT" : "SIGTERM");
    pk_loop_quit(arg);
}

int pk_serve_run(const struct pk_serve_options *options, struct pk_error *err)
{
    struct pk_serve serve = { .options = options, .group = (gid_t)-1, .lock_fd = -1 };
    int r = check_options(options, err);
    if (r < 0)
        return r;
    (void)snprintf(serve.node_url, sizeof(serve.node_url), "unix:%s/node.sock",
                   options->paths.run_dir);
    (void)umask(0027);

    /* The signals are taken before any thread starts, so that all threads have them blocked. */
    PK_CLEANUP(pk_loop_free_p) struct pk_loop *loop = NULL;
    struct pk_loop_source *source = NULL;
    r = pk_loop_new(&loop, err);
    if (r >= 0)
        r = pk_loop_add_signal(loop, SIGTERM, on_signal, loop, &source, err);
    if (r >= 0)
        r = pk_loop_add_signal(loop, SIGINT, on_signal, loop, &source, err);
    if (r < 0)
        return r;

    (void)pthread_mutex_init(&serve.token_lock, NULL);
    r = open_all(&serve, err);
    if (r >= 0) {
        pk_log(PK_LOG_INFO, "serve", "picket %s answers on %s/serve.sock%s%s", PICKET_VERSION,
               options->paths.run_dir, options->listen == NULL ? "" : " and ",
               options->listen == NULL ? "" : options->listen);
        r = pk_loop_run(loop, err);
    }
    close_all(&serve);
    if (r >= 0)
        pk_log(PK_LOG_INFO, "serve", "stopped");
    return r;
}
