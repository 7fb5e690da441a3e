/* SPDX-License-Identifier: Apache-2.0 */
#include "spec/nic.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

/* A key of taps[].nic: a word, or a number where there is a maximum. */
struct key {
    const char *name;
    size_t at;
    unsigned max; /* of a number; 0 = words only */
    struct {
        const char *word;
        unsigned value;
    } words[3]; /* the first is the default */
};
#define AT(member) offsetof(struct pk_nic_spec, member)

/* clang-format off */
static const struct key keys[] = {
    { "rings", AT(rings), PK_NIC_RINGS_MAX,
      { { "auto", PK_NIC_AUTO }, { "max", PK_NIC_MAX }, { "keep", PK_NIC_KEEP } } },
    { "queues", AT(queues), PK_NIC_QUEUES_MAX, { { "keep", 0 } } },
    { "symmetricHash", AT(no_symmetric_hash), 0, { { "auto", 0 }, { "off", 1 } } },
    { "vlanOffload", AT(vlan), 0, { { "auto", PK_NIC_BY_KIND }, { "off", PK_NIC_OFF }, { "keep", PK_NIC_LEAVE } } },
    { "mergeOffloads", AT(merge), 0, { { "auto", PK_NIC_BY_KIND }, { "off", PK_NIC_OFF }, { "keep", PK_NIC_LEAVE } } },
    { "flowControl", AT(pause), 0, { { "auto", PK_NIC_BY_KIND }, { "off", PK_NIC_OFF }, { "keep", PK_NIC_LEAVE } } },
    { "coalescing", AT(coalesce), PK_NIC_COALESCE_MAX,
      { { "keep", PK_NIC_COALESCE_KEEP }, { "adaptive", PK_NIC_COALESCE_ADAPTIVE } } },
};
/* clang-format on */

static unsigned *value_of(struct pk_nic_spec *spec, const struct key *key)
{
    return (unsigned *)(void *)((char *)spec + key->at);
}

json_t *pk_nic_spec_to_json(const struct pk_nic_spec *spec)
{
    struct pk_nic_spec copy = *spec;
    PK_JSON json = json_object();
    for (size_t i = 0; i < PK_ARRAY_SIZE(keys); i++) {
        unsigned value = *value_of(&copy, &keys[i]);
        if (value == keys[i].words[0].value)
            continue;
        json_t *item = NULL;
        for (size_t w = 1; w < 3 && item == NULL; w++)
            if (keys[i].words[w].word != NULL && keys[i].words[w].value == value)
                item = json_string(keys[i].words[w].word);
        if (item == NULL)
            item = json_integer(value);
        if (json_object_set_new(json, keys[i].name, item) < 0)
            return NULL;
    }
    return PK_TAKE(json);
}

static int parse_key(const struct key *key, const json_t *json, unsigned *ret_value,
                     struct pk_error *err)
{
    for (size_t w = 0; w < 3 && json_is_string(json); w++)
        if (key->words[w].word != NULL &&
            pk_str_equal(key->words[w].word, json_string_value(json))) {
            *ret_value = key->words[w].value;
            return 0;
        }
    json_int_t number = json_is_integer(json) ? json_integer_value(json) : 0;
    if (number >= 1 && number <= (json_int_t)key->max) {
        *ret_value = (unsigned)number;
        return 0;
    }
    (void)pk_fail(err, PK_E_INVALID, "nic: '%s' is none of what it can be", key->name);
    char words[64] = "";
    for (size_t w = 0; w < 3; w++)
        if (key->words[w].word != NULL)
            (void)snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s\"%s\"",
                           w > 0 ? ", " : "", key->words[w].word);
    if (key->max == 0)
        return pk_hint(err, "write one of %s", words);
    return pk_hint(err, "write one of %s, or a number from 1 to %u", words, key->max);
}

