/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of lost packets, as drivers call them. What a program of ours dropped is no loss of the
 * interface, so counters that hold it are left out, or what it dropped is taken off.
 */
#include "node/loss.h"

#include <errno.h>
#include <fnmatch.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <netlink/netlink.h>
#include <netlink/route/link.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/time.h"
#include "node/internal.h"

#define STATS_MAX 16384u /* mlx5 with 128 queues has some 5,000 */
#define NAMES_MAX 64u

/* The causes are those of the ledger (fleet/ledger_causes.c). driver "" = any; "!a b" = any but.
 * Names are patterns (fnmatch); minus is taken off. Sources: each driver's *_ethtool.c and
 * ndo_get_stats64, Documentation/networking/statistics.rst. */
/* clang-format off */
static const struct {
    const char *driver, *name, *minus, *cause;
} rules[] = {
    { "", "rtnl:rx_missed_errors", NULL, "ring" },
    { "", "rtnl:rx_fifo_errors", NULL, "ring" },
    { "", "rtnl:rx_over_errors", NULL, "ring" },
    { "", "rx_missed*", NULL, "ring" },
    { "", "rx_out_of_buffer", NULL, "ring" },                  /* mlx5 */
    { "", "rx_discards", NULL, "ring" },                       /* tg3, nfp */
    { "", "rx_nodesc_drop*", NULL, "ring" },                   /* sfc */
    { "", "rx_no_dma_resources", NULL, "ring" },               /* ixgbe */
    { "", "port.rx_dropped", NULL, "ring" },                   /* i40e, iavf */
    { "", "rx_dropped.nic", NULL, "ring" },                    /* ice */
    { "bnxt_en", "\\[*\\]: rx_discards", NULL, "ring" },
    { "bnxt_en", "rx_total_discard_pkts", NULL, "ring" },
    { "bnx2x", "\\[*\\]: rx_discards", NULL, "ring" },
    { "ena", "rx_drops", NULL, "ring" },
    { "ena", "rx_overruns", NULL, "ring" },
    { "gve", "rx_queue_drop_cnt*", NULL, "ring" },
    { "vmxnet3", "*pkts rx OOB*", NULL, "ring" },
    { "virtio_net", "rx*_hw_drop_overruns", NULL, "ring" },
    { "atlantic", "InDroppedDma", NULL, "ring" },
    { "igb", "rx_queue_*_drops", NULL, "ring" },
    { "mlx5_core", "rx_discards_phy", NULL, "port" },
    { "sfc", "port_rx_overflow", NULL, "port" },
    { "", "rtnl:rx_crc_errors", NULL, "damaged" },
    { "", "rtnl:rx_frame_errors", NULL, "damaged" },
    { "", "rx_crc_errors_phy", NULL, "damaged" },
    { "", "rx_symbol_err_phy", NULL, "damaged" },
    { "", "rx_crc_errors.nic", NULL, "damaged" },
    { "", "port.rx_crc_errors", NULL, "damaged" },
    { "", "rtnl:rx_length_errors", NULL, "length" },
    { "", "rx_oversize_pkts_phy", NULL, "length" },
    { "", "port.rx_oversize", NULL, "length" },
    /* Those left out count what XDP dropped among it; virtio tells both. */
    { "!veth virtio_net tun igb", "rtnl:rx_dropped", NULL, "driver" },
    { "virtio_net", "rx*_drops", "rx*_xdp_drops", "driver" },
    { "vmxnet3", "*drv dropped rx total*", NULL, "driver" },
    { "veth", "peer:tx_dropped", NULL, "sender" },
};
/* clang-format on */

static bool is_driver(const char *wanted, const char *driver)
{
    if (wanted[0] == '\0')
        return true;
    const char *list = wanted + (wanted[0] == '!');
    size_t len = strlen(driver);
    bool found = false;
    for (const char *at = list; *at != '\0'; at += strcspn(at, " "), at += *at == ' ')
        found |= strcspn(at, " ") == len && strncmp(at, driver, len) == 0;
    return wanted[0] == '!' ? !found : found;
}

/* All counters that match the pattern. A rule's own minus may match it too ("rx*_xdp_drops" is a
 * "rx*_drops"): not counted twice. */
