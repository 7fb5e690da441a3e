/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/shunt.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/time.h"
#include "broker/internal.h"

#define PAGE_MIN 256u

static const char *const reasons[PK_SHUNT_REASONS] = {
    [PK_SHUNT_REQUEST] = "request",
    [PK_SHUNT_RULE] = "rule",
    [PK_SHUNT_OVERLOAD] = "overload",
};
static const char *const states[PK_SHUNT_STATES] = {
    [PK_SHUNT_LIVE] = "live",   [PK_SHUNT_IDLE] = "idle",       [PK_SHUNT_TIME] = "time",
    [PK_SHUNT_ENDED] = "ended", [PK_SHUNT_RENEWED] = "renewed", [PK_SHUNT_REMOVED] = "removed",
};

const char *pk_shunt_reason_name(unsigned reason)
{
    return reason < PK_SHUNT_REASONS ? reasons[reason] : "";
}

const char *pk_shunt_state_name(unsigned state)
{
    return state < PK_SHUNT_STATES ? states[state] : "";
}

uint64_t pk_shunt_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * PK_NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

int pk_broker_group_number(struct pk_broker *broker, const char *key)
{
    return key[0] != '\0' ? PK_FIND(broker->groups, key) : -1;
}

const char *pk_broker_group_key(struct pk_broker *broker, unsigned number)
{
    return number < PK_GROUPS_MAX && broker->groups[number].key[0] != '\0'
               ? broker->groups[number].key
               : NULL;
}

/* ---- keys ---- */

bool pk_shunt_key_of(const struct pk_tuple *tuple, unsigned group, struct pk_shunt_key *ret_key,
                     bool *ret_from_b)
{
    size_t len = tuple->family == 4 ? 4 : 16;
    if ((tuple->family != 4 && tuple->family != 6) ||
        (tuple->proto != 6 && tuple->proto != 17 && tuple->proto != 132))
        return false;
    struct pk_flow flow;
    memset(&flow, 0, sizeof flow);
    memcpy(flow.src, tuple->src, len);
    memcpy(flow.dst, tuple->dst, len);
    flow.src_port = htons(tuple->src_port);
    flow.dst_port = htons(tuple->dst_port);
    flow.proto = tuple->proto;
    flow.family = tuple->family;
    memset(ret_key, 0, sizeof *ret_key);
    *ret_from_b = pk_shunt_key_set(ret_key, &flow, group) != 0;
    return true;
}

void pk_shunt_tuple(const struct pk_shunt_key *key, const struct pk_shunt *shunt,
                    struct pk_tuple *ret_tuple)
{
    struct pk_tuple tuple = { .family = key->family, .proto = key->proto };
    bool swap = shunt->from_b != 0;
    size_t len = key->family == 4 ? 4 : 16;
    memcpy(swap ? tuple.dst : tuple.src, key->a, len);
    memcpy(swap ? tuple.src : tuple.dst, key->b, len);
    if (key->proto == 6 || key->proto == 17 || key->proto == 132) {
        tuple.src_port = ntohs(swap ? key->b_port : key->a_port);
        tuple.dst_port = ntohs(swap ? key->a_port : key->b_port);
    }
    *ret_tuple = tuple;
}

/* ---- which groups are looked up ---- */

static int map_error(struct pk_error *err, const char *what)
{
    pk_fail_errno(err, errno, "%s", what);
    return pk_hint(err, "see 'picket doctor'");
}

static uint64_t number(struct pk_broker *broker, uint32_t at)
{
    uint64_t value = 0;
    (void)bpf_map_lookup_elem(broker->maps[PK_MAP_SHUNT_CONTROL], &at, &value);
    return value;
}

uint64_t pk_broker_shunts_groups(struct pk_broker *broker)
{
    return number(broker, PK_SHUNT_GROUPS);
}

uint64_t pk_broker_shunts_refused(struct pk_broker *broker)
{
    return number(broker, PK_SHUNT_REFUSED);
}

static int set_groups(struct pk_broker *broker, uint64_t groups, struct pk_error *err)
{
    if (groups == pk_broker_shunts_groups(broker))
        return 0;
    return pk_map_write(broker, PK_MAP_SHUNT_CONTROL, PK_SHUNT_GROUPS, &groups, err);
}

static int read_rule(struct pk_broker *broker, uint32_t group, struct pk_shunt_rule *ret_rule,
                     struct pk_error *err)
{
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_SHUNT_RULES], &group, ret_rule) < 0)
        return map_error(err, "cannot read the rules of shunts");
    return 0;
}

