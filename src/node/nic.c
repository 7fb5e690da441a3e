/* SPDX-License-Identifier: Apache-2.0 */
#include "node/nic.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/alloc.h"
#include "base/json.h"
#include "node/internal.h"

#define HASH_TOEPLITZ 1u /* ETH_RSS_HASH_TOP, which no header for programs has */
/* Of Linux 6.8; older headers have the byte as reserved. */
#define HASH_TRANSFORM_AT  (offsetof(struct ethtool_rxfh, hfunc) + 1)
#define HASH_TRANSFORM_XOR 3 /* RXH_XFRM_SYM_XOR, RXH_XFRM_SYM_OR_XOR */

/* With a key whose 16-bit words are all the same, Toeplitz hashes both directions alike: Woo and
 * Park, "Scalable TCP Session Monitoring with Symmetric Receive-side Scaling", KAIST 2012. */
static const uint8_t symmetric_key[2] = { 0x6d, 0x5a };

static int call(int fd, const char *name, void *data)
{
    struct ifreq request = { 0 };
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    request.ifr_data = data;
    return ioctl(fd, SIOCETHTOOL, &request) < 0 ? -errno : 0;
}

/* ---- the hash ---- */

struct hash {
    bool there;
    bool toeplitz;
    uint8_t transform;
    unsigned key_size;
    uint8_t key[PK_NIC_KEY_MAX];
};

static int get_hash(int fd, const char *name, struct hash *ret_hash)
{
    struct ethtool_rxfh sizes = { .cmd = ETHTOOL_GRSSH };
    *ret_hash = (struct hash){ 0 };
    int r = call(fd, name, &sizes);
    if (r < 0 || sizes.key_size == 0 || sizes.key_size > PK_NIC_KEY_MAX || sizes.indir_size > 65536)
        return r;
    size_t indir = sizes.indir_size * sizeof(uint32_t);
    PK_CLEANUP(pk_free_p)
    struct ethtool_rxfh *all = pk_zalloc(sizeof(*all) + indir + sizes.key_size);
    if (all == NULL)
        return -ENOMEM;
    all->cmd = ETHTOOL_GRSSH;
    all->indir_size = sizes.indir_size;
    all->key_size = sizes.key_size;
    r = call(fd, name, all);
    if (r < 0)
        return r;
    ret_hash->there = true;
    ret_hash->key_size = sizes.key_size;
    ret_hash->toeplitz = all->hfunc == 0 || (all->hfunc & HASH_TOEPLITZ) != 0;
    ret_hash->transform = ((const uint8_t *)all)[HASH_TRANSFORM_AT];
    memcpy(ret_hash->key, (const uint8_t *)all->rss_config + indir, sizes.key_size);
    return 0;
}

static enum pk_nic_hash kind_of(const struct hash *hash)
{
    if (!hash->there)
        return PK_NIC_HASH_NONE;
    if ((hash->transform & HASH_TRANSFORM_XOR) != 0)
        return PK_NIC_HASH_XOR;
    bool repeats = hash->toeplitz;
    for (unsigned i = 2; i < hash->key_size; i++)
        repeats = repeats && hash->key[i] == hash->key[i - 2];
    return repeats ? PK_NIC_HASH_KEY : PK_NIC_HASH_OTHER;
}

/* key NULL: as it is. */
static int set_hash(int fd, const char *name, const uint8_t *key, unsigned size, uint8_t transform)
{
    PK_CLEANUP(pk_free_p) struct ethtool_rxfh *all = pk_zalloc(sizeof(*all) + size);
    if (all == NULL)
        return -ENOMEM;
    all->cmd = ETHTOOL_SRSSH;
    all->indir_size = ETH_RXFH_INDIR_NO_CHANGE;
    all->key_size = key != NULL ? size : 0;
    ((uint8_t *)all)[HASH_TRANSFORM_AT] = transform;
    if (key != NULL)
        memcpy(all->rss_config, key, size);
    return call(fd, name, all);
}

