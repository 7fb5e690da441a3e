/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canaries (base/canary.h): serve knows which tools write them into their logs and has the key; the
 * agent sends them and judges; the shipper reads them. While the shipper is not there the agent is
 * not asked for any: that it is away is another fault than a tool's log.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"

#define AGENT_TIMEOUT_MS 500u
/* The agent forgets after 15 s. */
#define TELL_EVERY (5 * PK_NSEC_PER_SEC)
/* The shipper speaks each two seconds. */
#define SHIPPER_MAX_AGE (10 * PK_NSEC_PER_SEC)
#define LANE_KEY_MAX    160u

int pk_canaries_load(struct pk_manager *manager, struct pk_error *err)
{
    char hex[2 * PK_CANARY_KEY_SIZE + 1];
    PK_JSON row = NULL;
    size_t len = 0;
    manager->canaries_told = json_object();
    if (manager->canaries_told == NULL)
        return pk_no_memory(err);
    int r = pk_state_get(manager->options.state, PK_KIND_CANARY, "key", &row, err);
    if (r < 0 && r != PK_E_NOTFOUND)
        return r;
    if (r >= 0) {
        const char *text = pk_json_string_or(row, "key", "");
        if (sodium_hex2bin(manager->canary_key, sizeof(manager->canary_key), text, strlen(text),
                           NULL, &len, NULL) == 0 &&
            len == sizeof(manager->canary_key))
            return 0;
    }
    if (err != NULL)
        *err = (struct pk_error){ 0 };
    randombytes_buf(manager->canary_key, sizeof(manager->canary_key));
    (void)sodium_bin2hex(hex, sizeof(hex), manager->canary_key, sizeof(manager->canary_key));
    PK_JSON made = json_pack("{s:s}", "key", hex);
    if (made == NULL)
        return pk_no_memory(err);
    return pk_state_put(manager->options.state, PK_KIND_CANARY, "key", made, err);
}

void pk_canary_token_text(const struct pk_manager *manager, const struct pk_unit *unit,
                          char out[PK_CANARY_TOKEN_TEXT])
{
    struct pk_canary_token token;
    pk_canary_token_make(manager->canary_key, unit->fleet, unit->group, unit->lane, &token);
    pk_canary_token_print(&token, out);
}

/* Does the tool write canaries into its log, as it is set up? */
static bool writes_canaries(const struct pk_manager *manager, const struct pk_unit *unit)
{
    const struct pk_package *package = NULL;
    const struct pk_package_version *version = NULL;
    if (pk_catalog_find(manager->options.catalog, unit->package, unit->version, &package, &version,
                        NULL) < 0 ||
        version->canary == PK_CANARY_NONE)
        return false;
    return version->canary_value[0] == '\0' ||
           json_is_true(pk_json_at(unit->values, version->canary_value));
}

/* ---- what came back ---- */

static bool is_known(const struct pk_canaries_seen *seen, uint64_t number)
{
    for (size_t i = 0; i < PK_MIN(seen->count, (uint64_t)PK_CANARIES_KEPT); i++)
        if (seen->numbers[i] == number)
            return true;
    return false;
}

static const struct pk_unit *unit_of(const struct pk_fleet *fleet, const json_t *row)
{
    const struct pk_desired *desired = fleet->desired;
    const char *group = pk_json_string_or(row, "group", "");
    const char *tool = pk_json_string_or(row, "tool", "");
    int64_t lane = pk_json_int_or(row, "lane", -1);
    for (size_t i = 0; desired != NULL && i < desired->unit_count; i++)
        if (desired->units[i].lane == lane && strcmp(desired->units[i].group, group) == 0 &&
            strcmp(desired->units[i].tool, tool) == 0)
            return &desired->units[i];
    return NULL;
}

/* Lock held. */
static void note(struct pk_manager *manager, const json_t *row)
{
    struct pk_fleet *fleet = pk_manager_find(manager, pk_json_string_or(row, "fleet", ""));
    const struct pk_unit *unit = fleet != NULL ? unit_of(fleet, row) : NULL;
    struct pk_runtime *runtime = unit != NULL ? pk_runtime_find(fleet, unit->name) : NULL;
    int64_t number = pk_json_int_or(row, "number", 0);
    if (runtime == NULL || number <= 0 || is_known(&runtime->canaries, (uint64_t)number))
        return;
    struct pk_canaries_seen *seen = &runtime->canaries;
    int64_t delay = pk_json_int_or(row, "delayMs", 0);
    seen->numbers[seen->count++ % PK_CANARIES_KEPT] = (uint64_t)number;
    seen->delay = PK_MIN(PK_MAX(delay, 0), INT64_MAX / PK_NSEC_PER_MS) * PK_NSEC_PER_MS;
}

int pk_manager_canaries(struct pk_manager *manager, const json_t *seen, struct pk_error *err)
{
    const json_t *list = json_object_get(seen, "canaries"), *row;
    size_t i;
    if (!json_is_array(list)) {
        (void)pk_fail(err, PK_E_INVALID, "'canaries' must be a list");
        return pk_hint(err, "only 'picket ship' calls this: is it of the server's version?");
    }
    pk_manager_lock(manager);
    manager->shipper_at = pk_time_monotonic();
    json_array_foreach(list, i, row)
    {
        note(manager, row);
    }
    pk_manager_unlock(manager);
    return 0;
}

