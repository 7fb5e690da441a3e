/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/instance.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "broker/internal.h"
#include "packet/filter.h"

/* ---- the setup ---- */

void pk_tap_setup_free(struct pk_tap_setup *setup)
{
    if (setup == NULL)
        return;
    pk_tenants_free(setup->tenants);
    for (size_t i = 0; i < setup->target_count; i++)
        pk_filter_free(setup->targets[i].filter);
    pk_free(setup);
}

static int add_target(struct pk_broker *broker, struct pk_tap_setup *setup,
                      const struct pk_broker_target *from, struct pk_error *err)
{
    int group = from->group_key[0] != '\0' ? PK_FIND(broker->groups, from->group_key) : -1;
    int tenant = pk_tenants_find(setup->tenants, from->tenant);
    size_t same = 0, at = 0;
    if (group < 0) {
        pk_fail(err, PK_E_NOTFOUND, "there is no group %s", from->group_key);
        return pk_hint(err, "a group's lanes are set before its taps are attached");
    }
    if (tenant < 0)
        return pk_fail(err, PK_E_INVALID, "group %s: the tap has no tenant %s", from->group_key,
                       from->tenant);
    for (size_t i = 0; i < setup->target_count; i++) {
        same += setup->targets[i].tenant == (uint32_t)tenant;
        at += setup->targets[i].tenant <= (uint32_t)tenant;
        if (setup->targets[i].group == (uint32_t)group)
            return pk_fail(err, PK_E_INVALID, "group %s is named twice", from->group_key);
    }
    if (same >= PK_BROKER_TARGETS_MAX) {
        pk_fail(err, PK_E_NOSPACE, "more than %u groups get the same packets",
                PK_BROKER_TARGETS_MAX);
        return pk_hint(err, "join some of them: the tools of a group share its lanes");
    }
    struct pk_tap_target *to = &setup->targets[at];
    memmove(to + 1, to, (setup->target_count - at) * sizeof *to);
    *to = (struct pk_tap_target){ .group = (uint32_t)group, .tenant = (uint32_t)tenant };
    if (from->filter != NULL)
        to->filter = pk_filter_ref(from->filter);
    setup->target_count++;
    return 0;
}

int pk_tap_setup_new(struct pk_broker *broker, const struct pk_broker_tap_config *config,
                     struct pk_tap_setup **ret_setup, struct pk_error *err)
{
    PK_CLEANUP(pk_tap_setup_free_p) struct pk_tap_setup *setup = pk_zalloc(sizeof *setup);
    if (setup == NULL)
        return pk_no_memory(err);
    setup->kind = config->kind;
    if (config->tunnel != NULL)
        pk_tunnel_rules_make(config->tunnel, &setup->tunnel);
    int r = pk_tenants_new(config->tenants, config->tenant_count, &setup->tenants, err);
    for (size_t i = 0; i < config->target_count && r >= 0; i++)
        r = add_target(broker, setup, &config->targets[i], err);
    if (r < 0)
        return r;
    *ret_setup = PK_TAKE(setup);
    return 0;
}

/* ---- the plan ---- */

static uint64_t sum(uint64_t sum, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ ((const uint8_t *)data)[i]) * 0x100000001b3u; /* FNV-1a */
    return sum;
}

static bool is_of_group(const struct pk_lane_record *lane, const char *group_key)
{
    size_t len = strlen(group_key);
    return lane->host_ifindex != 0 && strncmp(lane->key, group_key, len) == 0 &&
           lane->key[len] == '/' && strchr(lane->key + len + 1, '/') == NULL;
}

static uint32_t lanes_of(struct pk_broker *broker, uint32_t group, uint16_t lanes[PK_LANES_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PK_LANES_MAX; i++)
        if (is_of_group(&broker->lanes[i], broker->groups[group].key))
            lanes[count++] = (uint16_t)i;
    return count;
}