static uint64_t sum_of(const struct pk_loss_counter *counters, size_t count, const char *pattern,
                       const char *but, json_t *names)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = counters[i].name;
        if (counters[i].value == 0 || fnmatch(pattern, name, 0) != 0 ||
            (but != NULL && fnmatch(but, name, 0) == 0))
            continue;
        sum += counters[i].value;
        if (json_object_size(names) < NAMES_MAX)
            (void)json_object_set_new(names, name, json_integer((json_int_t)counters[i].value));
    }
    return sum;
}

json_t *pk_loss_sum(const char *driver, const struct pk_loss_counter *counters, size_t count)
{
    PK_JSON lost = json_object();
    PK_JSON names = json_object();
    for (size_t i = 0; i < PK_ARRAY_SIZE(rules); i++) {
        if (!is_driver(rules[i].driver, driver))
            continue;
        uint64_t sum = sum_of(counters, count, rules[i].name, rules[i].minus, names);
        uint64_t minus =
            rules[i].minus != NULL ? sum_of(counters, count, rules[i].minus, NULL, names) : 0;
        json_int_t packets = sum > minus ? (json_int_t)PK_MIN(sum - minus, (uint64_t)INT64_MAX) : 0;
        json_t *known = json_object_get(lost, rules[i].cause);
        /* A cause that can be told is there with 0, so that its growth is seen from the start. */
        if (known == NULL || json_integer_value(known) < packets)
            (void)json_object_set_new(lost, rules[i].cause, json_integer(packets));
    }
    return json_pack("{s:O,s:O}", "lost", lost, "names", names);
}

/* ---- reading ---- */

struct listing {
    struct pk_loss_counter *counters;
    size_t count, room;
    char *strings; /* of the driver's names, each ends with NUL */
};

static void listing_done(struct listing *listing)
{
    pk_free(listing->counters);
    pk_free(listing->strings);
}

static void add(struct listing *listing, const char *name, uint64_t value)
{
    if (listing->count < listing->room)
        listing->counters[listing->count++] = (struct pk_loss_counter){ name, value };
}

static int ask(int ioctl_fd, const char *interface, void *data)
{
    struct ifreq request = { .ifr_data = data };
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    return ioctl(ioctl_fd, SIOCETHTOOL, &request) < 0 ? -errno : 0;
}

/* The driver's own statistics; one that has none is no error. */
static int add_driver(struct listing *listing, int ioctl_fd, const char *interface, size_t n,
                      struct pk_error *err)
{
    if (n == 0)
        return 0;
    struct ethtool_gstrings *strings = pk_zalloc(sizeof(*strings) + n * (ETH_GSTRING_LEN + 1));
    struct ethtool_stats *stats = pk_zalloc(sizeof(*stats) + n * sizeof(uint64_t));
    int r = strings != NULL && stats != NULL ? 0 : pk_no_memory(err);
    if (r == 0) {
        strings->cmd = ETHTOOL_GSTRINGS;
        strings->string_set = ETH_SS_STATS;
        strings->len = (uint32_t)n;
        stats->cmd = ETHTOOL_GSTATS;
        stats->n_stats = (uint32_t)n;
        if (ask(ioctl_fd, interface, strings) < 0 || ask(ioctl_fd, interface, stats) < 0)
            strings->len = 0;
        listing->strings = pk_zalloc_array(n, ETH_GSTRING_LEN + 1);
        if (listing->strings == NULL)
            r = pk_no_memory(err);
    }
    /* The number may have changed between the calls: queues come and go. */
    for (size_t i = 0; r == 0 && i < n && i < strings->len && i < stats->n_stats; i++) {
        char *name = listing->strings + i * (ETH_GSTRING_LEN + 1);
        memcpy(name, strings->data + i * ETH_GSTRING_LEN, ETH_GSTRING_LEN);
        add(listing, name, stats->data[i]);
    }
    pk_free(strings);
    pk_free(stats);
    return r;
}

