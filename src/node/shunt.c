/* SPDX-License-Identifier: Apache-2.0 */
#include "node/shunt.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"
#include "broker/broker.h"
#include "node/internal.h"

#define AREA "shunt"
/* A look at all entries takes at most this many steps, one each LOOK_EVERY. */
#define LOOK_STEPS 25u
#define LOOK_EVERY (200 * PK_NSEC_PER_MS)
#define PAGE_SIZE  8192u
/* Less than a page at once where the agent's lock is held: a dead lane waits for it. */
#define LEAVE_SIZE 2048u
#define TOP_MAX    100u
#define TEXT_MAX   (8u << 20)

struct shunt_group {
    bool there;
    bool overload;
    bool leaving;     /* its entries are being taken out, from at on */
    uint32_t at;      /* of a page; 0 = from the start */
    uint64_t dropped; /* of them, without a record */
    char fleet[PK_NODE_NAME_MAX + 1], name[PK_NODE_NAME_MAX + 1];
    struct pk_shunt_spec rule;
    bool log_open;
    struct pk_shunt_log log;
    struct pk_buf text; /* records on their way into the log */
};

struct pk_shunts {
    struct pk_broker *broker;
    struct pk_paths paths;
    uid_t uid; /* who the logs belong to */
    gid_t gid;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    pthread_t thread;
    bool started, ending;
    struct shunt_group groups[PK_BROKER_GROUPS_MAX];
    struct pk_shunt_page page; /* of the look */
    struct pk_shunt_key *over; /* of the page: entries to be taken out */
    uint64_t used;             /* groups that have entries, or may, in this look */
    size_t seen, last_seen;    /* entries, in this look and in the one before */
    bool first_look_done;
    bool told;           /* that records cannot be written */
    uint64_t unrecorded; /* shunts of groups that left, since the agent started */
};

static void unlock_p(struct pk_shunts **shunts)
{
    (void)pthread_mutex_unlock(&(*shunts)->lock);
}
/* Whoever removes many entries does so in batches of a page, and lets others to the lock after
 * each: they may hold the agent's lock meanwhile. */
static void let_others(void)
{
    pk_sleep_ms(1);
}
#define PK_LOCKED(shunts)                                                \
    PK_CLEANUP(unlock_p) PK_UNUSED struct pk_shunts *locked_ = (shunts); \
    (void)pthread_mutex_lock(&(shunts)->lock)

/* ---- groups ---- */

static int name_group(struct pk_shunts *shunts, unsigned number, const char *key,
                      struct pk_error *err)
{
    struct shunt_group *group = &shunts->groups[number];
    const char *slash = strchr(key, '/');
    if (slash == NULL || (size_t)(slash - key) >= sizeof group->fleet ||
        strlen(slash + 1) >= sizeof group->name)
        return pk_fail(err, PK_E_INTERNAL, "'%.80s' is no key of a group", key);
    if (group->there)
        return 0;
    *group = (struct shunt_group){ .there = true, .text = PK_BUF_INIT(TEXT_MAX) };
    memcpy(group->fleet, key, (size_t)(slash - key));
    memcpy(group->name, slash + 1, strlen(slash + 1));
    return 0;
}

static void drop_group(struct shunt_group *group)
{
    pk_shunt_log_done(&group->log);
    pk_buf_done(&group->text);
    *group = (struct shunt_group){ 0 };
}

static int apply_rule(struct pk_shunts *shunts, unsigned number, struct pk_error *err)
{
    const struct shunt_group *group = &shunts->groups[number];
    struct pk_shunt_rule_options options = { .after = PK_SHUNT_OVERLOAD_AFTER,
                                             .idle_ms = PK_SHUNT_IDLE_DEFAULT_S * 1000,
                                             .life_nsec = PK_SHUNT_LIFE_DEFAULT_S *
                                                          (uint64_t)PK_NSEC_PER_SEC,
                                             .reason = PK_SHUNT_OVERLOAD };
    if (!group->overload && !group->rule.on) {
        /* What the rule has left may lie where a look that is under way has been. */
        shunts->used |= pk_broker_shunts_groups(shunts->broker) & 1ull << number;
        return pk_broker_shunt_rule_set(shunts->broker, number, NULL, err);
    }
    /* What is shunted anyway is so under overload too: the smaller of both, but of all ports. */
    if (!group->overload ||
        (group->rule.on && group->rule.port_count == 0 && group->rule.after <= options.after)) {
        options.after = group->rule.after;
        options.idle_ms = group->rule.idle_ms;
        options.reason = PK_SHUNT_RULE;
        options.ports = group->rule.ports;
        options.port_count = group->rule.port_count;
    }
    return pk_broker_shunt_rule_set(shunts->broker, number, &options, err);
}