/* Numbers the combinations of a channel's lanes: a digit per target, 0 = not to this one. */
static void plan_combos(struct pk_broker *broker, struct pk_instance_plan *plan,
                        const struct pk_tap_setup *setup, struct pk_channel *channel)
{
    uint16_t lanes[PK_TARGETS_MAX][PK_LANES_MAX];
    uint32_t counts[PK_TARGETS_MAX];
    uint64_t all = 1;
    for (uint32_t i = 0; i < channel->count; i++) {
        counts[i] = lanes_of(broker, setup->targets[channel->targets + i].group, lanes[i]);
        all *= counts[i] + 1;
        if (all + plan->sizes[PK_OWN_COMBOS] > PK_COMBOS_MAX) {
            channel->ways |= PK_WAY_COPIES;
            return;
        }
    }
    channel->combo = plan->sizes[PK_OWN_COMBOS];
    plan->sizes[PK_OWN_COMBOS] += (uint32_t)all;
    uint32_t stride = 1;
    for (uint32_t i = 0; i < channel->count; i++) {
        for (uint32_t k = 0; k < counts[i]; k++)
            plan->constants.digits[lanes[i][k]] = (k + 1) * stride;
        stride *= counts[i] + 1;
    }
}

/* Have all lanes of the channel the programs of the round, and does the tap keep the order? */
static bool is_round(struct pk_broker *broker, const struct pk_tap_setup *setup,
                     const struct pk_channel *channel)
{
    uint16_t lanes[PK_LANES_MAX];
    if (pk_copier_is_merging(setup->ifindex))
        return false;
    for (uint32_t i = 0; i < channel->count; i++) {
        uint32_t count = lanes_of(broker, setup->targets[channel->targets + i].group, lanes);
        for (uint32_t k = 0; k < count; k++)
            if (!broker->lanes[lanes[k]].round)
                return false;
    }
    return true;
}

static void plan_targets(struct pk_broker *broker, uint32_t tap, const struct pk_tap_setup *setup,
                         struct pk_instance_plan *plan)
{
    struct pk_instance *to = &plan->constants;
    for (uint32_t i = 0; i < setup->tenants->count; i++)
        to->channels[i].counter = pk_tap_tenant_counter(broker, tap, setup->tenants->names[i]);
    to->channels[PK_TENANT_NONE].counter = PK_TENANT_NONE;
    for (size_t i = 0; i < setup->target_count; i++) {
        const struct pk_tap_target *from = &setup->targets[i];
        const struct pk_slots *table = broker->tables[from->group];
        struct pk_channel *channel = &to->channels[from->tenant];
        uint8_t mode = table != NULL ? (uint8_t)table->mode : PK_HASH_OUTER;
        to->targets[i] = (struct pk_target){ .group = (uint8_t)from->group, .mode = mode };
        to->modes |= (uint8_t)(1u << mode);
        to->has_filters |= from->filter != NULL;
        plan->groups |= 1ull << from->group;
        if (channel->count++ == 0)
            channel->targets = (uint16_t)i;
    }
    for (uint32_t i = 0; i < PK_CHANNELS; i++) {
        if (to->channels[i].count < 2)
            continue;
        to->has_several = 1;
        if (is_round(broker, setup, &to->channels[i]))
            to->channels[i].ways |= PK_WAY_ROUND;
        plan_combos(broker, plan, setup, &to->channels[i]);
    }
}

static void plan_sizes(const struct pk_tenants *tenants, struct pk_instance_plan *plan)
{
    for (size_t i = 0; i < tenants->number_count; i++) {
        if (tenants->numbers[i].kind == PK_BY_VLAN)
            plan->sizes[PK_OWN_VLANS] = 4096;
        else
            plan->sizes[PK_OWN_NUMBERS]++;
    }
    for (size_t i = 0; i < tenants->prefix_count; i++)
        plan->sizes[tenants->prefixes[i].family == 4 ? PK_OWN_PREFIXES4 : PK_OWN_PREFIXES6]++;
    for (size_t i = 0; i < PK_OWN_COUNT; i++)
        plan->sizes[i] = PK_MAX(plan->sizes[i], 1u);
}