static int make_hash_symmetric(int fd, const char *name)
{
    struct hash hash;
    uint8_t key[PK_NIC_KEY_MAX];
    int r = get_hash(fd, name, &hash);
    if (r < 0 || !hash.there)
        return r < 0 ? r : -EOPNOTSUPP;
    for (unsigned i = 0; i < PK_NIC_KEY_MAX; i++)
        key[i] = symmetric_key[i % 2];
    r = hash.toeplitz ? set_hash(fd, name, key, hash.key_size, hash.transform) : -EOPNOTSUPP;
    return r < 0 ? set_hash(fd, name, NULL, 0, 1 /* RXH_XFRM_SYM_XOR */) : r;
}

/* ---- the rest ---- */

static int set_queues(int fd, const char *name, unsigned count)
{
    struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
    int r = call(fd, name, &channels);
    if (r < 0)
        return r;
    channels.cmd = ETHTOOL_SCHANNELS;
    if (channels.max_combined != 0)
        channels.combined_count = count;
    else
        channels.rx_count = count;
    return call(fd, name, &channels);
}

static int set_rings(int fd, const char *name, unsigned size)
{
    struct ethtool_ringparam rings = { .cmd = ETHTOOL_GRINGPARAM };
    int r = call(fd, name, &rings);
    rings.cmd = ETHTOOL_SRINGPARAM;
    rings.rx_pending = size;
    return r < 0 ? r : call(fd, name, &rings);
}

static int set_pause(int fd, const char *name, bool autoneg, bool rx, bool tx)
{
    struct ethtool_pauseparam pause = {
        .cmd = ETHTOOL_SPAUSEPARAM, .autoneg = autoneg, .rx_pause = rx, .tx_pause = tx
    };
    return call(fd, name, &pause);
}

static int set_coalesce(int fd, const char *name, bool adaptive, unsigned usecs)
{
    struct ethtool_coalesce coalesce = { .cmd = ETHTOOL_GCOALESCE };
    int r = call(fd, name, &coalesce);
    coalesce.cmd = ETHTOOL_SCOALESCE;
    coalesce.use_adaptive_rx_coalesce = adaptive;
    if (!adaptive)
        coalesce.rx_coalesce_usecs = usecs;
    return r < 0 ? r : call(fd, name, &coalesce);
}

static unsigned offload_of(enum pk_nic_setting setting)
{
    return setting == PK_NIC_VLAN  ? PK_OFFLOAD_RX_VLAN
           : setting == PK_NIC_GRO ? PK_OFFLOAD_GRO
                                   : PK_OFFLOAD_LRO;
}

/* ---- reading ---- */

static int read_all(int fd, const char *name, struct pk_nic_facts *facts, struct hash *hash,
                    bool *pause_autoneg, struct pk_error *err)
{
    unsigned on = 0;
    int r = pk_offloads_get(fd, name, &on, err);
    if (r < 0)
        return r;
    *facts = (struct pk_nic_facts){ .vlan = (on & PK_OFFLOAD_RX_VLAN) != 0,
                                    .gro = (on & PK_OFFLOAD_GRO) != 0,
                                    .lro = (on & PK_OFFLOAD_LRO) != 0 };
    struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
    if (call(fd, name, &driver) == 0)
        (void)snprintf(facts->driver, sizeof(facts->driver), "%.32s", driver.driver);
    struct ethtool_ringparam rings = { .cmd = ETHTOOL_GRINGPARAM };
    if (call(fd, name, &rings) == 0) {
        facts->rings = rings.rx_pending;
        facts->rings_max = rings.rx_max_pending;
    }
    struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
    facts->queues = 1;
    if (call(fd, name, &channels) == 0) {
        facts->queues = channels.combined_count + channels.rx_count;
        facts->queues_max = channels.max_combined + channels.max_rx;
    }
    (void)get_hash(fd, name, hash);
    facts->hash = kind_of(hash);
    facts->hash_key_size = hash->key_size;
    facts->hash_toeplitz = hash->toeplitz;
    struct ethtool_pauseparam pause = { .cmd = ETHTOOL_GPAUSEPARAM };
    facts->has_pause = call(fd, name, &pause) == 0;
    facts->pause_rx = pause.rx_pause != 0;
    facts->pause_tx = pause.tx_pause != 0;
    *pause_autoneg = pause.autoneg != 0;
    struct ethtool_coalesce coalesce = { .cmd = ETHTOOL_GCOALESCE };
    facts->has_coalesce = call(fd, name, &coalesce) == 0;
    facts->coalesce_adaptive = coalesce.use_adaptive_rx_coalesce != 0;
    facts->coalesce_usecs = coalesce.rx_coalesce_usecs;
    return 0;
}