int pk_broker_shunts_used(struct pk_broker *broker, uint64_t used, struct pk_error *err)
{
    for (uint32_t i = 0; i < PK_GROUPS_MAX; i++) {
        struct pk_shunt_rule rule;
        int r = read_rule(broker, i, &rule, err);
        if (r < 0)
            return r;
        if (rule.on)
            used |= 1ull << i;
    }
    return set_groups(broker, used, err);
}

/* ---- rules ---- */

/* The counters of flows' bytes are there while some rule counts them. */
static int hold_flows(struct pk_broker *broker, struct pk_error *err)
{
    bool wanted = false;
    for (uint32_t i = 0; i < PK_GROUPS_MAX && !wanted; i++) {
        struct pk_shunt_rule rule;
        int r = read_rule(broker, i, &rule, err);
        if (r < 0)
            return r;
        wanted = rule.on && rule.after > 0;
    }
    uint32_t zero = 0, id = 0;
    bool there = bpf_map_lookup_elem(broker->maps[PK_MAP_SHUNT_FLOWS], &zero, &id) == 0 && id != 0;
    if (wanted == there)
        return 0;
    if (!wanted) {
        if (bpf_map_delete_elem(broker->maps[PK_MAP_SHUNT_FLOWS], &zero) < 0 && errno != ENOENT)
            return map_error(err, "cannot let go of the counters of flows");
        return 0;
    }
    PK_CLEANUP(pk_close_p)
    int fd = bpf_map_create(BPF_MAP_TYPE_LRU_HASH, "pk_flows", sizeof(struct pk_shunt_key),
                            sizeof(struct pk_shunt_flow), PK_SHUNT_FLOWS_MAX, NULL);
    if (fd < 0)
        return map_error(err, "cannot make the counters of flows");
    return pk_map_write(broker, PK_MAP_SHUNT_FLOWS, 0, &fd, err);
}

int pk_broker_shunt_rule_set(struct pk_broker *broker, unsigned group,
                             const struct pk_shunt_rule_options *options, struct pk_error *err)
{
    if (group >= PK_GROUPS_MAX || (options != NULL && options->port_count > PK_SHUNT_PORTS))
        return pk_fail(err, PK_E_USAGE, "a shunt's rule has at most %u ports", PK_SHUNT_PORTS);
    struct pk_shunt_rule rule, before;
    memset(&rule, 0, sizeof rule);
    if (options != NULL) {
        rule.on = 1;
        rule.after = options->after;
        rule.life_nsec = options->life_nsec;
        rule.idle_ms = options->idle_ms;
        rule.reason = options->reason;
        rule.port_count = (uint32_t)options->port_count;
        for (size_t i = 0; i < options->port_count; i++)
            rule.ports[i] = htons(options->ports[i]);
    }
    int r = read_rule(broker, group, &before, err);
    if (r < 0)
        return r;
    if (memcmp(&before, &rule, sizeof rule) != 0)
        r = pk_map_write(broker, PK_MAP_SHUNT_RULES, group, &rule, err);
    if (r >= 0)
        r = hold_flows(broker, err);
    if (r >= 0 && rule.on) /* the bit of a rule that goes stays until no entry is left */
        r = set_groups(broker, pk_broker_shunts_groups(broker) | 1ull << group, err);
    return r;
}

/* ---- entries ---- */

static void count_there(struct pk_broker *broker, const struct pk_shunt_key *key,
                        struct pk_shunt_added *added)
{
    struct pk_shunt there;
    if (pk_broker_shunt_get(broker, key, &there) && there.state == PK_SHUNT_LIVE)
        added->known++;
    else
        added->closing++;
}