int pk_nic_spec_parse(const json_t *json, struct pk_nic_spec *ret_spec, struct pk_error *err)
{
    struct pk_nic_spec spec = { 0 };
    const char *names[PK_ARRAY_SIZE(keys)], *name;
    for (size_t i = 0; i < PK_ARRAY_SIZE(keys); i++)
        names[i] = keys[i].name;
    if (json != NULL && !json_is_object(json))
        return pk_fail(err, PK_E_INVALID, "nic: not an object");
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)json, name, item)
    {
        size_t i = 0;
        while (i < PK_ARRAY_SIZE(keys) && strcmp(keys[i].name, name) != 0)
            i++;
        if (i == PK_ARRAY_SIZE(keys)) {
            const char *meant = pk_str_closest(name, names, PK_ARRAY_SIZE(names));
            (void)pk_fail(err, PK_E_INVALID, "nic: unknown key '%.40s'", name);
            return pk_hint(err, "did you mean '%s'?", meant != NULL ? meant : "rings");
        }
        int r = parse_key(&keys[i], item, value_of(&spec, &keys[i]), err);
        if (r < 0)
            return r;
    }
    *ret_spec = spec;
    return 0;
}

struct pk_nic_spec pk_nic_resolve(const struct pk_nic_spec *spec, bool shared)
{
    struct pk_nic_spec resolved = *spec;
    unsigned *const choices[] = { &resolved.vlan, &resolved.merge, &resolved.pause };
    for (size_t i = 0; i < PK_ARRAY_SIZE(choices); i++)
        if (*choices[i] == PK_NIC_BY_KIND)
            *choices[i] = shared ? PK_NIC_LEAVE : PK_NIC_OFF;
    if (resolved.rings == PK_NIC_AUTO)
        resolved.rings = shared ? PK_NIC_KEEP : PK_NIC_MAX;
    if (shared)
        resolved.no_symmetric_hash = 1;
    return resolved;
}

/* ---- facts ---- */

json_t *pk_nic_facts_to_json(const struct pk_nic_facts *facts)
{
    return json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:i,s:I,s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:I}", "driver",
        facts->driver, "rings", (json_int_t)facts->rings, "ringsMax", (json_int_t)facts->rings_max,
        "queues", (json_int_t)facts->queues, "queuesMax", (json_int_t)facts->queues_max, "hash",
        (int)facts->hash, "hashKeyBytes", (json_int_t)facts->hash_key_size, "toeplitz",
        facts->hash_toeplitz, "vlanOffload", facts->vlan, "gro", facts->gro, "lro", facts->lro,
        "hasFlowControl", facts->has_pause, "rxPause", facts->pause_rx, "txPause", facts->pause_tx,
        "hasCoalescing", facts->has_coalesce, "adaptive", facts->coalesce_adaptive,
        "coalesceMicroseconds", (json_int_t)facts->coalesce_usecs);
}

static unsigned number(const json_t *json, const char *key)
{
    int64_t value = pk_json_int_or(json, key, 0);
    return value > 0 && value < UINT32_MAX ? (unsigned)value : 0;
}

void pk_nic_facts_from_json(const json_t *json, struct pk_nic_facts *ret_facts)
{
    unsigned hash = number(json, "hash");
    *ret_facts = (struct pk_nic_facts){
        .rings = number(json, "rings"),
        .rings_max = number(json, "ringsMax"),
        .queues = number(json, "queues"),
        .queues_max = number(json, "queuesMax"),
        .hash = hash <= PK_NIC_HASH_XOR ? (enum pk_nic_hash)hash : PK_NIC_HASH_NONE,
        .hash_key_size = number(json, "hashKeyBytes"),
        .hash_toeplitz = pk_json_bool_or(json, "toeplitz", false),
        .vlan = pk_json_bool_or(json, "vlanOffload", false),
        .gro = pk_json_bool_or(json, "gro", false),
        .lro = pk_json_bool_or(json, "lro", false),
        .has_pause = pk_json_bool_or(json, "hasFlowControl", false),
        .pause_rx = pk_json_bool_or(json, "rxPause", false),
        .pause_tx = pk_json_bool_or(json, "txPause", false),
        .has_coalesce = pk_json_bool_or(json, "hasCoalescing", false),
        .coalesce_adaptive = pk_json_bool_or(json, "adaptive", false),
        .coalesce_usecs = number(json, "coalesceMicroseconds"),
    };
    (void)snprintf(ret_facts->driver, sizeof(ret_facts->driver), "%.32s",
                   pk_json_string_or(json, "driver", ""));
}

/* ---- what is to be changed ---- */