static int find_key(struct pk_shunts *shunts, const char *fleet, const char *name, char key[160],
                    unsigned *ret_number, struct pk_error *err)
{
    (void)snprintf(key, 160, "%.63s/%.63s", fleet, name);
    int number = pk_broker_group_number(shunts->broker, key);
    if (number < 0) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no group %s", key);
        return pk_hint(err, "make the group first; 'picket status' lists those of a fleet");
    }
    *ret_number = (unsigned)number;
    return 0;
}

int pk_shunts_group_set(struct pk_shunts *shunts, const char *fleet, const char *name,
                        const struct pk_shunt_spec *rule, struct pk_error *err)
{
    PK_LOCKED(shunts);
    char key[160];
    unsigned number = 0;
    int r = find_key(shunts, fleet, name, key, &number, err);
    if (r == 0)
        r = name_group(shunts, number, key, err);
    if (r < 0)
        return r;
    shunts->groups[number].rule = *rule;
    shunts->groups[number].leaving = false;
    return apply_rule(shunts, number, err);
}

int pk_shunts_group_overload(struct pk_shunts *shunts, const char *fleet, const char *name, bool on,
                             struct pk_error *err)
{
    PK_LOCKED(shunts);
    char key[160];
    unsigned number = 0;
    int r = find_key(shunts, fleet, name, key, &number, err);
    if (r == 0)
        r = name_group(shunts, number, key, err);
    if (r < 0 || shunts->groups[number].overload == on)
        return r;
    shunts->groups[number].overload = on;
    return apply_rule(shunts, number, err);
}

/* ---- taking out ---- */

static int open_log(struct pk_shunts *shunts, struct shunt_group *group, struct pk_error *err)
{
    if (group->log_open)
        return 0;
    PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&shunts->paths, group->fleet, group->name);
    if (dir == NULL)
        return pk_no_memory(err);
    int r = pk_shunt_log_open(&group->log, dir, shunts->uid, shunts->gid, err);
    group->log_open = r == 0;
    return r;
}

/* Adds the records of the entries to their groups' texts; what can be deleted afterwards is moved
 * to the front of keys. */
static int tell(struct pk_shunts *shunts, struct pk_shunt_key *keys, size_t count, size_t *ret_told,
                struct pk_error *err)
{
    int64_t offset = pk_shunt_clock_offset();
    size_t told = 0;
    for (size_t i = 0; i < count; i++) {
        const struct pk_shunt_key key = keys[i];
        struct pk_shunt shunt;
        struct shunt_group *group =
            key.group < PK_ARRAY_SIZE(shunts->groups) ? &shunts->groups[key.group] : NULL;
        if (group == NULL || !group->there || !pk_broker_shunt_get(shunts->broker, &key, &shunt) ||
            shunt.state == PK_SHUNT_LIVE)
            continue;
        int r = open_log(shunts, group, err);
        if (r < 0)
            return r;
        if (!pk_shunt_log_knows(&group->log, pk_shunt_record_id(&key, &shunt)))
            pk_shunt_record(&group->text, &key, &shunt, offset);
        keys[told++] = key;
    }
    *ret_told = told;
    return 0;
}

static int write_texts(struct pk_shunts *shunts, struct pk_error *err)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(shunts->groups); i++) {
        struct shunt_group *group = &shunts->groups[i];
        if (group->text.failed)
            return pk_no_memory(err);
        if (group->text.len == 0)
            continue;
        int r = pk_shunt_log_write(&group->log, group->text.data, group->text.len, err);
        if (r < 0)
            return r;
        pk_buf_clear(&group->text);
    }
    return 0;
}

/* Entries that are closed, of which no program knows any more. Reorders keys. */
static int take_out(struct pk_shunts *shunts, struct pk_shunt_key *keys, size_t count,
                    struct pk_error *err)
{
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i += PK_SHUNT_LOG_BATCH) {
        size_t told = 0;
        r = tell(shunts, keys + i, PK_MIN(count - i, PK_SHUNT_LOG_BATCH), &told, err);
        if (r == 0)
            r = write_texts(shunts, err);
        if (r == 0)
            r = pk_broker_shunts_delete(shunts->broker, keys + i, told, err);
    }
    for (size_t i = 0; i < PK_ARRAY_SIZE(shunts->groups); i++) {
        pk_buf_clear(&shunts->groups[i].text);
        if (shunts->groups[i].text.capacity > 65536) {
            pk_buf_done(&shunts->groups[i].text);
            shunts->groups[i].text = PK_BUF_INIT(TEXT_MAX);
        }
    }
    return r;
}