int pk_nic_read(int ioctl_fd, const char *name, struct pk_nic_facts *ret_facts,
                struct pk_error *err)
{
    struct hash hash;
    bool autoneg;
    return read_all(ioctl_fd, name, ret_facts, &hash, &autoneg, err);
}

int pk_nic_remember(int ioctl_fd, const char *name, struct pk_nic_before *ret_before,
                    struct pk_error *err)
{
    struct pk_nic_before before = { .known = true };
    struct hash hash;
    int r = read_all(ioctl_fd, name, &before.facts, &hash, &before.pause_autoneg, err);
    if (r < 0)
        return r;
    before.hash_transform = hash.transform;
    memcpy(before.hash_key, hash.key, sizeof(before.hash_key));
    *ret_before = before;
    return 0;
}

/* ---- changing ---- */

static void say_why(struct pk_nic_change *change, int sys)
{
    const char *why = sys == -EOPNOTSUPP                 ? "the driver cannot do it"
                      : sys == -EINVAL || sys == -ERANGE ? "the driver refuses the value"
                      : sys == -EBUSY || sys == -EAGAIN
                          ? "the driver cannot do it while the interface is in use"
                          : strerrordesc_np(-sys);
    (void)snprintf(change->why_not, sizeof(change->why_not), "%s", why != NULL ? why : "unknown");
}

/* Negative errno. */
static int make_change(int fd, const char *name, const struct pk_nic_change *change)
{
    struct pk_error fault = { 0 };
    int r;
    switch (change->setting) {
    case PK_NIC_QUEUES:
        return set_queues(fd, name, change->value);
    case PK_NIC_RINGS:
        return set_rings(fd, name, change->value);
    case PK_NIC_HASH:
        return make_hash_symmetric(fd, name);
    case PK_NIC_PAUSE:
        return set_pause(fd, name, false, false, false);
    case PK_NIC_COALESCE:
        return set_coalesce(fd, name, change->value == PK_NIC_COALESCE_ADAPTIVE, change->value);
    default:
        r = pk_offloads_set(fd, name, offload_of(change->setting), false, &fault);
        return r == PK_E_UNSUPPORTED ? -EOPNOTSUPP : r == PK_E_DENIED ? -EPERM : r < 0 ? -EIO : 0;
    }
}

int pk_nic_apply(int ioctl_fd, const char *name, const struct pk_nic_spec *spec,
                 struct pk_nic_change changes[PK_NIC_SETTINGS], size_t *ret_count,
                 struct pk_error *err)
{
    struct pk_nic_facts facts;
    int r = pk_nic_read(ioctl_fd, name, &facts, err);
    if (r < 0)
        return r;
    size_t count = pk_nic_changes(spec, &facts, changes);
    for (size_t i = 0; i < count; i++) {
        if (changes[i].why_not[0] != '\0')
            continue;
        int sys = make_change(ioctl_fd, name, &changes[i]);
        if (sys == -ENODEV)
            return pk_fail(err, PK_E_NOTFOUND, "there is no interface %s", name);
        if (sys == -EPERM) {
            (void)pk_fail(err, PK_E_DENIED, "cannot change %s of %s",
                          pk_nic_setting_name(changes[i].setting), name);
            return pk_hint(err, "the agent needs CAP_NET_ADMIN: start it as root");
        }
        if (sys < 0) {
            say_why(&changes[i], sys);
            continue;
        }
        if (changes[i].setting != PK_NIC_QUEUES)
            continue;
        /* The driver may have set rings and hash back: look again at all that comes after. */
        struct pk_nic_change rest[PK_NIC_SETTINGS];
        r = pk_nic_read(ioctl_fd, name, &facts, err);
        if (r < 0)
            return r;
        size_t more = pk_nic_changes(spec, &facts, rest);
        count = i + 1;
        for (size_t n = 0; n < more && count < PK_NIC_SETTINGS; n++)
            if (rest[n].setting != PK_NIC_QUEUES)
                changes[count++] = rest[n];
    }
    *ret_count = count;
    return 0;
}