const char *pk_nic_setting_name(enum pk_nic_setting setting)
{
    static const char *const names[PK_NIC_SETTINGS] = {
        [PK_NIC_QUEUES] = "receive queues",
        [PK_NIC_RINGS] = "receive rings",
        [PK_NIC_HASH] = "receive hash",
        [PK_NIC_VLAN] = "rx-vlan-offload",
        [PK_NIC_GRO] = "gro",
        [PK_NIC_LRO] = "lro",
        [PK_NIC_PAUSE] = "flow control",
        [PK_NIC_COALESCE] = "interrupt coalescing",
    };
    return names[setting];
}

struct list {
    struct pk_nic_change *changes;
    size_t count;
};

static struct pk_nic_change *add(struct list *list, enum pk_nic_setting setting, unsigned value)
{
    struct pk_nic_change *change = &list->changes[list->count++];
    *change = (struct pk_nic_change){ .setting = setting, .value = value };
    return change;
}

#define TEXT(member, ...) (void)snprintf((member), sizeof(member), __VA_ARGS__)

static void want_queues(struct list *list, const struct pk_nic_spec *spec,
                        const struct pk_nic_facts *facts)
{
    if (spec->queues == 0 || spec->queues == facts->queues)
        return;
    struct pk_nic_change *change = add(list, PK_NIC_QUEUES, spec->queues);
    TEXT(change->from, "%u", facts->queues);
    TEXT(change->to, "%u", spec->queues);
    if (facts->queues_max == 0)
        TEXT(change->why_not, "the driver does not let the number of queues be set");
    else if (spec->queues > facts->queues_max)
        TEXT(change->why_not, "the interface has at most %u queues", facts->queues_max);
}

static void want_rings(struct list *list, const struct pk_nic_spec *spec,
                       const struct pk_nic_facts *facts)
{
    unsigned wanted = spec->rings == PK_NIC_MAX ? facts->rings_max : spec->rings;
    if (spec->rings == PK_NIC_KEEP || (facts->rings_max != 0 && wanted == facts->rings))
        return;
    struct pk_nic_change *change = add(list, PK_NIC_RINGS, wanted);
    TEXT(change->from, "%u", facts->rings);
    TEXT(change->to, "%u", wanted);
    if (facts->rings_max == 0) {
        TEXT(change->from, "?");
        if (spec->rings == PK_NIC_MAX)
            TEXT(change->to, "max");
        TEXT(change->why_not, "the driver has no ring sizes to set");
    } else if (wanted > facts->rings_max) {
        TEXT(change->why_not, "the interface has at most %u entries", facts->rings_max);
    }
}

static void want_hash(struct list *list, const struct pk_nic_spec *spec,
                      const struct pk_nic_facts *facts)
{
    unsigned queues = spec->queues != 0 ? spec->queues : facts->queues;
    bool symmetric = facts->hash == PK_NIC_HASH_KEY || facts->hash == PK_NIC_HASH_XOR;
    if (spec->no_symmetric_hash != 0 || queues <= 1 || symmetric)
        return; /* with one queue both directions are in order by themselves */
    struct pk_nic_change *change = add(list, PK_NIC_HASH, 0);
    TEXT(change->from, facts->hash == PK_NIC_HASH_NONE ? "unknown" : "one-sided");
    TEXT(change->to, "symmetric");
    if (facts->hash == PK_NIC_HASH_NONE)
        TEXT(change->why_not, "the driver does not let its hash be set: both directions of a flow "
                              "may come through two queues, out of order");
}

static void want_off(struct list *list, enum pk_nic_setting setting, bool on)
{
    if (!on)
        return;
    struct pk_nic_change *change = add(list, setting, 0);
    TEXT(change->from, "on");
    TEXT(change->to, "off");
}

