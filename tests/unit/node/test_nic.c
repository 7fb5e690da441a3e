/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set-up of a tap's interface. What a network card does is answered by a card of the test's
 * own, below the ioctl() that the code under test makes (this machine has none that could be
 * changed); what veth and tun can do is done to real ones.
 */
#include "pk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/proc.h"
#include "node/internal.h"
#include "node/nic.h"

static struct pk_error err;

/* ---- a card ---- */

#define KEY_SIZE 40u
struct card {
    bool on;
    unsigned rings, rings_max, queues, queues_max;
    bool has_key, toeplitz, has_xor;
    bool old_kernel; /* before 6.8: the transform's byte is reserved */
    uint8_t key[KEY_SIZE], transform;
    unsigned flags; /* ETH_FLAG_* */
    unsigned gro;
    bool rx_pause, tx_pause, autoneg;
    unsigned usecs, adaptive;
    int refuse_rings; /* errno */
    unsigned resets;  /* how often rings or queues were set */
};
static struct card card;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static int rss(struct ethtool_rxfh *rxfh, bool set)
{
    uint8_t *transform = (uint8_t *)rxfh + offsetof(struct ethtool_rxfh, hfunc) + 1;
    if (!card.has_key && !card.has_xor)
        return EOPNOTSUPP;
    if (!set) {
        bool sizes = rxfh->key_size == 0;
        if (!sizes)
            memcpy((uint8_t *)rxfh->rss_config + 4 * 4, card.key, KEY_SIZE);
        rxfh->indir_size = 4;
        rxfh->key_size = KEY_SIZE;
        rxfh->hfunc = card.toeplitz ? 1 : 2;
        *transform = card.transform;
        return 0;
    }
    if (rxfh->indir_size != ETH_RXFH_INDIR_NO_CHANGE || (card.old_kernel && *transform != 0))
        return EINVAL;
    if ((*transform != 0 && !card.has_xor) || (rxfh->key_size != 0 && !card.has_key))
        return EOPNOTSUPP;
    if (rxfh->key_size != 0 && rxfh->key_size != KEY_SIZE)
        return EINVAL;
    if (rxfh->key_size != 0)
        memcpy(card.key, rxfh->rss_config, KEY_SIZE);
    card.transform = *transform;
    return 0;
}

static int answer(void *data)
{
    struct ethtool_value *value = data;
    struct ethtool_ringparam *ring = data;
    struct ethtool_channels *channels = data;
    struct ethtool_pauseparam *pause = data;
    struct ethtool_coalesce *coalesce = data;
    switch (value->cmd) {
    case ETHTOOL_GDRVINFO:
        (void)snprintf(((struct ethtool_drvinfo *)data)->driver, 32, "card");
        return 0;
    case ETHTOOL_GFLAGS:
        value->data = card.flags;
        return 0;
    case ETHTOOL_SFLAGS:
        card.flags = value->data;
        return 0;
    case ETHTOOL_GGRO:
        value->data = card.gro;
        return 0;
    case ETHTOOL_SGRO:
        card.gro = value->data;
        return 0;
    case ETHTOOL_GRINGPARAM:
        if (card.rings_max == 0)
            return EOPNOTSUPP;
        ring->rx_pending = card.rings;
        ring->rx_max_pending = card.rings_max;
        ring->tx_pending = 7;
        return 0;
    case ETHTOOL_SRINGPARAM:
        if (card.refuse_rings != 0)
            return card.refuse_rings;
        if (ring->rx_pending > card.rings_max || ring->tx_pending != 7)
            return EINVAL;
        card.rings = ring->rx_pending;
        card.resets++;
        return 0;
    case ETHTOOL_GCHANNELS:
        channels->combined_count = card.queues;
        channels->max_combined = card.queues_max;
        return 0;
    case ETHTOOL_SCHANNELS:
        card.queues = channels->combined_count;
        card.rings = 256; /* as some drivers do */
        card.resets++;
        return 0;
    case ETHTOOL_GRSSH:
        return rss(data, false);
    case ETHTOOL_SRSSH:
        return rss(data, true);
    case ETHTOOL_GPAUSEPARAM:
        pause->autoneg = card.autoneg;
        pause->rx_pause = card.rx_pause;
        pause->tx_pause = card.tx_pause;
        return 0;
    case ETHTOOL_SPAUSEPARAM:
        card.autoneg = pause->autoneg != 0;
        card.rx_pause = pause->rx_pause != 0;
        card.tx_pause = pause->tx_pause != 0;
        return 0;
    case ETHTOOL_GCOALESCE:
        coalesce->rx_coalesce_usecs = card.usecs;
        coalesce->use_adaptive_rx_coalesce = card.adaptive;
        coalesce->tx_coalesce_usecs = 9;
        return 0;
    case ETHTOOL_SCOALESCE:
        if (coalesce->tx_coalesce_usecs != 9)
            return EINVAL;
        card.usecs = coalesce->rx_coalesce_usecs;
        card.adaptive = coalesce->use_adaptive_rx_coalesce;
        return 0;
    default:
        return EOPNOTSUPP;
    }
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (!card.on || request != SIOCETHTOOL)
        return __real_ioctl(fd, request, arg);
    struct ifreq *interface = arg;
    int sys = strcmp(interface->ifr_name, "card0") == 0 ? answer(interface->ifr_data) : ENODEV;
    errno = sys;
    return sys == 0 ? 0 : -1;
}

