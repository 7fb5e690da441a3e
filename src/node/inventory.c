/* SPDX-License-Identifier: Apache-2.0 */
/* What GET /v1/node tells about the machine. */
#include <dirent.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"
#include "node/internal.h"

/* A short file of /sys without the newline; "" when it cannot be read. */
static void read_short(const char *path, char *out, size_t size)
{
    char *text = NULL;
    size_t len = 0;
    out[0] = '\0';
    if (pk_file_read(path, 4096, &text, &len, NULL) < 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    (void)snprintf(out, size, "%s", text);
    pk_free(text);
}

static unsigned count_entries(const char *path, const char *prefix)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return 0;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        size_t len = strlen(prefix);
        if (strncmp(entry->d_name, prefix, len) == 0 && entry->d_name[len] >= '0' &&
            entry->d_name[len] <= '9')
            count++;
    }
    (void)closedir(dir);
    return count;
}

static void driver_of(const char *name, bool is_veth, char *out, size_t size)
{
    char path[64], target[256];
    (void)snprintf(path, sizeof(path), "/sys/class/net/%s/device/driver", name);
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    if (n <= 0) { /* software links have no device */
        (void)snprintf(out, size, "%s", is_veth ? "veth" : "");
        return;
    }
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    (void)snprintf(out, size, "%.63s", slash != NULL ? slash + 1 : target);
}

struct listing {
    const char *tag;
    int ioctl_fd;
    json_t *list;
    bool failed;
};

static void add_interface(void *arg, const struct pk_link *link)
{
    struct listing *listing = arg;
    if (pk_str_starts(link->name, listing->tag)) /* our own lanes and replay taps */
        return;
    char path[64], state[16], speed[16], driver[64];
    (void)snprintf(path, sizeof(path), "/sys/class/net/%s/operstate", link->name);
    read_short(path, state, sizeof(state));
    (void)snprintf(path, sizeof(path), "/sys/class/net/%s/speed", link->name);
    read_short(path, speed, sizeof(speed));
    driver_of(link->name, link->is_veth, driver, sizeof(driver));
    int64_t mbps = 0; /* -1 or no answer while the link is down */
    if (pk_parse_i64(speed, &mbps, NULL) < 0 || mbps < 0)
        mbps = 0;
    struct pk_nic_facts facts;
    bool known = pk_nic_read(listing->ioctl_fd, link->name, &facts, NULL) == 0;
    bool has_route = false;
    (void)pk_link_has_default_route(link->name, &has_route, NULL);
    if (json_array_append_new(listing->list,
                              json_pack("{s:s,s:I,s:s,s:i,s:I,s:s,s:b,s:o*}", "name", link->name,
                                        "mtu", (json_int_t)link->mtu, "driver", driver, "queues",
                                        (int)link->queues, "speedMbps", (json_int_t)mbps, "state",
                                        (link->flags & IFF_LOOPBACK) != 0 ? "loopback" : state,
                                        "defaultRoute", (int)has_route, "setup",
                                        known ? pk_nic_facts_to_json(&facts) : NULL)) < 0)
        listing->failed = true;
}

int pk_node_inventory(struct nl_sock *nl, int ioctl_fd, const char *tag, json_t **ret_json,
                      struct pk_error *err)
{
    struct utsname name;
    (void)uname(&name);
    struct listing listing = { .tag = tag, .ioctl_fd = ioctl_fd, .list = json_array() };
    int r = pk_link_each(nl, add_interface, &listing, err);
    if (r < 0) {
        json_decref(listing.list);
        return r;
    }
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned nodes = count_entries("/sys/devices/system/node", "node");
    json_t *json = json_pack("{s:s,s:s,s:i,s:i,s:I,s:i,s:s,s:o}", "hostname", name.nodename,
                             "kernel", name.release, "cpus", (int)cpus, "numaNodes",
                             (int)PK_MAX(nodes, 1u), "memoryBytes", (json_int_t)pages * page, "pid",
                             (int)getpid(), "version", PICKET_VERSION, "interfaces", listing.list);
    if (json == NULL || listing.failed) {
        json_decref(json);
        return pk_no_memory(err);
    }
    *ret_json = json;
    return 0;
}