static void want_coalesce(struct list *list, const struct pk_nic_spec *spec,
                          const struct pk_nic_facts *facts)
{
    bool adaptive = spec->coalesce == PK_NIC_COALESCE_ADAPTIVE;
    if (spec->coalesce == PK_NIC_COALESCE_KEEP ||
        (facts->has_coalesce && facts->coalesce_adaptive == adaptive &&
         (adaptive || facts->coalesce_usecs == spec->coalesce)))
        return;
    struct pk_nic_change *change = add(list, PK_NIC_COALESCE, spec->coalesce);
    if (facts->coalesce_adaptive)
        TEXT(change->from, "adaptive");
    else
        TEXT(change->from, "%u us", facts->coalesce_usecs);
    if (adaptive)
        TEXT(change->to, "adaptive");
    else
        TEXT(change->to, "%u us", spec->coalesce);
    if (!facts->has_coalesce) {
        TEXT(change->from, "?");
        TEXT(change->why_not, "the driver has no interrupt coalescing to set");
    }
}

size_t pk_nic_changes(const struct pk_nic_spec *spec, const struct pk_nic_facts *facts,
                      struct pk_nic_change changes[PK_NIC_SETTINGS])
{
    /* The queues first: a driver may set rings and hash back when their number changes. */
    struct list list = { .changes = changes };
    want_queues(&list, spec, facts);
    want_rings(&list, spec, facts);
    want_hash(&list, spec, facts);
    if (spec->vlan == PK_NIC_OFF)
        want_off(&list, PK_NIC_VLAN, facts->vlan);
    if (spec->merge == PK_NIC_OFF)
        want_off(&list, PK_NIC_GRO, facts->gro);
    /* Merged by the NIC, packets cannot be told apart again, and drivers refuse XDP with it. */
    want_off(&list, PK_NIC_LRO, facts->lro);
    if (spec->pause == PK_NIC_OFF)
        want_off(&list, PK_NIC_PAUSE, facts->has_pause && (facts->pause_rx || facts->pause_tx));
    want_coalesce(&list, spec, facts);
    return list.count;
}

static void differs_on(struct list *list, enum pk_nic_setting setting, bool was, bool now)
{
    if (was == now)
        return;
    struct pk_nic_change *change = add(list, setting, 0);
    TEXT(change->from, "%s", was ? "on" : "off");
    TEXT(change->to, "%s", now ? "on" : "off");
}

static void differs_number(struct list *list, enum pk_nic_setting setting, unsigned was,
                           unsigned now)
{
    if (was == now)
        return;
    struct pk_nic_change *change = add(list, setting, now);
    TEXT(change->from, "%u", was);
    TEXT(change->to, "%u", now);
}

size_t pk_nic_compare(const struct pk_nic_facts *was, const struct pk_nic_facts *now,
                      struct pk_nic_change changes[PK_NIC_SETTINGS])
{
    struct list list = { .changes = changes };
    differs_number(&list, PK_NIC_QUEUES, was->queues, now->queues);
    differs_number(&list, PK_NIC_RINGS, was->rings, now->rings);
    bool one_sided = was->hash == PK_NIC_HASH_OTHER, one_sided_now = now->hash == PK_NIC_HASH_OTHER;
    if (one_sided != one_sided_now && was->hash != PK_NIC_HASH_NONE &&
        now->hash != PK_NIC_HASH_NONE) {
        struct pk_nic_change *change = add(&list, PK_NIC_HASH, 0);
        TEXT(change->from, one_sided ? "one-sided" : "symmetric");
        TEXT(change->to, one_sided_now ? "one-sided" : "symmetric");
    }
    differs_on(&list, PK_NIC_VLAN, was->vlan, now->vlan);
    differs_on(&list, PK_NIC_GRO, was->gro, now->gro);
    differs_on(&list, PK_NIC_LRO, was->lro, now->lro);
    differs_on(&list, PK_NIC_PAUSE, was->pause_rx || was->pause_tx, now->pause_rx || now->pause_tx);
    if (was->coalesce_adaptive != now->coalesce_adaptive ||
        (!now->coalesce_adaptive && was->coalesce_usecs != now->coalesce_usecs)) {
        struct pk_nic_change *change = add(&list, PK_NIC_COALESCE, now->coalesce_usecs);
        const struct pk_nic_facts *const both[] = { was, now };
        for (size_t i = 0; i < 2; i++) {
            char *text = i == 0 ? change->from : change->to;
            if (both[i]->coalesce_adaptive)
                (void)snprintf(text, sizeof(change->from), "adaptive");
            else
                (void)snprintf(text, sizeof(change->from), "%u us", both[i]->coalesce_usecs);
        }
    }
    return list.count;
}