static int close_and_take_out(struct pk_shunts *shunts, struct pk_shunt_key *keys, size_t count,
                              enum pk_shunt_state state, struct pk_error *err)
{
    int r = pk_broker_shunts_close(shunts->broker, keys, count, state, err);
    if (r < 0)
        return r;
    pk_broker_shunts_settle();
    return take_out(shunts, keys, count, err);
}

/* ---- the look at all entries ---- */

/* Stops the page's entries that are over, and finds those that are stopped. */
static int end_over(struct pk_shunts *shunts, size_t *ret_count, struct pk_error *err)
{
    const struct pk_shunt_page *page = &shunts->page;
    uint64_t now = pk_shunt_now();
    size_t count = 0;
    for (unsigned state = PK_SHUNT_LIVE; state < PK_SHUNT_STATES; state++) {
        size_t first = count;
        for (size_t i = 0; i < page->count; i++) {
            const struct pk_shunt *shunt = &page->values[i];
            unsigned over = shunt->state == PK_SHUNT_LIVE ? pk_shunt_is_over(shunt, now)
                                                          : (unsigned)PK_SHUNT_STATES;
            bool stopped = state == PK_SHUNT_LIVE && over == PK_SHUNT_STATES;
            if (stopped || (state != PK_SHUNT_LIVE && over == state))
                shunts->over[count++] = page->keys[i];
        }
        if (state == PK_SHUNT_LIVE || count == first)
            continue;
        int r = pk_broker_shunts_close(shunts->broker, shunts->over + first, count - first,
                                       (enum pk_shunt_state)state, err);
        if (r < 0)
            return r;
    }
    *ret_count = count;
    return 0;
}

/* A page. *ret_end: it was the last one. */
static int look(struct pk_shunts *shunts, bool *ret_end, struct pk_error *err)
{
    size_t over = 0;
    int r = pk_broker_shunts_read(shunts->broker, &shunts->page, err);
    if (r < 0) {
        shunts->page.next = 0;
        return r;
    }
    for (size_t i = 0; i < shunts->page.count; i++)
        shunts->used |= 1ull << (shunts->page.keys[i].group & 63);
    shunts->seen += shunts->page.count;
    r = end_over(shunts, &over, err);
    if (r == 0 && over > 0) {
        pk_broker_shunts_settle();
        r = take_out(shunts, shunts->over, over, err);
    }
    *ret_end = shunts->page.end;
    if (!shunts->page.end)
        return r;
    if (r == 0 && !shunts->first_look_done) {
        shunts->first_look_done = true;
        for (size_t i = 0; i < PK_ARRAY_SIZE(shunts->groups); i++)
            pk_shunt_log_forget_known(&shunts->groups[i].log);
    }
    int s = pk_broker_shunts_used(shunts->broker, shunts->used, r < 0 ? NULL : err);
    shunts->last_seen = shunts->seen;
    shunts->seen = 0;
    shunts->used = 0;
    return r < 0 ? r : s;
}

int pk_shunts_sweep(struct pk_shunts *shunts, struct pk_error *err)
{
    PK_LOCKED(shunts);
    int r;
    bool end = false;
    shunts->page.next = 0;
    shunts->seen = 0;
    shunts->used = 0;
    do
        r = look(shunts, &end, err);
    while (r == 0 && !end);
    return r;
}

/* Some pages; all entries are looked at in LOOK_STEPS of these, or in one where they are few. */
static void step(struct pk_shunts *shunts)
{
    struct pk_error err = { 0 };
    size_t budget = 0, done = 0;
    bool end = false;
    int r = 0;
    do {
        if (done > 0)
            let_others();
        PK_LOCKED(shunts);
        if (shunts->page.next == 0 && pk_broker_shunts_groups(shunts->broker) == 0)
            return;
        budget = PK_MAX(shunts->last_seen / LOOK_STEPS, 2 * PAGE_SIZE);
        size_t before = shunts->seen;
        r = look(shunts, &end, &err);
        done += end ? 0 : shunts->seen - before;
    } while (r == 0 && !end && done < budget);
    if (r < 0 && !shunts->told)
        pk_log_error(PK_LOG_WARN, AREA, &err, "shunts that ended wait to be recorded");
    else if (r == 0 && shunts->told)
        pk_log(PK_LOG_INFO, AREA, "shunts are recorded again");
    shunts->told = r < 0;
}

static void *run(void *arg)
{
    struct pk_shunts *shunts = arg;
    for (;;) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        pk_nsec then = until.tv_sec * PK_NSEC_PER_SEC + until.tv_nsec + LOOK_EVERY;
        until.tv_sec = then / PK_NSEC_PER_SEC;
        until.tv_nsec = then % PK_NSEC_PER_SEC;
        (void)pthread_mutex_lock(&shunts->lock);
        while (!shunts->ending && pthread_cond_timedwait(&shunts->wake, &shunts->lock, &until) == 0)
            ;
        bool ending = shunts->ending;
        (void)pthread_mutex_unlock(&shunts->lock);
        if (ending)
            return NULL;
        step(shunts);
    }
}

