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

#include <net/if.h>

#include "base/buf.h"
#include "base/fs.h"
#include "node/nic.h"

/* Links that picket or a container engine made are no taps. */
static bool physical(const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/sys/class/net/%s/device", name);
    return pk_file_exists(path);
}

/* What a tap on the interface would change, and what it could not. */
static void report_nic(struct pk_doctor *doctor, const char *name, const struct pk_nic_facts *facts,
                       bool up)
{
    const struct pk_nic_spec spec = pk_nic_resolve(&(struct pk_nic_spec){ 0 }, false);
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    size_t count = pk_nic_changes(&spec, facts, changes);
    char sets[240] = "", cannot[240] = "";
    for (size_t i = 0; i < count; i++) {
        bool can = changes[i].why_not[0] == '\0';
        char *out = can ? sets : cannot;
        size_t used = strlen(out);
        const char *between = used > 0 ? ", " : "";
        const char *what = pk_nic_setting_name(changes[i].setting);
        if (can)
            (void)snprintf(out + used, sizeof(sets) - used, "%s%s %s -> %s", between, what,
                           changes[i].from, changes[i].to);
        else
            (void)snprintf(out + used, sizeof(cannot) - used, "%s%s (%s)", between, what,
                           changes[i].why_not);
    }
    char fix[320] = "";
    if (sets[0] != '\0')
        (void)snprintf(fix, sizeof(fix),
                       "a tap on %s sets it up itself and puts it back when it goes: %s", name,
                       sets);
    pk_doctor_report(doctor, cannot[0] == '\0' ? PK_VERDICT_OK : PK_VERDICT_NOTE, fix,
                     "%s: %s, %s, %u of %u queues, ring %u of %u, GRO %s%s%s", name,
                     facts->driver[0] != '\0' ? facts->driver : "driver unknown",
                     up ? "up" : "down", facts->queues, facts->queues_max, facts->rings,
                     facts->rings_max, facts->gro ? "on" : "off",
                     cannot[0] != '\0' ? "; cannot be set: " : "", cannot);
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
        struct pk_nic_facts nic = { 0 };
        (void)pk_nic_read(fd, at->if_name, &nic, NULL);
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
