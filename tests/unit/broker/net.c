/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "base/proc.h"

bool net_begin(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0 ||
        !net_run("ip", "link", "set", "lo", "up", NULL)) {
        printf("1..0 # SKIP needs root, network namespaces and a BPF file system (%s)\n",
               strerror(errno));
        return false;
    }
    return true;
}

bool net_run(const char *command, ...)
{
    const char *argv[32] = { command };
    va_list args;
    va_start(args, command);
    for (unsigned i = 1; i < 31 && (argv[i] = va_arg(args, const char *)) != NULL; i++)
        ;
    va_end(args);
    struct pk_error err = { 0 };
    struct pk_buf out = PK_BUF_INIT(4096);
    int r =
        pk_proc_check(&(struct pk_proc_options){ .argv = argv, .timeout_ms = 10000 }, &out, &err);
    pk_buf_done(&out);
    if (r < 0)
        fprintf(stderr, "%s\n", err.msg);
    return r >= 0;
}

void net_quiet(const char *interface)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", interface);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        assert_int_equal(write(fd, "1", 1), 1);
        close(fd);
    }
}

unsigned net_veth(const char *a, const char *b, unsigned mtu)
{
    char text[16];
    snprintf(text, sizeof text, "%u", mtu);
    assert_true(net_run("ip", "link", "add", a, "mtu", text, "type", "veth", "peer", "name", b,
                        "mtu", text, NULL));
    net_quiet(a);
    net_quiet(b);
    assert_true(net_run("ip", "link", "set", a, "arp", "off", "up", NULL));
    assert_true(net_run("ip", "link", "set", b, "arp", "off", "up", NULL));
    return if_nametoindex(a);
}

struct entry {
    int netns_fd;
    void (*fn)(void *);
    void *arg;
};

static void *enter(void *arg)
{
    struct entry *entry = arg;
    if (setns(entry->netns_fd, CLONE_NEWNET) == 0)
        entry->fn(entry->arg);
    return NULL;
}

void net_in(int netns_fd, void (*fn)(void *), void *arg)
{
    struct entry entry = { netns_fd, fn, arg };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, enter, &entry), 0);
    pthread_join(thread, NULL);
}

static void *make_namespace(void *arg)
{
    int *fd = arg;
    if (unshare(CLONE_NEWNET) == 0)
        *fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return NULL;
}

static void set_up(void *arg)
{
    (void)arg;
    /* /proc/sys shows the namespace of the thread that opens it. */
    net_quiet("tap0");
    net_run("ip", "link", "set", "tap0", "arp", "off", "up", NULL);
}

void net_lane_make(struct net_lane *lane, const char *host, unsigned mtu)
{
    pthread_t thread;
    *lane = (struct net_lane){ .netns_fd = -1 };
    snprintf(lane->host, sizeof lane->host, "%s", host);
    assert_int_equal(pthread_create(&thread, NULL, make_namespace, &lane->netns_fd), 0);
    pthread_join(thread, NULL);
    assert_true(lane->netns_fd >= 0);
    char text[16], path[64];
    snprintf(text, sizeof text, "%u", mtu);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), lane->netns_fd);
    assert_true(net_run("ip", "link", "add", host, "mtu", text, "type", "veth", "peer", "name",
                        "tap0", "mtu", text, "netns", path, NULL));
    net_quiet(host);
    assert_true(net_run("ip", "link", "set", host, "arp", "off", "up", NULL));
    net_in(lane->netns_fd, set_up, NULL);
    lane->host_ifindex = if_nametoindex(host);
    assert_true(lane->host_ifindex > 0);
}

void net_lane_drop(struct net_lane *lane)
{
    if (if_nametoindex(lane->host) != 0)
        assert_true(net_run("ip", "link", "del", lane->host, NULL));
    close(lane->netns_fd);
}

struct socket_in {
    const char *interface;
    int fd;
};

static void open_socket(void *arg)
{
    struct socket_in *in = arg;
    struct sockaddr_ll address = { .sll_family = AF_PACKET,
                                   .sll_protocol = htons(ETH_P_ALL),
                                   .sll_ifindex = (int)if_nametoindex(in->interface) };
    in->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    int room = 64 << 20, on = 1;
    setsockopt(in->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(in->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
    if (bind(in->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(in->fd);
        in->fd = -1;
    }
}

int net_packet_socket(int netns_fd, const char *interface)
{
    struct socket_in in = { .interface = interface, .fd = -1 };
    if (netns_fd >= 0)
        net_in(netns_fd, open_socket, &in);
    else
        open_socket(&in);
    assert_true(in.fd >= 0);
    return in.fd;
}

unsigned net_receive(int fd, unsigned quiet_ms, size_t *ret_largest)
{
    static uint8_t data[1 << 17];
    unsigned count = 0;
    size_t largest = 0;
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    while (poll(&poll_fd, 1, (int)quiet_ms) > 0) {
        ssize_t len = recv(fd, data, sizeof data, MSG_DONTWAIT);
        if (len < 0)
            break;
        largest = PK_MAX(largest, (size_t)len);
        count++;
    }
    if (ret_largest != NULL)
        *ret_largest = largest;
    return count;
}

int net_send(int fd, const void *frame, size_t len)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        if (send(fd, frame, len, 0) == (ssize_t)len)
            return 0;
        if (errno != ENOBUFS && errno != EAGAIN)
            break;
        usleep(1000);
    }
    return errno;
}

uint64_t net_count(struct pk_broker *broker, const char *list, const char *key, const char *name)
{
    struct pk_error err = { 0 };
    json_t *all = pk_broker_counters(broker, &err);
    assert_non_null(all);
    size_t i;
    json_t *item;
    uint64_t value = UINT64_MAX;
    json_array_foreach(json_object_get(all, list), i, item)
    {
        if (strcmp(json_string_value(json_object_get(item, "key")), key) != 0)
            continue;
        json_t *found = json_object_get(item, name);
        if (found == NULL)
            found = json_object_get(json_object_get(item, "reasons"), name);
        value = (uint64_t)json_integer_value(found);
    }
    json_decref(all);
    return value;
}

size_t net_frame(uint8_t *out, size_t len, uint8_t proto, uint32_t src, uint32_t dst,
                 uint16_t sport, uint16_t dport)
{
    memset(out, 0, len);
    memcpy(out, "\x02\0\0\0\0\2\x02\0\0\0\0\1\x08\0", 14);
    uint8_t *ip = out + 14;
    ip[0] = 0x45;
    ip[2] = (uint8_t)((len - 14) >> 8);
    ip[3] = (uint8_t)(len - 14);
    ip[8] = 64;
    ip[9] = proto;
    src = htonl(src);
    dst = htonl(dst);
    memcpy(ip + 12, &src, 4);
    memcpy(ip + 16, &dst, 4);
    sport = htons(sport);
    dport = htons(dport);
    memcpy(ip + 20, &sport, 2);
    memcpy(ip + 22, &dport, 2);
    return len;
}
