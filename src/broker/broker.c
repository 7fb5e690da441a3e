/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, taking over, and leaving. */
#include "broker/broker.h"

#include <dirent.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "broker/internal.h"
#include "packet/flow.h"

_Static_assert(PK_SLOT_COUNT == PK_HASH_SLOTS, "one number of slots");
_Static_assert(PK_SLOT_RANGES == PK_RANGES, "one number of ranges");
_Static_assert(PK_BROKER_TAPS_MAX == PK_TAPS_MAX && PK_BROKER_GROUPS_MAX == PK_GROUPS_MAX &&
                   PK_BROKER_LANES_MAX == PK_LANES_MAX,
               "one number of each");

int pk_record_find(const void *records, size_t size, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp((const char *)records + i * size, key) == 0)
            return (int)i;
    return -1;
}

int pk_record_take(const void *records, size_t size, size_t count, const char *key,
                   const char *what, uint32_t *ret_index, bool *ret_is_new, struct pk_error *err)
{
    if (key[0] == '\0' || strlen(key) >= PK_KEY_SIZE)
        return pk_fail(err, PK_E_USAGE, "a %s's key has 1 to %u bytes: \"%.40s\"", what,
                       PK_KEY_SIZE - 1, key);
    int index = pk_record_find(records, size, count, key);
    *ret_is_new = index < 0;
    if (index < 0)
        index = pk_record_find(records, size, count, "");
    if (index < 0) {
        pk_fail(err, PK_E_NOSPACE, "no room for %s %s: %zu are the most", what, key, count);
        return pk_hint(err, "remove one that is not needed any more");
    }
    *ret_index = (uint32_t)index;
    return 0;
}

int pk_broker_check_open(struct pk_broker *broker, struct pk_error *err)
{
    if (broker->removed)
        return pk_fail(err, PK_E_USAGE, "the traffic plane was removed");
    return 0;
}

static int check_pin_dir(const char *pin_dir, struct pk_error *err)
{
    int r = pk_mkdir_p(pin_dir, 0700, err);
    if (r < 0)
        return r;
    struct statfs fs;
    if (statfs(pin_dir, &fs) < 0)
        return pk_fail_errno(err, errno, "cannot look at %s", pin_dir);
    if (fs.f_type != BPF_FS_MAGIC) {
        pk_fail(err, PK_E_UNSUPPORTED, "%s is not on a BPF file system", pin_dir);
        return pk_hint(err, "mount one: mount -t bpf bpf %s", pin_dir);
    }
    return 0;
}

int pk_broker_remove_pins(const char *pin_dir, struct pk_error *err)
{
    DIR *dir = opendir(pin_dir);
    if (dir == NULL)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot read %s", pin_dir);
    int r = 0;
    /* Links first, so that no packet meets half a plane. */
    for (unsigned maps = 0; maps < 2; maps++) {
        rewinddir(dir);
        struct dirent *entry;
        while ((entry = readdir(dir)) != NULL) {
            bool is_map = strncmp(entry->d_name, "pk_", 3) == 0;
            bool is_copier = pk_copier_is_pin(entry->d_name);
            bool is_link =
                strncmp(entry->d_name, "tap-", 4) == 0 || strncmp(entry->d_name, "lane-", 5) == 0;
            if (maps == 0 ? !is_link && !is_copier : !is_map)
                continue;
            PK_CLEANUP(pk_free_p) char *path = pk_path_join(pin_dir, entry->d_name);
            int one = path == NULL ? pk_no_memory(err) : 0;
            if (one == 0 && is_link)
                one = pk_link_drop(path, err);
            else if (one == 0 && is_copier)
                one = pk_copier_drop(pin_dir, entry->d_name, err);
            else if (one == 0 && unlink(path) < 0 && errno != ENOENT)
                one = pk_fail_errno(err, errno, "cannot remove %s", path);
            r = r < 0 ? r : one;
        }
    }
    closedir(dir);
    return r;
}

static void close_maps(struct pk_broker *broker)
{
    for (size_t i = 0; i < PK_MAP_COUNT; i++) {
        if (broker->maps[i] >= 0)
            close(broker->maps[i]);
        broker->maps[i] = -1;
    }
}

static int begin_anew(struct pk_broker *broker, struct pk_error *err)
{
    struct pk_meta meta = { .magic = PK_BROKER_MAGIC, .abi = PK_BROKER_ABI };
    if (getrandom(&meta.seed, sizeof meta.seed, 0) != (ssize_t)sizeof meta.seed)
        return pk_fail_errno(err, errno, "cannot get random bytes");
    broker->seed = meta.seed;
    return pk_map_write(broker, PK_MAP_META, 0, &meta, err);
}