static void insert_card(void)
{
    card = (struct card){ .on = true,
                          .rings = 512,
                          .rings_max = 4096,
                          .queues = 4,
                          .queues_max = 8,
                          .has_key = true,
                          .toeplitz = true,
                          .flags = ETH_FLAG_RXVLAN | ETH_FLAG_LRO | ETH_FLAG_NTUPLE,
                          .gro = 1,
                          .rx_pause = true,
                          .tx_pause = true,
                          .autoneg = true,
                          .usecs = 33 };
    for (unsigned i = 0; i < KEY_SIZE; i++)
        card.key[i] = (uint8_t)(17 * i + 3);
}

static size_t apply(const struct pk_nic_spec *spec, bool shared,
                    struct pk_nic_change changes[PK_NIC_SETTINGS])
{
    struct pk_nic_spec resolved = pk_nic_resolve(spec, shared);
    size_t count = 0;
    assert_int_equal(pk_nic_apply(-1, "card0", &resolved, changes, &count, &err), 0);
    return count;
}

static size_t impossible(const struct pk_nic_change *changes, size_t count, const char *why)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += changes[i].why_not[0] != '\0' && (why == NULL || strstr(changes[i].why_not, why));
    return found;
}

/* Through plane.json and back. */
static struct pk_nic_before stored(const struct pk_nic_before *before)
{
    struct pk_nic_before again = { 0 };
    PK_JSON json = pk_nic_before_to_json(before);
    assert_int_equal(pk_nic_before_parse(json, &again, &err), 0);
    return again;
}

static void test_a_card_becomes_a_sensors_and_is_given_back(void **state)
{
    (void)state;
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    const struct pk_nic_spec specs[] = {
        { 0 },
        { .queues = 2, .rings = 1024, .coalesce = PK_NIC_COALESCE_ADAPTIVE },
        { .coalesce = 250 },
        { .queues = 8, .rings = 512 },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(specs); i++) {
        insert_card();
        const struct card was = card;
        struct pk_nic_before before;
        assert_int_equal(pk_nic_remember(-1, "card0", &before, &err), 0);
        before = stored(&before);
        size_t count = apply(&specs[i], false, changes);
        assert_int_equal(impossible(changes, count, NULL), 0);
        assert_int_equal(card.rings, i == 1 ? 1024 : i == 3 ? 512 : 4096);
        assert_int_equal(card.queues, i == 1 ? 2 : i == 3 ? 8 : 4);
        assert_int_equal(card.flags, ETH_FLAG_NTUPLE);
        assert_int_equal(card.gro, 0);
        assert_false(card.rx_pause || card.tx_pause);
        assert_int_equal(card.adaptive, i == 1);
        assert_int_equal(card.usecs, i == 2 ? 250 : 33);
        for (unsigned k = 0; k < KEY_SIZE; k++)
            assert_int_equal(card.key[k], k % 2 == 0 ? 0x6d : 0x5a);
        /* Once is enough. */
        unsigned resets = card.resets;
        assert_int_equal(apply(&specs[i], false, changes), 0);
        assert_int_equal(card.resets, resets);
        struct pk_nic_spec resolved = pk_nic_resolve(&specs[i], false);
        PK_JSON status = pk_nic_status(-1, "card0", &resolved, &before, changes, 0);
        /* Rings that went and came back are no difference. */
        assert_int_equal(json_array_size(json_object_get(status, "set")), count - (i == 3));
        assert_int_equal(json_array_size(json_object_get(status, "cannot")), 0);

        assert_int_equal(pk_nic_restore(-1, "card0", &before, &err), 0);
        card.resets = 0;
        assert_memory_equal(&card, &was, sizeof(card));
    }
}

static void test_a_tunnels_interface_keeps_what_the_machine_needs(void **state)
{
    (void)state;
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    insert_card();
    assert_int_equal(apply(&(struct pk_nic_spec){ 0 }, true, changes), 1);
    assert_int_equal(changes[0].setting, PK_NIC_LRO); /* there is no XDP with it */
    assert_int_equal(card.resets, 0);
    assert_int_equal(card.flags, ETH_FLAG_NTUPLE | ETH_FLAG_RXVLAN);
    assert_int_equal(card.gro, 1);
    assert_true(card.rx_pause);
    /* What is asked for in words is done. */
    assert_int_equal(apply(&(struct pk_nic_spec){ .rings = PK_NIC_MAX }, true, changes), 1);
    assert_int_equal(card.rings, 4096);
}

