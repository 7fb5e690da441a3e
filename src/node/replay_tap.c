/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that replay files into a tap. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "node/agent.h"
#include "node/replay.h"

static int not_there(struct pk_error *err, const char *what, const char *name)
{
    return pk_fail(err, PK_E_NOTFOUND, "there is no %s %s on this machine", what, name);
}

static int replay_tap(struct pk_agent *agent, const char *fleet, const char *name,
                      struct pk_tap **ret_tap, struct pk_error *err)
{
    char key[2 * PK_NODE_NAME_MAX + 2];
    struct pk_tap *tap = pk_node_plane_tap(&agent->plane, fleet, name);
    if (tap == NULL) {
        (void)snprintf(key, sizeof(key), "%.63s/%.63s", fleet, name);
        (void)not_there(err, "tap", key);
        return pk_hint(err, "'picket status' lists the taps of a fleet");
    }
    if (tap->kind != PK_TAP_REPLAY) {
        (void)pk_fail(err, PK_E_CONFLICT, "tap %s is the interface %s", tap->key, tap->interface);
        return pk_hint(err, "files are replayed into a tap that the fleet declares with 'replay'");
    }
    *ret_tap = tap;
    return 0;
}

/* A file that is there while a replay runs, so that the next agent can tell what became of it. */
static void marker_path(const struct pk_agent *agent, const struct pk_tap *tap, char out[256])
{
    (void)snprintf(out, 256, "%s/replay.%s", agent->paths.run_dir, tap->interface);
}

int pk_agent_replay_start(struct pk_agent *agent, const char *fleet, const char *name,
                          const json_t *body, json_t **ret_json, struct pk_error *err)
{
    struct pk_replay_options options = { 0 };
    int r = pk_replay_options_parse(body, &options, err);
    if (r < 0)
        return r;
    PK_AGENT_LOCKED(agent);
    struct pk_tap *tap = NULL;
    r = replay_tap(agent, fleet, name, &tap, err);
    if (r == 0 && pk_replay_running(tap->replay)) {
        (void)pk_fail(err, PK_E_CONFLICT, "a replay into tap %s is running", tap->key);
        r = pk_hint(err, "wait for its end, or stop it: picket replay --tap %s --stop", tap->key);
    }
    if (r == 0)
        r = pk_tap_ensure(agent, tap, err);
    struct pk_link send;
    if (r == 0)
        r = pk_link_get(agent->nl, tap->send_name, &send, err);
    struct pk_replay *replay = NULL;
    if (r == 0)
        r = pk_replay_start(&options, tap->send_name, send.ifindex, tap->mtu, &replay, err);
    pk_replay_options_done(&options);
    if (r < 0)
        return r;
    pk_replay_free(tap->replay);
    tap->replay = replay;
    char marker[256];
    marker_path(agent, tap, marker);
    (void)pk_file_write(marker, "", 0, 0600, NULL);
    *ret_json = pk_replay_status(replay);
    return 0;
}

json_t *pk_agent_tap_replay(const struct pk_agent *agent, struct pk_tap *tap)
{
    char marker[256];
    marker_path(agent, tap, marker);
    if (tap->replay == NULL && pk_file_exists(marker))
        tap->replay = pk_replay_lost("the agent was restarted during the replay");
    json_t *status = pk_replay_status(tap->replay);
    if (tap->replay != NULL && !pk_replay_running(tap->replay))
        (void)unlink(marker);
    return status;
}

int pk_agent_replay_status(struct pk_agent *agent, const char *fleet, const char *name,
                           json_t **ret_json, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_tap *tap = NULL;
    int r = replay_tap(agent, fleet, name, &tap, err);
    if (r == 0)
        *ret_json = pk_agent_tap_replay(agent, tap);
    return r;
}

int pk_agent_replay_stop(struct pk_agent *agent, const char *fleet, const char *name,
                         json_t **ret_json, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_tap *tap = NULL;
    int r = replay_tap(agent, fleet, name, &tap, err);
    if (r < 0)
        return r;
    if (tap->replay != NULL)
        pk_replay_stop(tap->replay);
    *ret_json = pk_agent_tap_replay(agent, tap);
    return 0;
}