/* ---- groups that leave ---- */

static int begin_to_leave(struct pk_shunts *shunts, unsigned number, struct pk_error *err)
{
    struct shunt_group *group = &shunts->groups[number];
    int r = pk_broker_shunt_rule_set(shunts->broker, number, NULL, err);
    if (r < 0)
        return r;
    group->leaving = true;
    group->at = 0;
    /* Programs that began before the rule went may still make one. */
    if ((pk_broker_shunts_groups(shunts->broker) >> number & 1) != 0)
        pk_broker_shunts_settle();
    return 0;
}

/* Entries that are closed go, recorded or not. */
static int drop_entries(struct pk_shunts *shunts, struct shunt_group *group,
                        const struct pk_shunt_key *keys, size_t count, struct pk_error *err)
{
    uint64_t dropped = 0;
    for (size_t i = 0; i < count; i++) {
        struct pk_shunt shunt;
        if (pk_broker_shunt_get(shunts->broker, &keys[i], &shunt) &&
            !(group->log_open &&
              pk_shunt_log_knows(&group->log, pk_shunt_record_id(&keys[i], &shunt))))
            dropped++;
    }
    int r = pk_broker_shunts_delete(shunts->broker, keys, count, err);
    if (r == 0) {
        group->dropped += dropped;
        shunts->unrecorded += dropped;
    }
    return r;
}

static size_t keys_of_group(const struct pk_shunt_page *page, unsigned number,
                            struct pk_shunt_key *keys)
{
    size_t count = 0;
    for (size_t i = 0; i < page->count; i++)
        if (page->keys[i].group == number)
            keys[count++] = page->keys[i];
    return count;
}

/* One page of all entries. The look's own page is borrowed: it goes on where it was. */
static int leave_page(struct pk_shunts *shunts, unsigned number, bool *ret_end,
                      struct pk_error *err)
{
    struct shunt_group *group = &shunts->groups[number];
    struct pk_shunt_page *page = &shunts->page;
    uint32_t look_at = page->next;
    page->next = group->at;
    page->size = LEAVE_SIZE;
    int r = pk_broker_shunts_read(shunts->broker, page, err);
    page->size = PAGE_SIZE;
    uint32_t next = page->next;
    bool end = page->end;
    size_t count = r < 0 ? 0 : keys_of_group(page, number, shunts->over);
    page->next = look_at;
    if (count > 0) {
        struct pk_error fault;
        bool dropped = group->dropped > 0;
        r = pk_broker_shunts_close(shunts->broker, shunts->over, count, PK_SHUNT_REMOVED, err);
        if (r < 0)
            return r;
        pk_broker_shunts_settle();
        if (take_out(shunts, shunts->over, count, &fault) < 0) {
            count = keys_of_group(page, number, shunts->over); /* reordered since */
            r = drop_entries(shunts, group, shunts->over, count, err);
            if (!dropped && group->dropped > 0)
                pk_log_error(PK_LOG_WARN, AREA, &fault,
                             "group %s/%s goes, but not all of its shunts can be recorded",
                             group->fleet, group->name);
        }
    }
    if (r < 0)
        return r;
    group->at = next;
    *ret_end = end;
    return 0;
}

int pk_shunts_group_forget(struct pk_shunts *shunts, const char *key, bool *ret_done,
                           struct pk_error *err)
{
    PK_LOCKED(shunts);
    bool end = true;
    int number = pk_broker_group_number(shunts->broker, key);
    if (number < 0) {
        *ret_done = true;
        return 0;
    }
    struct shunt_group *group = &shunts->groups[number];
    int r = name_group(shunts, (unsigned)number, key, err);
    if (r == 0 && !group->leaving)
        r = begin_to_leave(shunts, (unsigned)number, err);
    if (r == 0 && (pk_broker_shunts_groups(shunts->broker) >> number & 1) != 0)
        r = leave_page(shunts, (unsigned)number, &end, err);
    if (r < 0)
        return r;
    if (end) {
        if (group->dropped > 0)
            pk_log(PK_LOG_WARN, AREA, "group %s: %llu of its shunts have no record", key,
                   (unsigned long long)group->dropped);
        drop_group(group);
    }
    *ret_done = end;
    return 0;
}

/* ---- life ---- */