static void test_what_a_card_cannot_do_is_told(void **state)
{
    (void)state;
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    insert_card();
    card.rings_max = 0;
    card.has_key = false;
    card.queues_max = 0;
    size_t count = apply(&(struct pk_nic_spec){ .queues = 2 }, false, changes);
    assert_int_equal(impossible(changes, count, "number of queues"), 1);
    assert_int_equal(impossible(changes, count, "no ring sizes"), 1);
    assert_int_equal(impossible(changes, count, "hash"), 1);
    assert_int_equal(impossible(changes, count, NULL), 3);

    insert_card();
    card.refuse_rings = EBUSY;
    count = apply(&(struct pk_nic_spec){ .queues = 9 }, false, changes);
    assert_int_equal(impossible(changes, count, "at most 8 queues"), 1);
    assert_int_equal(impossible(changes, count, "in use"), 1);
    assert_int_equal(card.gro, 0); /* the rest is done */
    struct pk_nic_before before = { 0 };
    struct pk_nic_spec spec = pk_nic_resolve(&(struct pk_nic_spec){ .queues = 9 }, false);
    PK_JSON status = pk_nic_status(-1, "card0", &spec, &before, changes, count);
    assert_int_equal(json_array_size(json_object_get(status, "cannot")), 2);
    card.gro = 1;
    PK_JSON later = pk_nic_status(-1, "card0", &spec, &before, changes, count);
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(later);
    assert_non_null(strstr(text, "set it back"));

    card.on = true;
    assert_int_equal(pk_nic_apply(-1, "card1", &spec, changes, &count, &err), PK_E_NOTFOUND);
}

static void test_symmetric_hashes(void **state)
{
    (void)state;
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    struct pk_nic_facts facts;
    for (unsigned form = 0; form < 4; form++) {
        insert_card();
        card.old_kernel = form == 1;
        card.has_xor = form >= 2;
        card.toeplitz = form < 2;
        card.has_key = form != 3;
        uint8_t key[KEY_SIZE];
        memcpy(key, card.key, KEY_SIZE);
        struct pk_nic_before before;
        assert_int_equal(pk_nic_remember(-1, "card0", &before, &err), 0);
        before = stored(&before);
        assert_int_equal(before.facts.hash, PK_NIC_HASH_OTHER);
        size_t count = apply(&(struct pk_nic_spec){ 0 }, false, changes);
        assert_int_equal(impossible(changes, count, NULL), 0);
        assert_int_equal(pk_nic_read(-1, "card0", &facts, &err), 0);
        assert_int_equal(facts.hash, form < 2 ? PK_NIC_HASH_KEY : PK_NIC_HASH_XOR);
        if (form == 3) /* its key cannot be set, so it is not put back either */
            continue;
        assert_int_equal(pk_nic_restore(-1, "card0", &before, &err), 0);
        assert_memory_equal(card.key, key, KEY_SIZE);
        assert_int_equal(card.transform, 0);
    }
    insert_card(); /* one queue needs no hash */
    card.queues = 1;
    (void)apply(&(struct pk_nic_spec){ 0 }, false, changes);
    assert_int_equal(card.key[0], 3);
    insert_card();
    (void)apply(&(struct pk_nic_spec){ .no_symmetric_hash = 1 }, false, changes);
    assert_int_equal(card.key[0], 3);
}

static void test_bad_memories_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[]",
        "{\"hashKeyBytes\":4,\"hashKey\":\"6d\"}",
        "{\"hashKeyBytes\":1,\"hashKey\":\"6x\"}",
        "{\"hashKeyBytes\":4000}",
        "{\"hashKey\":\"6d5a\"}",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        PK_JSON json = NULL;
        struct pk_nic_before before;
        assert_int_equal(pk_json_parse("x", bad[i], strlen(bad[i]), &json, &err), 0);
        assert_int_equal(pk_nic_before_parse(json, &before, &err), PK_E_INVALID);
    }
}