int pk_nic_restore(int ioctl_fd, const char *name, const struct pk_nic_before *before,
                   struct pk_error *err)
{
    const struct pk_nic_facts *was = &before->facts;
    struct pk_nic_facts now;
    struct hash hash;
    bool autoneg;
    if (!before->known)
        return 0;
    int r = read_all(ioctl_fd, name, &now, &hash, &autoneg, err);
    if (r < 0)
        return r;
    enum pk_nic_setting failed = PK_NIC_SETTINGS;
    int sys = 0;
#define PUT_BACK(what, differs, how)      \
    do {                                  \
        int sys_ = (differs) ? (how) : 0; \
        if (sys_ < 0 && sys == 0) {       \
            sys = sys_;                   \
            failed = (what);              \
        }                                 \
    } while (0)
    PUT_BACK(PK_NIC_QUEUES, was->queues_max != 0 && was->queues != now.queues,
             set_queues(ioctl_fd, name, was->queues));
    if (was->queues_max != 0 && was->queues != now.queues) /* which may have changed the rest */
        r = read_all(ioctl_fd, name, &now, &hash, &autoneg, err);
    if (r < 0)
        return r;
    PUT_BACK(PK_NIC_RINGS, was->rings_max != 0 && was->rings != now.rings,
             set_rings(ioctl_fd, name, was->rings));
    PUT_BACK(
        PK_NIC_HASH,
        was->hash_key_size != 0 && was->hash_key_size == hash.key_size &&
            (before->hash_transform != hash.transform ||
             memcmp(before->hash_key, hash.key, hash.key_size) != 0),
        set_hash(ioctl_fd, name, before->hash_key, was->hash_key_size, before->hash_transform));
    PUT_BACK(PK_NIC_PAUSE,
             was->has_pause && (was->pause_rx != now.pause_rx || was->pause_tx != now.pause_tx ||
                                before->pause_autoneg != autoneg),
             set_pause(ioctl_fd, name, before->pause_autoneg, was->pause_rx, was->pause_tx));
    PUT_BACK(PK_NIC_COALESCE,
             was->has_coalesce && (was->coalesce_adaptive != now.coalesce_adaptive ||
                                   was->coalesce_usecs != now.coalesce_usecs),
             set_coalesce(ioctl_fd, name, was->coalesce_adaptive, was->coalesce_usecs));
#undef PUT_BACK
    unsigned on = (was->vlan && !now.vlan ? PK_OFFLOAD_RX_VLAN : 0) |
                  (was->gro && !now.gro ? PK_OFFLOAD_GRO : 0) |
                  (was->lro && !now.lro ? PK_OFFLOAD_LRO : 0);
    r = on != 0 ? pk_offloads_set(ioctl_fd, name, on, true, err) : 0;
    if (sys == 0 || sys == -ENODEV)
        return sys == 0 ? r : 0;
    (void)pk_fail(err, PK_E_IO, "interface %s: the driver does not take its old %s back: %s", name,
                  pk_nic_setting_name(failed), strerrordesc_np(-sys));
    return pk_hint(err, "set it with ethtool, or reload the driver");
}