int pk_shunts_new(struct pk_broker *broker, const struct pk_paths *paths,
                  struct pk_shunts **ret_shunts, struct pk_error *err)
{
    struct pk_shunts *raw = pk_zalloc(sizeof *raw);
    if (raw == NULL)
        return pk_no_memory(err);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&raw->lock, NULL);
    (void)pthread_cond_init(&raw->wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    PK_CLEANUP(pk_shunts_free_p) struct pk_shunts *shunts = raw;
    struct stat st;
    shunts->broker = broker;
    shunts->paths = *paths;
    bool mine = stat(paths->state_dir, &st) < 0;
    shunts->uid = mine ? (uid_t)-1 : st.st_uid;
    shunts->gid = mine ? (gid_t)-1 : st.st_gid;
    shunts->over = pk_zalloc_array(PAGE_SIZE, sizeof *shunts->over);
    if (shunts->over == NULL)
        return pk_no_memory(err);
    int r = pk_shunt_page_init(&shunts->page, PAGE_SIZE, err);
    if (r == 0) /* loads what it needs now: later that would be on another thread */
        r = pk_broker_shunts_close(broker, NULL, 0, PK_SHUNT_REMOVED, err);
    for (unsigned i = 0; i < PK_BROKER_GROUPS_MAX && r == 0; i++) {
        const char *key = pk_broker_group_key(broker, i);
        if (key != NULL)
            r = name_group(shunts, i, key, err);
    }
    if (r < 0)
        return r;
    *ret_shunts = PK_TAKE(shunts);
    return 0;
}

int pk_shunts_start(struct pk_shunts *shunts, struct pk_error *err)
{
    int sys = pthread_create(&shunts->thread, NULL, run, shunts);
    if (sys != 0) {
        (void)pk_fail_errno(err, sys, "cannot start a thread");
        return pk_hint(
            err,
            "the machine has no more room for threads: see 'ulimit -u' and the unit's TasksMax");
    }
    shunts->started = true;
    return 0;
}

void pk_shunts_free(struct pk_shunts *shunts)
{
    if (shunts == NULL)
        return;
    (void)pthread_mutex_lock(&shunts->lock);
    shunts->ending = true;
    (void)pthread_cond_signal(&shunts->wake);
    (void)pthread_mutex_unlock(&shunts->lock);
    if (shunts->started)
        (void)pthread_join(shunts->thread, NULL);
    for (size_t i = 0; i < PK_ARRAY_SIZE(shunts->groups); i++)
        drop_group(&shunts->groups[i]);
    pk_shunt_page_done(&shunts->page);
    pk_free(shunts->over);
    (void)pthread_cond_destroy(&shunts->wake);
    (void)pthread_mutex_destroy(&shunts->lock);
    pk_free(shunts);
}

/* ---- calls ---- */

static bool is_of(const struct shunt_group *group, const char *fleet)
{
    return group->there && !group->leaving && strcmp(group->fleet, fleet) == 0;
}

/* The groups that are meant, as bits. */
static int groups_of(struct pk_shunts *shunts, const char *fleet, const json_t *names,
                     uint64_t *ret_groups, struct pk_error *err)
{
    uint64_t groups = 0;
    size_t i;
    json_t *name;
    for (unsigned n = 0; names == NULL && n < PK_BROKER_GROUPS_MAX; n++)
        if (is_of(&shunts->groups[n], fleet))
            groups |= 1ull << n;
    json_array_foreach(names, i, name)
    {
        uint64_t before = groups;
        for (unsigned n = 0; n < PK_BROKER_GROUPS_MAX; n++)
            if (is_of(&shunts->groups[n], fleet) &&
                strcmp(shunts->groups[n].name, json_string_value(name)) == 0)
                groups |= 1ull << n;
        if (before != groups)
            continue;
        (void)pk_fail(err, PK_E_NOTFOUND, "fleet %s has no group '%s' here", fleet,
                      json_string_value(name));
        return pk_hint(err, "'picket status' lists the groups of a fleet");
    }
    if (groups == 0) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no group of fleet %s on this machine", fleet);
        return pk_hint(err, "'picket status' lists the fleets");
    }
    *ret_groups = groups;
    return 0;
}

/* The keys of an order's flows in one group. */
static size_t keys_of(const struct pk_shunt_order *order, unsigned group, struct pk_shunt_key *keys)
{
    size_t count = 0;
    bool from_b;
    for (size_t i = 0; i < order->flow_count; i++)
        if (pk_shunt_key_of(&order->flows[i], group, &keys[count], &from_b))
            count++;
    return count;
}