/* ---- what the agent is told ---- */

static void add_numbers(json_t *list, const struct pk_canaries_seen *seen)
{
    for (size_t i = 0; i < PK_MIN(seen->count, (uint64_t)PK_CANARIES_KEPT); i++)
        (void)json_array_append_new(list, json_integer((json_int_t)seen->numbers[i]));
}

static void keep_known(json_t *list, const struct pk_canaries_seen *seen)
{
    for (size_t i = json_array_size(list); i-- > 0;)
        if (!is_known(seen, (uint64_t)json_integer_value(json_array_get(list, i))))
            (void)json_array_remove(list, i);
}

/* Numbers that came back from each of the lane's tools that write them, of which the first is
 * given. Lock held. */
static json_t *seen_in_lane(struct pk_manager *manager, struct pk_fleet *fleet, size_t first,
                            pk_nsec *ret_delay)
{
    static const struct pk_canaries_seen none = { 0 };
    const struct pk_desired *desired = fleet->desired;
    const struct pk_unit *lane = &desired->units[first];
    json_t *list = json_array();
    for (size_t i = first; i < desired->unit_count; i++) {
        const struct pk_unit *unit = &desired->units[i];
        if (unit->lane != lane->lane || strcmp(unit->group, lane->group) != 0 ||
            !writes_canaries(manager, unit))
            continue;
        const struct pk_runtime *runtime = pk_runtime_find(fleet, unit->name);
        const struct pk_canaries_seen *seen = runtime != NULL ? &runtime->canaries : &none;
        if (i == first)
            add_numbers(list, seen);
        else
            keep_known(list, seen);
        *ret_delay = PK_MAX(*ret_delay, seen->delay);
    }
    return list;
}

/* One lane's word for the agent, or NULL: said already, or not the first of the lane's tools. Lock
 * held. */
static json_t *word_for(struct pk_manager *manager, struct pk_fleet *fleet, size_t index,
                        pk_nsec now)
{
    const struct pk_desired *desired = fleet->desired;
    const struct pk_unit *unit = &desired->units[index];
    char key[LANE_KEY_MAX], token[PK_CANARY_TOKEN_TEXT];
    pk_nsec delay = 0;
    if (!writes_canaries(manager, unit))
        return NULL;
    for (size_t i = 0; i < index; i++)
        if (desired->units[i].lane == unit->lane &&
            strcmp(desired->units[i].group, unit->group) == 0 &&
            writes_canaries(manager, &desired->units[i]))
            return NULL;
    (void)snprintf(key, sizeof(key), "%.63s/%.63s/%u", unit->fleet, unit->group, unit->lane);
    PK_JSON seen = seen_in_lane(manager, fleet, index, &delay);
    const json_t *told = json_object_get(manager->canaries_told, key);
    if (seen == NULL || (json_equal(json_object_get(told, "seen"), seen) &&
                         now - pk_json_int_or(told, "at", 0) < TELL_EVERY))
        return NULL;
    (void)json_object_set_new(manager->canaries_told, key,
                              json_pack("{s:I,s:O}", "at", (json_int_t)now, "seen", seen));
    pk_canary_token_text(manager, unit, token);
    return json_pack("{s:s,s:{s:s,s:O,s:I}}", "lane", key, "body", "token", token, "seen", seen,
                     "delayMs", (json_int_t)(delay / PK_NSEC_PER_MS));
}

static void tell(struct pk_manager *manager, const json_t *word)
{
    const char *key = pk_json_string_or(word, "lane", "");
    const char *group = strchr(key, '/');
    const char *lane = strrchr(key, '/');
    if (group == NULL || group == lane)
        return;
    /* The agent's own trouble is told elsewhere; it is told again soon. */
    if (pk_fleet_agent_call(
            manager, AGENT_TIMEOUT_MS, "PUT", json_incref(json_object_get(word, "body")), NULL,
            NULL, "/v1/fleets/%.*s/lanes/%s/canary", (int)(group - key), key, group + 1) < 0)
        (void)json_object_del(manager->canaries_told, key);
}

void pk_canaries_tell(struct pk_manager *manager)
{
    pk_nsec now = pk_time_monotonic();
    PK_JSON words = json_array();
    pk_manager_lock(manager);
    bool ships = manager->shipper_at != 0 && now - manager->shipper_at < SHIPPER_MAX_AGE;
    for (size_t f = 0; f < manager->fleet_count && ships; f++) {
        struct pk_fleet *fleet = manager->fleets[f];
        for (size_t i = 0; fleet->desired != NULL && i < fleet->desired->unit_count; i++) {
            json_t *word = word_for(manager, fleet, i, now);
            if (word != NULL)
                (void)json_array_append_new(words, word);
        }
    }
    if (!ships)
        (void)json_object_clear(manager->canaries_told);
    pk_manager_unlock(manager);
    size_t i;
    const json_t *word;
    json_array_foreach(words, i, word)
    {
        tell(manager, word);
    }
}