/* ---- JSON ---- */

json_t *pk_nic_before_to_json(const struct pk_nic_before *before)
{
    char key[2 * PK_NIC_KEY_MAX + 1] = "";
    for (unsigned i = 0; i < before->facts.hash_key_size && i < PK_NIC_KEY_MAX; i++)
        (void)snprintf(key + 2 * (size_t)i, 3, "%02x", before->hash_key[i]);
    PK_JSON json = pk_nic_facts_to_json(&before->facts);
    if (json == NULL || json_object_set_new(json, "hashKey", json_string(key)) < 0 ||
        json_object_set_new(json, "hashTransform", json_integer(before->hash_transform)) < 0 ||
        json_object_set_new(json, "pauseAutoneg", json_boolean(before->pause_autoneg)) < 0)
        return NULL;
    return PK_TAKE(json);
}

int pk_nic_before_parse(const json_t *json, struct pk_nic_before *ret_before, struct pk_error *err)
{
    struct pk_nic_before before = { .known = true };
    if (!json_is_object(json))
        return pk_fail(err, PK_E_INVALID, "before: 'nic' must be an object");
    pk_nic_facts_from_json(json, &before.facts);
    const char *key = pk_json_string_or(json, "hashKey", "");
    size_t len = strlen(key);
    if (before.facts.hash_key_size > PK_NIC_KEY_MAX ||
        len != 2 * (size_t)before.facts.hash_key_size || strspn(key, "0123456789abcdef") != len)
        return pk_fail(err, PK_E_INVALID, "before: 'hashKey' is not a key of %u bytes",
                       before.facts.hash_key_size);
    for (size_t i = 0; i < len; i++) {
        unsigned digit = (unsigned)(key[i] <= '9' ? key[i] - '0' : key[i] - 'a' + 10);
        before.hash_key[i / 2] = (uint8_t)(before.hash_key[i / 2] << 4 | digit);
    }
    before.hash_transform = (uint8_t)pk_json_int_or(json, "hashTransform", 0);
    before.pause_autoneg = pk_json_bool_or(json, "pauseAutoneg", false);
    *ret_before = before;
    return 0;
}

static int add(json_t *list, const struct pk_nic_change *change)
{
    return json_array_append_new(
        list, json_pack("{s:s,s:s,s:s,s:s*}", "setting", pk_nic_setting_name(change->setting),
                        "from", change->from, "to", change->to, "why",
                        change->why_not[0] != '\0' ? change->why_not : NULL));
}

json_t *pk_nic_status(int ioctl_fd, const char *name, const struct pk_nic_spec *spec,
                      const struct pk_nic_before *before, const struct pk_nic_change *tried,
                      size_t count)
{
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    struct pk_nic_facts now;
    json_t *set = json_array(), *cannot = json_array();
    if (pk_nic_read(ioctl_fd, name, &now, NULL) < 0)
        return json_pack("{s:o,s:o}", "set", set, "cannot", cannot);
    int bad = 0;
    size_t differing = before->known ? pk_nic_compare(&before->facts, &now, changes) : 0;
    for (size_t i = 0; i < differing; i++)
        bad |= add(set, &changes[i]);
    size_t missing = pk_nic_changes(spec, &now, changes);
    for (size_t i = 0; i < missing; i++) {
        for (size_t t = 0; t < count && changes[i].why_not[0] == '\0'; t++)
            if (tried[t].setting == changes[i].setting)
                (void)snprintf(changes[i].why_not, sizeof(changes[i].why_not), "%s",
                               tried[t].why_not);
        if (changes[i].why_not[0] == '\0')
            (void)snprintf(changes[i].why_not, sizeof(changes[i].why_not),
                           "something else on this machine set it back");
        bad |= add(cannot, &changes[i]);
    }
    json_t *json = json_pack("{s:o,s:o}", "set", set, "cannot", cannot);
    if (bad == 0)
        return json;
    json_decref(json);
    return NULL;
}