static int add_to_group(struct pk_shunts *shunts, const struct pk_shunt_order *order,
                        unsigned group, struct pk_shunt_key *keys, struct pk_shunt_added *sums,
                        struct pk_error *err)
{
    const struct pk_shunt_request request = { .group = group,
                                              .keep = order->keep,
                                              .idle_ms = (unsigned)order->idle_s * 1000,
                                              .life_nsec =
                                                  order->life_s * (uint64_t)PK_NSEC_PER_SEC,
                                              .by = order->by };
    struct pk_shunt_added added = { 0 };
    /* A look that is under way may have passed the places of these. */
    shunts->used |= 1ull << group;
    int r = pk_broker_shunts_add(shunts->broker, &request, order->flows, order->flow_count, &added,
                                 err);
    if (r == 0 && added.closing > 0) {
        struct pk_shunt_added again = { 0 };
        size_t first = added.added;
        pk_broker_shunts_settle();
        r = take_out(shunts, keys, keys_of(order, group, keys), err);
        if (r == 0)
            r = pk_broker_shunts_add(shunts->broker, &request, order->flows, order->flow_count,
                                     &again, err);
        /* Those of the first try are known to the second one. */
        added = again;
        added.added += first;
        added.known -= PK_MIN(first, added.known);
    }
    sums->added += added.added;
    sums->known += added.known;
    sums->full += added.full + added.closing;
    return r;
}