void pk_instance_plan(struct pk_broker *broker, uint32_t tap, const struct pk_tap_setup *setup,
                      struct pk_instance_plan *ret_plan)
{
    struct pk_instance_plan *plan = ret_plan;
    *plan = (struct pk_instance_plan){ 0 };
    struct pk_instance *to = &plan->constants;
    to->tenants = setup->tenants->shape;
    to->has_tenants = setup->tenants->count > 0;
    to->redirects_frags = pk_plane_redirects_frags();
    plan_targets(broker, tap, setup, plan);
    plan_sizes(setup->tenants, plan);
    plan->needs_copier = !broker->copies_not && (to->has_several || !to->redirects_frags);
    to->copies = plan->needs_copier;

    /* The tenants' selectors are in their shape's number, their order is that of the channels. */
    uint64_t digest = sum(0xcbf29ce484222325u, to, sizeof *to);
    digest = sum(digest, &setup->kind, sizeof setup->kind);
    digest = sum(digest, &setup->tunnel, sizeof setup->tunnel);
    for (size_t i = 0; i < setup->target_count; i++) {
        const char *text =
            setup->targets[i].filter != NULL ? pk_filter_text(setup->targets[i].filter) : "";
        digest = sum(digest, text, strlen(text) + 1);
    }
    for (uint32_t i = 0; i < PK_LANES_MAX; i++)
        if (to->digits[i] != 0)
            digest = sum(digest, &broker->lanes[i].host_ifindex, sizeof(uint32_t));
    plan->digest = digest != 0 ? digest : 1;
}

/* ---- the maps ---- */

static int map_error(struct pk_error *err)
{
    pk_fail_errno(err, errno, "cannot fill a map of the tap's program");
    return pk_hint(err, "the kernel may have no memory left for its maps; see 'picket doctor'");
}

static int fill_numbers(const struct pk_tenants *tenants, const int own[PK_OWN_COUNT],
                        struct pk_error *err)
{
    uint32_t vlans[4096];
    bool has_vlans = (tenants->shape.kinds & PK_BY_VLAN) != 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(vlans); i++)
        vlans[i] = PK_TENANT_NONE;
    for (size_t i = 0; i < tenants->number_count; i++) {
        const struct pk_tenant_number *from = &tenants->numbers[i];
        const uint32_t key[2] = { from->kind, from->number };
        if (from->kind == PK_BY_VLAN)
            vlans[from->number & 4095] = from->tenant;
        else if (bpf_map_update_elem(own[PK_OWN_NUMBERS], key, &from->tenant, BPF_ANY) < 0)
            return map_error(err);
    }
    for (uint32_t i = 0; i < PK_ARRAY_SIZE(vlans) && has_vlans; i++)
        if (bpf_map_update_elem(own[PK_OWN_VLANS], &i, &vlans[i], BPF_ANY) < 0)
            return map_error(err);
    return 0;
}

static int fill_prefixes(const struct pk_tenants *tenants, const int own[PK_OWN_COUNT],
                         struct pk_error *err)
{
    for (size_t i = 0; i < tenants->prefix_count; i++) {
        const struct pk_tenant_prefix *from = &tenants->prefixes[i];
        uint32_t key[5] = { from->bits };
        memcpy(key + 1, from->address, sizeof from->address);
        if (bpf_map_update_elem(own[from->family == 4 ? PK_OWN_PREFIXES4 : PK_OWN_PREFIXES6], key,
                                &from->tenant, BPF_ANY) < 0)
            return map_error(err);
    }
    return 0;
}

/* ---- combinations ---- */

#define AT_ONCE 128u

struct combos {
    struct pk_broker *broker;
    int outer;
    uint32_t keys[AT_ONCE];
    int fds[AT_ONCE];
    uint32_t count;
    bool one_by_one; /* the kernel has no batches of these */
};

static void combos_done(struct combos *combos)
{
    for (uint32_t i = 0; i < combos->count; i++)
        close(combos->fds[i]);
    combos->count = 0;
}