static void test_specs_go_through_json(void **state)
{
    (void)state;
    const struct pk_nic_spec specs[] = {
        { 0 },
        { .rings = PK_NIC_MAX,
          .queues = 3,
          .no_symmetric_hash = 1,
          .vlan = PK_NIC_OFF,
          .merge = PK_NIC_LEAVE,
          .pause = PK_NIC_LEAVE,
          .coalesce = PK_NIC_COALESCE_ADAPTIVE },
        { .rings = PK_NIC_KEEP, .coalesce = 7 },
        { .rings = 65536 },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(specs); i++) {
        PK_JSON json = pk_nic_spec_to_json(&specs[i]);
        struct pk_nic_spec again;
        assert_int_equal(pk_nic_spec_parse(json, &again, &err), 0);
        assert_memory_equal(&again, &specs[i], sizeof(again));
    }
    static const char *const bad[] = {
        "[]",           "{\"rings\":0}",   "{\"rings\":65537}",        "{\"rings\":\"many\"}",
        "{\"ring\":4}", "{\"queues\":-1}", "{\"symmetricHash\":true}", "{\"vlanOffload\":1}"
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        PK_JSON json = NULL;
        struct pk_nic_spec spec;
        assert_int_equal(pk_json_parse("x", bad[i], strlen(bad[i]), &json, &err), 0);
        assert_int_equal(pk_nic_spec_parse(json, &spec, &err), PK_E_INVALID);
        assert_string_not_equal(i == 0 ? "x" : err.hint, "");
    }
}

/* ---- real interfaces ---- */

static bool own_network(void)
{
    card.on = false;
    return geteuid() == 0 && unshare(CLONE_NEWNET) == 0;
}

static void test_a_real_veth(void **state)
{
    (void)state;
    if (!own_network())
        PK_SKIP("needs root, for a network of its own");
    static const char *const add[] = {
        "ip",   "link", "add",  "v0", "numrxqueues", "4", "numtxqueues", "4", "type",
        "veth", "peer", "name", "v1", "numrxqueues", "4", "numtxqueues", "4", NULL
    };
    if (pk_proc_check(&(struct pk_proc_options){ .argv = add }, NULL, &err) < 0)
        PK_SKIP("cannot make a veth pair with four queues");
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pk_nic_facts was, now;
    struct pk_nic_before before;
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    size_t count = 0;
    assert_int_equal(pk_offloads_set(fd, "v0", PK_OFFLOAD_GRO, true, &err), 0);
    assert_int_equal(pk_nic_read(fd, "v0", &was, &err), 0);
    assert_string_equal(was.driver, "veth");
    assert_int_equal(was.queues_max, 4);
    assert_int_equal(pk_nic_remember(fd, "v0", &before, &err), 0);
    struct pk_nic_spec spec =
        pk_nic_resolve(&(struct pk_nic_spec){ .queues = was.queues == 2 ? 3 : 2 }, false);
    assert_int_equal(pk_nic_apply(fd, "v0", &spec, changes, &count, &err), 0);
    assert_int_equal(pk_nic_read(fd, "v0", &now, &err), 0);
    assert_int_equal(now.queues, spec.queues);
    assert_false(now.gro);
    assert_int_equal(impossible(changes, count, "no ring sizes"), 1);
    assert_int_equal(pk_nic_restore(fd, "v0", &before, &err), 0);
    assert_int_equal(pk_nic_read(fd, "v0", &now, &err), 0);
    assert_memory_equal(&now, &was, sizeof(now));
}

static void test_a_real_tun(void **state)
{
    (void)state;
    if (!own_network())
        PK_SKIP("needs root, for a network of its own");
    PK_CLEANUP(pk_close_p) int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "t0");
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0)
        PK_SKIP("cannot make a tap device");
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pk_nic_facts was, now;
    struct pk_nic_before before;
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    size_t count = 0;
    assert_int_equal(pk_nic_read(fd, "t0", &was, &err), 0);
    assert_int_equal(pk_nic_remember(fd, "t0", &before, &err), 0);
    struct pk_nic_spec spec = pk_nic_resolve(&(struct pk_nic_spec){ .coalesce = 50 }, false);
    assert_int_equal(pk_nic_apply(fd, "t0", &spec, changes, &count, &err), 0);
    /* tun counts packets, not time: it says so, or takes the number, but never half of it. */
    assert_int_equal(pk_nic_read(fd, "t0", &now, &err), 0);
    assert_true(impossible(changes, count, NULL) > 0);
    assert_false(now.gro);
    assert_int_equal(pk_nic_restore(fd, "t0", &before, &err), 0);
    assert_int_equal(pk_nic_read(fd, "t0", &now, &err), 0);
    assert_memory_equal(&now, &was, sizeof(now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_card_becomes_a_sensors_and_is_given_back),
        cmocka_unit_test(test_a_tunnels_interface_keeps_what_the_machine_needs),
        cmocka_unit_test(test_what_a_card_cannot_do_is_told),
        cmocka_unit_test(test_symmetric_hashes),
        cmocka_unit_test(test_bad_memories_are_refused),
        cmocka_unit_test(test_specs_go_through_json),
        cmocka_unit_test(test_a_real_veth),
        cmocka_unit_test(test_a_real_tun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