static void add_rtnl(struct listing *listing, struct rtnl_link *link)
{
    static const struct {
        rtnl_link_stat_id_t id;
        const char *name;
    } stats[] = {
        { RTNL_LINK_RX_MISSED_ERR, "rtnl:rx_missed_errors" },
        { RTNL_LINK_RX_FIFO_ERR, "rtnl:rx_fifo_errors" },
        { RTNL_LINK_RX_OVER_ERR, "rtnl:rx_over_errors" },
        { RTNL_LINK_RX_CRC_ERR, "rtnl:rx_crc_errors" },
        { RTNL_LINK_RX_FRAME_ERR, "rtnl:rx_frame_errors" },
        { RTNL_LINK_RX_LEN_ERR, "rtnl:rx_length_errors" },
        { RTNL_LINK_RX_DROPPED, "rtnl:rx_dropped" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(stats); i++)
        add(listing, stats[i].name, rtnl_link_get_stat(link, stats[i].id));
}

/* The other end of a veth pair, when it is in this namespace too: what the ring did not take is
 * counted there. */
static void add_peer(struct listing *listing, struct nl_sock *nl, struct rtnl_link *link)
{
    struct rtnl_link *peer = NULL;
    int32_t other_netns = 0;
    int index = rtnl_link_get_link(link);
    if (index <= 0 || rtnl_link_get_link_netnsid(link, &other_netns) == 0 ||
        rtnl_link_get_kernel(nl, index, NULL, &peer) < 0)
        return;
    if (rtnl_link_get_link(peer) == rtnl_link_get_ifindex(link))
        add(listing, "peer:tx_dropped", rtnl_link_get_stat(peer, RTNL_LINK_TX_DROPPED));
    rtnl_link_put(peer);
}

static int read_all(struct nl_sock *nl, int ioctl_fd, const char *interface, struct rtnl_link *link,
                    json_t **ret_json, struct pk_error *err)
{
    struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
    if (ask(ioctl_fd, interface, &info) < 0)
        info.n_stats = 0;
    info.driver[sizeof(info.driver) - 1] = '\0';
    size_t n = PK_MIN(info.n_stats, STATS_MAX);
    PK_CLEANUP(listing_done) struct listing listing = { .room = n + 16 };
    listing.counters = pk_zalloc_array(listing.room, sizeof(*listing.counters));
    if (listing.counters == NULL)
        return pk_no_memory(err);
    add_rtnl(&listing, link);
    if (strcmp(info.driver, "veth") == 0)
        add_peer(&listing, nl, link);
    int r = add_driver(&listing, ioctl_fd, interface, n, err);
    if (r < 0)
        return r;
    json_t *json = pk_loss_sum(info.driver, listing.counters, listing.count);
    if (json == NULL ||
        json_object_set_new(json, "began", json_integer(rtnl_link_get_ifindex(link))) < 0) {
        json_decref(json);
        return pk_no_memory(err);
    }
    json_t *driver = json_string(info.driver);
    if (driver != NULL) /* no UTF-8: not told */
        (void)json_object_set_new(json, "driver", driver);
    *ret_json = json;
    return 0;
}

int pk_loss_read(struct nl_sock *nl, int ioctl_fd, const char *interface, json_t **ret_json,
                 struct pk_error *err)
{
    struct rtnl_link *link = NULL;
    int r = rtnl_link_get_kernel(nl, 0, interface, &link);
    if (r < 0)
        return pk_fail(err, PK_E_NOTFOUND, "interface %s: %s", interface, nl_geterror(r));
    r = read_all(nl, ioctl_fd, interface, link, ret_json, err);
    rtnl_link_put(link);
    return r;
}

/* Drivers with thousands of counters take milliseconds to tell them: once a second is enough. */
#define LOSS_EVERY PK_NSEC_PER_SEC

json_t *pk_loss_of_tap(struct nl_sock *nl, int ioctl_fd, struct pk_tap *tap)
{
    pk_nsec now = pk_time_monotonic();
    if (tap->ifindex == 0)
        return json_null();
    if (tap->loss == NULL || now - tap->loss_at >= LOSS_EVERY) {
        json_t *loss = NULL;
        tap->loss_at = now;
        if (pk_loss_read(nl, ioctl_fd, tap->interface, &loss, NULL) == 0) {
            json_decref(tap->loss);
            tap->loss = loss;
        }
    }
    return tap->loss != NULL ? json_incref(tap->loss) : json_null();
}