/* One update waits until no program runs any more, a batch does not. */
static int combos_flush(struct combos *combos, struct pk_error *err)
{
    uint32_t done = combos->count;
    int r = 0;
    if (combos->count == 0)
        return 0;
    if (!combos->one_by_one &&
        bpf_map_update_batch(combos->outer, combos->keys, combos->fds, &done, NULL) < 0) {
        if (errno != EINVAL && errno != ENOTSUP && errno != EOPNOTSUPP && errno != 524)
            r = map_error(err);
        combos->one_by_one = true;
    }
    for (uint32_t i = 0; i < combos->count && r >= 0 && combos->one_by_one; i++)
        if (bpf_map_update_elem(combos->outer, &combos->keys[i], &combos->fds[i], BPF_ANY) < 0)
            r = map_error(err);
    combos_done(combos);
    return r;
}

static int combos_add(struct combos *combos, uint32_t key, const uint16_t *lanes, uint32_t count,
                      struct pk_error *err)
{
    int fd = bpf_map_create(BPF_MAP_TYPE_DEVMAP, "pk_combo", 4, 4, count, NULL);
    if (fd < 0)
        return map_error(err);
    combos->keys[combos->count] = key;
    combos->fds[combos->count++] = fd;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t ifindex = combos->broker->lanes[lanes[i]].host_ifindex;
        /* A lane whose interface went gets nothing, as with one target. */
        if (bpf_map_update_elem(fd, &i, &ifindex, BPF_ANY) < 0 && errno != EINVAL &&
            errno != ENODEV)
            return map_error(err);
    }
    return combos->count == AT_ONCE ? combos_flush(combos, err) : 0;
}

static int fill_channel(struct combos *combos, const struct pk_tap_setup *setup,
                        const struct pk_channel *channel, struct pk_error *err)
{
    uint16_t lanes[PK_TARGETS_MAX][PK_LANES_MAX], chosen[PK_TARGETS_MAX];
    uint32_t counts[PK_TARGETS_MAX] = { 0 }, all = 1;
    for (uint32_t i = 0; i < channel->count; i++) {
        counts[i] = lanes_of(combos->broker, setup->targets[channel->targets + i].group, lanes[i]);
        all *= counts[i] + 1;
    }
    for (uint32_t number = 0; number < all; number++) {
        uint32_t rest = number, count = 0;
        for (uint32_t i = 0; i < channel->count; i++) {
            uint32_t digit = rest % (counts[i] + 1);
            rest /= counts[i] + 1;
            if (digit > 0)
                chosen[count++] = lanes[i][digit - 1];
        }
        if (count < 2) /* goes by a redirect to one lane */
            continue;
        int r = combos_add(combos, channel->combo + number, chosen, count, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_combos(struct pk_broker *broker, const struct pk_tap_setup *setup,
                       const struct pk_instance_plan *plan, int outer, struct pk_error *err)
{
    struct combos combos = { .broker = broker, .outer = outer };
    int r = 0;
    for (uint32_t i = 0; i < PK_CHANNELS && r >= 0; i++)
        if (plan->constants.channels[i].count > 1 &&
            !(plan->constants.channels[i].ways & PK_WAY_COPIES))
            r = fill_channel(&combos, setup, &plan->constants.channels[i], err);
    if (r >= 0)
        r = combos_flush(&combos, err);
    combos_done(&combos);
    return r;
}

int pk_instance_load(struct pk_broker *broker, uint32_t tap, const struct pk_tap_setup *setup,
                     const struct pk_instance_plan *plan, int program, int *ret_fd,
                     struct pk_error *err)
{
    int own[PK_OWN_COUNT], fd = -1;
    memset(own, 0xff, sizeof own);
    int r =
        pk_plane_load_tap(broker, (enum pk_plane_program)program, tap, setup, plan, own, &fd, err);
    if (r >= 0)
        r = fill_numbers(setup->tenants, own, err);
    if (r >= 0)
        r = fill_prefixes(setup->tenants, own, err);
    if (r >= 0)
        r = fill_combos(broker, setup, plan, own[PK_OWN_COMBOS], err);
    for (size_t i = 0; i < PK_OWN_COUNT; i++)
        if (own[i] >= 0)
            close(own[i]);
    if (r < 0 && fd >= 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}
