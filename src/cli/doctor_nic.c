/* SPDX-License-Identifier: Apache-2.0 */
/* Each physical interface: what would change or hide packets before the broker sees them. */
#include "cli/doctor.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>

#include "base/fs.h"

struct nic {
    char driver[33];
    bool gro, lro, rxvlan;
    unsigned ring, ring_max, queues, queues_max;
};

static int ethtool(int fd, const char *name, void *data)
{
    struct ifreq request = { 0 };
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    request.ifr_data = data;
    return ioctl(fd, SIOCETHTOOL, &request);
}

static bool ethtool_flag(int fd, const char *name, uint32_t command, uint32_t bit)
{
    struct ethtool_value value = { .cmd = command };
    return ethtool(fd, name, &value) == 0 && (value.data & bit) != 0;
}

static void read_nic(int fd, const char *name, struct nic *nic)
{
    memset(nic, 0, sizeof(*nic));
    struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
    if (ethtool(fd, name, &driver) == 0)
        (void)snprintf(nic->driver, sizeof(nic->driver), "%.32s", driver.driver);
    nic->gro = ethtool_flag(fd, name, ETHTOOL_GGRO, UINT32_MAX);
    nic->lro = ethtool_flag(fd, name, ETHTOOL_GFLAGS, ETH_FLAG_LRO);
    nic->rxvlan = ethtool_flag(fd, name, ETHTOOL_GFLAGS, ETH_FLAG_RXVLAN);
    struct ethtool_ringparam ring = { .cmd = ETHTOOL_GRINGPARAM };
    if (ethtool(fd, name, &ring) == 0) {
        nic->ring = ring.rx_pending;
        nic->ring_max = ring.rx_max_pending;
    }
    struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
    if (ethtool(fd, name, &channels) == 0) {
        nic->queues = channels.combined_count + channels.rx_count;
        nic->queues_max = channels.max_combined + channels.max_rx;
    }
}

/* Links that picket or a container engine made are no taps. */
static bool physical(const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/sys/class/net/%s/device", name);
    return pk_file_exists(path);
}

static void report_nic(struct pk_doctor *doctor, const char *name, const struct nic *nic, bool up)
{
    char trouble[200] = "", fix[200] = "";
    if (nic->lro)
        (void)snprintf(trouble, sizeof(trouble), "; LRO merges packets");
    if (nic->rxvlan) {
        size_t used = strlen(trouble);
        (void)snprintf(trouble + used, sizeof(trouble) - used,
                       "; VLAN tags are stripped before XDP");
    }
    if (nic->ring_max > 0 && nic->ring < 1024 && nic->ring < nic->ring_max) {
        size_t used = strlen(trouble);
        (void)snprintf(trouble + used, sizeof(trouble) - used, "; short receive ring");
        (void)snprintf(fix, sizeof(fix), "ethtool -G %s rx %u", name, PK_MIN(nic->ring_max, 4096u));
    }
    if (nic->lro || nic->rxvlan) {
        size_t used = strlen(fix);
        (void)snprintf(fix + used, sizeof(fix) - used,
                       "%sa tap on %s switches these offloads off itself", used > 0 ? "; " : "",
                       name);
    }
    pk_doctor_report(doctor, trouble[0] == '\0' ? PK_VERDICT_OK : PK_VERDICT_NOTE, fix,
                     "%s: %s, %s, %u of %u queues, ring %u of %u, GRO %s%s", name,
                     nic->driver[0] != '\0' ? nic->driver : "driver unknown", up ? "up" : "down",
                     nic->queues, nic->queues_max, nic->ring, nic->ring_max,
                     nic->gro ? "on" : "off", trouble);
}

void pk_doctor_interfaces(struct pk_doctor *doctor)
{
    PK_CLEANUP(pk_close_p) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *list = if_nameindex();
    if (fd < 0 || list == NULL) {
        if (list != NULL)
            if_freenameindex(list);
        return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, NULL, "cannot list interfaces: %s",
                                strerrorname_np(errno));
    }
    unsigned found = 0;
    for (struct if_nameindex *at = list; at->if_index != 0; at++) {
        if (!physical(at->if_name))
            continue;
        found++;
        struct nic nic;
        read_nic(fd, at->if_name, &nic);
        struct ifreq request = { 0 };
        (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", at->if_name);
        bool up = ioctl(fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0;
        report_nic(doctor, at->if_name, &nic, up);
    }
    if_freenameindex(list);
    if (found == 0)
        pk_doctor_report(doctor, PK_VERDICT_NOTE, "replay taps work all the same",
                         "no physical network interface here");
}