int pk_broker_shunts_add(struct pk_broker *broker, const struct pk_shunt_request *request,
                         const struct pk_tuple *flows, size_t count, struct pk_shunt_added *added,
                         struct pk_error *err)
{
    if (request->group >= PK_GROUPS_MAX)
        return pk_fail(err, PK_E_NOTFOUND, "there is no such group");
    /* Before the first entry: one that is not looked up would be no shunt. */
    int r = set_groups(broker, pk_broker_shunts_groups(broker) | 1ull << request->group, err);
    if (r < 0)
        return r;
    uint64_t now = pk_shunt_now();
    struct pk_shunt shunt;
    memset(&shunt, 0, sizeof shunt);
    shunt.begin = shunt.last = now;
    shunt.until = now + request->life_nsec;
    shunt.keep = request->keep;
    shunt.idle_ms = request->idle_ms;
    shunt.reason = PK_SHUNT_REQUEST;
    memcpy(shunt.by, request->by, strnlen(request->by, sizeof shunt.by - 1));
    for (size_t i = 0; i < count; i++) {
        struct pk_shunt_key key;
        bool from_b = false;
        if (!pk_shunt_key_of(&flows[i], request->group, &key, &from_b))
            continue;
        shunt.from_b = from_b;
        if (bpf_map_update_elem(broker->maps[PK_MAP_SHUNTS], &key, &shunt, BPF_NOEXIST) == 0)
            added->added++;
        else if (errno == EEXIST)
            count_there(broker, &key, added);
        else if (errno == E2BIG || errno == ENOMEM)
            added->full++;
        else
            return map_error(err, "cannot make a shunt");
    }
    return 0;
}

int pk_shunt_page_init(struct pk_shunt_page *page, size_t size, struct pk_error *err)
{
    *page = (struct pk_shunt_page){ .size = PK_MAX(size, PAGE_MIN) };
    page->keys = pk_zalloc_array(page->size, sizeof *page->keys);
    page->values = pk_zalloc_array(page->size, sizeof *page->values);
    if (page->keys != NULL && page->values != NULL)
        return 0;
    pk_shunt_page_done(page);
    return pk_no_memory(err);
}

void pk_shunt_page_done(struct pk_shunt_page *page)
{
    pk_free(page->keys);
    pk_free(page->values);
    *page = (struct pk_shunt_page){ 0 };
}

/* A batch's token is the number of the bucket to go on with. */
int pk_broker_shunts_read(struct pk_broker *broker, struct pk_shunt_page *page,
                          struct pk_error *err)
{
    uint32_t from = page->next, to = 0, count = (uint32_t)PK_MIN(page->size, UINT32_MAX);
    page->count = 0;
    int r = bpf_map_lookup_batch(broker->maps[PK_MAP_SHUNTS], from != 0 ? &from : NULL, &to,
                                 page->keys, page->values, &count, NULL);
    page->end = r < 0 && errno == ENOENT;
    if (r < 0 && !page->end)
        return map_error(err, "cannot read the shunts");
    page->count = count;
    page->next = page->end ? 0 : to;
    return 0;
}

bool pk_broker_shunt_get(struct pk_broker *broker, const struct pk_shunt_key *key,
                         struct pk_shunt *ret_shunt)
{
    return bpf_map_lookup_elem(broker->maps[PK_MAP_SHUNTS], key, ret_shunt) == 0;
}

static int closer(struct pk_broker *broker, struct pk_error *err)
{
    if (broker->shunt_close >= 0)
        return 0;
    return pk_plane_load(broker, PK_PROGRAM_SHUNT_CLOSE, (struct pk_plane_numbers){ 0 },
                         &broker->shunt_close, err);
}

int pk_broker_shunts_close(struct pk_broker *broker, const struct pk_shunt_key *keys, size_t count,
                           enum pk_shunt_state state, struct pk_error *err)
{
    int r = closer(broker, err);
    PK_CLEANUP(pk_free_p) struct pk_shunt_closing *closing = pk_zalloc(sizeof *closing);
    if (closing == NULL)
        return pk_no_memory(err);
    static const uint8_t frame[64] = { 0 }; /* a program of XDP wants one */
    closing->state = state;
    for (size_t i = 0; i < count && r >= 0; i += PK_SHUNT_BATCH) {
        closing->count = (uint32_t)PK_MIN(count - i, PK_SHUNT_BATCH);
        memcpy(closing->keys, keys + i, closing->count * sizeof *keys);
        r = pk_map_write(broker, PK_MAP_SHUNT_CLOSING, 0, closing, err);
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof frame,
                    .repeat = 1);
        if (r >= 0 && bpf_prog_test_run_opts(broker->shunt_close, &opts) < 0)
            r = map_error(err, "cannot end shunts");
    }
    return r;
}

void pk_broker_shunts_settle(void)
{
    /* A grace period of RCU, in which programs run. Kernels with nohz_full have no such call. */
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
        pk_sleep_ms(50);
}

int pk_broker_shunts_delete(struct pk_broker *broker, const struct pk_shunt_key *keys, size_t count,
                            struct pk_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (bpf_map_delete_elem(broker->maps[PK_MAP_SHUNTS], &keys[i]) < 0 && errno != ENOENT)
            return map_error(err, "cannot delete a shunt");
    return 0;
}