int pk_shunts_post(struct pk_shunts *shunts, const char *fleet, const json_t *body,
                   json_t **ret_json, struct pk_error *err)
{
    struct pk_shunt_order order = { 0 };
    struct pk_shunt_added sums = { 0 };
    uint64_t groups = 0;
    int r = pk_check_name("fleet", fleet, err);
    if (r == 0)
        r = pk_shunt_order_parse(body, false, &order, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    struct pk_shunt_key *keys = pk_zalloc_array(order.flow_count, sizeof *keys);
    if (keys == NULL) {
        pk_shunt_order_done(&order);
        return pk_no_memory(err);
    }
    for (unsigned n = 0; n < PK_BROKER_GROUPS_MAX && r == 0; n++) {
        if (n > 0 && (groups >> n & 1) == 0)
            continue;
        PK_LOCKED(shunts); /* anew for each: the groups may be others by now */
        r = groups_of(shunts, fleet, order.groups, &groups, err);
        if (r == 0 && (groups >> n & 1) != 0)
            r = add_to_group(shunts, &order, n, keys, &sums, err);
    }
    pk_shunt_order_done(&order);
    if (r < 0)
        return r;
    if (sums.full > 0 && sums.added == 0) {
        (void)pk_fail(err, PK_E_NOSPACE, "there is no room for more shunts: %u are the most",
                      PK_SHUNTS_MAX);
        return pk_hint(err, "'picket shunt stats' shows which group has them; ask for shorter "
                            "times, or remove some");
    }
    *ret_json = json_pack("{s:I,s:I,s:I}", "added", (json_int_t)sums.added, "known",
                          (json_int_t)sums.known, "full", (json_int_t)sums.full);
    return *ret_json != NULL ? 0 : pk_no_memory(err);
}

/* Lock held. */
static int remove_from_group(struct pk_shunts *shunts, const struct pk_shunt_order *order,
                             unsigned group, struct pk_shunt_key *keys, size_t *removed,
                             struct pk_error *err)
{
    size_t there = 0, count = keys_of(order, group, keys);
    for (size_t i = 0; i < count; i++) {
        struct pk_shunt shunt;
        if (pk_broker_shunt_get(shunts->broker, &keys[i], &shunt))
            keys[there++] = keys[i];
    }
    *removed += there;
    return there > 0 ? close_and_take_out(shunts, keys, there, PK_SHUNT_REMOVED, err) : 0;
}

static int remove_flows(struct pk_shunts *shunts, const char *fleet,
                        const struct pk_shunt_order *order, size_t *removed, struct pk_error *err)
{
    uint64_t groups = 0;
    PK_CLEANUP(pk_free_p)
    struct pk_shunt_key *keys = pk_zalloc_array(order->flow_count, sizeof *keys);
    if (keys == NULL)
        return pk_no_memory(err);
    for (unsigned n = 0; n < PK_BROKER_GROUPS_MAX; n++) {
        if (n > 0 && (groups >> n & 1) == 0)
            continue;
        PK_LOCKED(shunts);
        int r = groups_of(shunts, fleet, order->groups, &groups, err);
        if (r == 0 && (groups >> n & 1) != 0)
            r = remove_from_group(shunts, order, n, keys, removed, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int remove_page(struct pk_shunts *shunts, const char *fleet,
                       const struct pk_shunt_order *order, struct pk_shunt_page *page,
                       size_t *removed, struct pk_error *err)
{
    PK_LOCKED(shunts);
    uint64_t groups = 0;
    size_t count = 0;
    int r = groups_of(shunts, fleet, order->groups, &groups, err);
    if (r == 0)
        r = pk_broker_shunts_read(shunts->broker, page, err);
    for (size_t i = 0; r == 0 && i < page->count; i++)
        if ((groups >> (page->keys[i].group & 63) & 1) != 0)
            page->keys[count++] = page->keys[i];
    if (r == 0 && count > 0)
        r = close_and_take_out(shunts, page->keys, count, PK_SHUNT_REMOVED, err);
    *removed += count;
    return r;
}

static int remove_all(struct pk_shunts *shunts, const char *fleet,
                      const struct pk_shunt_order *order, size_t *removed, struct pk_error *err)
{
    struct pk_shunt_page page;
    int r = pk_shunt_page_init(&page, PAGE_SIZE, err);
    if (r < 0)
        return r;
    do {
        if (page.next != 0)
            let_others();
        r = remove_page(shunts, fleet, order, &page, removed, err);
    } while (r == 0 && !page.end);
    pk_shunt_page_done(&page);
    return r;
}

int pk_shunts_delete(struct pk_shunts *shunts, const char *fleet, const json_t *body,
                     json_t **ret_json, struct pk_error *err)
{
    struct pk_shunt_order order = { 0 };
    size_t removed = 0;
    int r = pk_check_name("fleet", fleet, err);
    if (r == 0)
        r = pk_shunt_order_parse(body, true, &order, err);
    if (r < 0)
        return r;
    r = order.all ? remove_all(shunts, fleet, &order, &removed, err)
                  : remove_flows(shunts, fleet, &order, &removed, err);
    pk_shunt_order_done(&order);
    if (r < 0)
        return r;
    *ret_json = json_pack("{s:I}", "removed", (json_int_t)removed);
    return *ret_json != NULL ? 0 : pk_no_memory(err);
}

/* What a list needs of the groups, without keeping the lock while it reads. */
struct names {
    uint64_t groups, unrecorded;
    char name[PK_BROKER_GROUPS_MAX][PK_NODE_NAME_MAX + 1];
};

static int copy_names(struct pk_shunts *shunts, const char *fleet, const char *group,
                      struct names *names, struct pk_error *err)
{
    PK_JSON list = group != NULL ? json_pack("[s]", group) : NULL;
    int r = pk_check_name("fleet", fleet, err);
    if (r == 0 && group != NULL)
        r = pk_check_name("group", group, err);
    if (r < 0)
        return r;
    PK_LOCKED(shunts);
    for (unsigned n = 0; n < PK_BROKER_GROUPS_MAX; n++)
        memcpy(names->name[n], shunts->groups[n].name, sizeof names->name[n]);
    names->unrecorded = shunts->unrecorded;
    return groups_of(shunts, fleet, list, &names->groups, err);
}

int pk_shunts_list(struct pk_shunts *shunts, const char *fleet, const char *group, const char *page,
                   unsigned limit, struct pk_buf *buf, struct pk_error *err)
{
    struct names names = { 0 };
    uint64_t next = 0;
    struct pk_shunt_page entries;
    int r = copy_names(shunts, fleet, group, &names, err);
    if (r < 0)
        return r;
    if (page != NULL && (pk_parse_u64(page, &next, NULL) < 0 || next > UINT32_MAX)) {
        (void)pk_fail(err, PK_E_USAGE, "'%.20s' is no page of a list of shunts", page);
        return pk_hint(
            err, "give what 'page' of the answer before said, or leave it out for the first one");
    }
    r = pk_shunt_page_init(&entries, PK_MIN(limit, PK_SHUNT_PAGE_MAX), err);
    if (r < 0)
        return r;
    entries.next = (uint32_t)next;
    r = pk_broker_shunts_read(shunts->broker, &entries, err);
    int64_t offset = pk_shunt_clock_offset();
    bool any = false;
    (void)pk_buf_puts(buf, "{\"shunts\":[");
    for (size_t i = 0; r == 0 && i < entries.count; i++) {
        unsigned number = entries.keys[i].group & 63;
        if ((names.groups >> number & 1) == 0)
            continue;
        if (any)
            (void)pk_buf_putc(buf, ',');
        any = true;
        pk_shunt_print(buf, &entries.keys[i], &entries.values[i], names.name[number], offset);
    }
    if (entries.next != 0)
        (void)pk_buf_printf(buf, "],\"page\":\"%u\"}", entries.next);
    else
        (void)pk_buf_puts(buf, "],\"page\":null}");
    pk_shunt_page_done(&entries);
    if (r == 0 && buf->failed)
        r = pk_no_memory(err);
    return r;
}

/* ---- numbers ---- */

struct group_sum {
    uint64_t entries, packets, bytes, passed_packets, passed_bytes;
};

struct top {
    struct pk_shunt_key key;
    struct pk_shunt shunt;
    uint64_t bytes;
};

static void add_to_top(struct top *top, size_t *count, size_t max, const struct pk_shunt_key *key,
                       const struct pk_shunt *shunt)
{
    uint64_t bytes = shunt->bytes[0] + shunt->bytes[1];
    if (max == 0 || bytes == 0 || (*count == max && top[max - 1].bytes >= bytes))
        return;
    size_t at = *count < max ? (*count)++ : max - 1;
    for (; at > 0 && top[at - 1].bytes < bytes; at--)
        top[at] = top[at - 1];
    top[at] = (struct top){ .key = *key, .shunt = *shunt, .bytes = bytes };
}

static int stats_json(struct pk_shunts *shunts, const struct names *names,
                      const struct group_sum *sums, const struct top *top, size_t top_count,
                      json_t **ret_json, struct pk_error *err)
{
    json_t *groups = json_array(), *flows = json_array();
    uint64_t entries = 0;
    int64_t offset = pk_shunt_clock_offset();
    for (unsigned n = 0; n < PK_BROKER_GROUPS_MAX; n++) {
        if ((names->groups >> n & 1) == 0)
            continue;
        entries += sums[n].entries;
        (void)json_array_append_new(
            groups, json_pack("{s:s,s:I,s:I,s:I,s:I,s:I}", "name", names->name[n], "entries",
                              (json_int_t)sums[n].entries, "packets", (json_int_t)sums[n].packets,
                              "bytes", (json_int_t)sums[n].bytes, "passedPackets",
                              (json_int_t)sums[n].passed_packets, "passedBytes",
                              (json_int_t)sums[n].passed_bytes));
    }
    int r = 0;
    for (size_t i = 0; i < top_count && r == 0; i++) {
        struct pk_buf text = PK_BUF_INIT(4096);
        json_t *flow = NULL;
        pk_shunt_print(&text, &top[i].key, &top[i].shunt, names->name[top[i].key.group & 63],
                       offset);
        r = text.failed ? pk_no_memory(err) : pk_json_parse("", text.data, text.len, &flow, err);
        pk_buf_done(&text);
        if (r == 0)
            (void)json_array_append_new(flows, flow);
    }
    json_t *json = json_pack("{s:I,s:i,s:I,s:I,s:o,s:o}", "entries", (json_int_t)entries, "most",
                             (int)PK_SHUNTS_MAX, "refused",
                             (json_int_t)pk_broker_shunts_refused(shunts->broker), "unrecorded",
                             (json_int_t)names->unrecorded, "groups", groups, "top", flows);
    if (r < 0 || json == NULL) {
        json_decref(json);
        return r < 0 ? r : pk_no_memory(err);
    }
    *ret_json = json;
    return 0;
}

int pk_shunts_stats(struct pk_shunts *shunts, const char *fleet, unsigned top_max,
                    json_t **ret_json, struct pk_error *err)
{
    struct names names = { 0 };
    struct pk_shunt_page page;
    size_t top_count = 0;
    top_max = PK_MIN(top_max, TOP_MAX);
    int r = copy_names(shunts, fleet, NULL, &names, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) struct top *top = pk_zalloc_array(TOP_MAX, sizeof *top);
    PK_CLEANUP(pk_free_p)
    struct group_sum *sums = pk_zalloc_array(PK_BROKER_GROUPS_MAX, sizeof *sums);
    if (top == NULL || sums == NULL)
        return pk_no_memory(err);
    r = pk_shunt_page_init(&page, PAGE_SIZE, err);
    if (r < 0)
        return r;
    do {
        if (pk_broker_shunts_groups(shunts->broker) == 0)
            break;
        r = pk_broker_shunts_read(shunts->broker, &page, err);
        for (size_t i = 0; r == 0 && i < page.count; i++) {
            const struct pk_shunt *shunt = &page.values[i];
            unsigned n = page.keys[i].group & 63;
            if ((names.groups >> n & 1) == 0)
                continue;
            sums[n].entries++;
            sums[n].packets += shunt->packets[0] + shunt->packets[1];
            sums[n].bytes += shunt->bytes[0] + shunt->bytes[1];
            sums[n].passed_packets += shunt->passed_packets;
            sums[n].passed_bytes += shunt->passed_bytes;
            add_to_top(top, &top_count, top_max, &page.keys[i], shunt);
        }
    } while (r == 0 && !page.end);
    pk_shunt_page_done(&page);
    return r < 0 ? r : stats_json(shunts, &names, sums, top, top_count, ret_json, err);
}