static int read_records(struct pk_broker *broker, enum pk_plane_map map, void *records, size_t size,
                        uint32_t count, struct pk_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        char *record = (char *)records + i * size;
        if (bpf_map_lookup_elem(broker->maps[map], &i, record) < 0)
            return pk_fail_errno(err, errno, "cannot read the pinned state");
        record[PK_KEY_SIZE - 1] = '\0';
    }
    return 0;
}

static int take_over(struct pk_broker *broker, struct pk_error *err)
{
    uint32_t zero = 0;
    struct pk_meta meta;
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_META], &zero, &meta) < 0)
        return pk_fail_errno(err, errno, "cannot read the pinned state");
    broker->seed = meta.seed;
    int r =
        read_records(broker, PK_MAP_TAPS, broker->taps, sizeof broker->taps[0], PK_TAPS_MAX, err);
    if (r >= 0)
        r = read_records(broker, PK_MAP_GROUPS, broker->groups, sizeof broker->groups[0],
                         PK_GROUPS_MAX, err);
    if (r >= 0)
        r = read_records(broker, PK_MAP_LANES, broker->lanes, sizeof broker->lanes[0], PK_LANES_MAX,
                         err);
    if (r >= 0)
        r = pk_inline_load_records(broker, err);
    if (r >= 0)
        r = pk_group_load_tables(broker, err);
    for (uint32_t i = 0; i < PK_LANES_MAX && r >= 0; i++)
        if (broker->lanes[i].key[0] != '\0' && broker->lanes[i].build != broker->build)
            r = pk_lane_renew(broker, i, err);
    for (uint32_t i = 0; i < PK_TAPS_MAX && r >= 0; i++)
        if (broker->taps[i].key[0] != '\0')
            r = pk_tap_load_tenants(broker, i, err);
    if (r >= 0)
        r = pk_inline_taps_renew(broker, err);
    return r;
}

int pk_broker_open(const struct pk_broker_options *options, struct pk_broker **ret_broker,
                   struct pk_error *err)
{
    struct pk_error own = { 0 };
    if (err == NULL)
        err = &own; /* what went wrong decides what is done */
    PK_CLEANUP(pk_broker_close_p) struct pk_broker *broker = pk_zalloc(sizeof *broker);
    if (broker == NULL)
        return pk_no_memory(err);
    memset(broker->maps, 0xff, sizeof broker->maps); /* -1 */
    broker->shunt_close = -1;
    for (size_t i = 0; i < PK_TAPS_MAX; i++)
        broker->parked[i] = -1;
    broker->pin_dir = pk_strdup(options->pin_dir);
    broker->fragments = pk_fragment_memory_new();
    if (broker->pin_dir == NULL || broker->fragments == NULL)
        return pk_no_memory(err);
    broker->build = pk_plane_build();

    int r = check_pin_dir(broker->pin_dir, err);
    if (r >= 0)
        r = pk_plane_open_maps(broker, err);
    if (r == PK_E_CONFLICT) {
        /* Nothing can be taken over from another layout: packets are not delivered from here until
         * the caller has added everything again. */
        pk_log(PK_LOG_INFO, "broker", "%s: starting anew, packets are lost until taps are back",
               err->msg);
        *err = (struct pk_error){ 0 };
        close_maps(broker);
        r = pk_broker_remove_pins(broker->pin_dir, err);
        if (r >= 0)
            r = pk_plane_open_maps(broker, err);
    }
    if (r < 0)
        return r;
    r = r == 0 ? begin_anew(broker, err) : take_over(broker, err);
    if (r < 0)
        return r;
    *ret_broker = PK_TAKE(broker);
    return 0;
}

void pk_broker_close(struct pk_broker *broker)
{
    if (broker == NULL)
        return;
    close_maps(broker);
    pk_close_p(&broker->shunt_close);
    for (size_t i = 0; i < PK_TAPS_MAX; i++)
        pk_close_p(&broker->parked[i]);
    for (size_t i = 0; i < PK_GROUPS_MAX; i++) {
        pk_free(broker->tables[i]);
        pk_free(broker->sheds[i]);
        pk_group_wish_done(&broker->wishes[i]);
    }
    for (size_t i = 0; i < PK_TAPS_MAX; i++) {
        pk_tap_setup_free(broker->setups[i]);
        pk_free(broker->tenants[i]);
    }
    pk_fragment_memory_free(broker->fragments);
    pk_free(broker->pin_dir);
    pk_free(broker);
}

int pk_broker_remove_all(struct pk_broker *broker, struct pk_error *err)
{
    broker->removed = true;
    return pk_broker_remove_pins(broker->pin_dir, err);
}
