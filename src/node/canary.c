/* SPDX-License-Identifier: Apache-2.0 */
#include "node/canary.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/json.h"
#include "base/time.h"
#include "node/agent.h"

/* Serve tells each few seconds; without it nobody looks whether canaries come back. */
#define TOLD_FOR    (15 * PK_NSEC_PER_SEC)
#define LABEL_MAX   63u
#define DNS_TYPE_A  1u
#define DNS_CLASS   1u
#define DNS_QUERY   0x0100u /* recursion desired */
#define DNS_ANSWER  0x8180u /* response, recursion desired and available, no error */
#define DNS_POINTER 0xc00cu /* to the question's name */
#define TTL         64u

/* ---- frames ---- */

static size_t put16(uint8_t *out, size_t at, unsigned value)
{
    out[at] = (uint8_t)(value >> 8);
    out[at + 1] = (uint8_t)value;
    return at + 2;
}

static uint32_t add_words(uint32_t sum, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
    return sum;
}

/* RFC 1071 */
static uint16_t checksum(uint32_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* RFC 1035, section 4. The name is ours: its labels fit. */
static size_t put_dns(const struct pk_canary *canary, bool answer, uint8_t *out)
{
    size_t at = put16(out, 0, canary->id);
    at = put16(out, at, answer ? DNS_ANSWER : DNS_QUERY);
    at = put16(out, at, 1);
    at = put16(out, at, answer ? 1 : 0);
    at = put16(out, at, 0);
    at = put16(out, at, 0);
    for (const char *label = canary->name; *label != '\0';) {
        size_t len = PK_MIN(strcspn(label, "."), (size_t)LABEL_MAX);
        out[at++] = (uint8_t)len;
        memcpy(out + at, label, len);
        at += len;
        label += len + (label[len] == '.');
    }
    out[at++] = 0;
    at = put16(out, at, DNS_TYPE_A);
    at = put16(out, at, DNS_CLASS);
    if (!answer)
        return at;
    at = put16(out, at, DNS_POINTER);
    at = put16(out, at, DNS_TYPE_A);
    at = put16(out, at, DNS_CLASS);
    at = put16(out, at, 0); /* time to live */
    at = put16(out, at, 0);
    at = put16(out, at, 4);
    memcpy(out + at, canary->server, 4);
    return at + 4;
}

size_t pk_canary_frame(const struct pk_canary *canary, uint64_t mark, bool answer,
                       uint8_t out[PK_CANARY_FRAME_MAX])
{
    uint8_t *ip = out + ETH_HLEN;
    uint8_t *udp = ip + sizeof(struct iphdr);
    memset(out, 0, PK_CANARY_FRAME_MAX);
    memcpy(out, &mark, sizeof(mark));
    (void)put16(out, 12, ETH_P_IP);
    size_t dns_len = put_dns(canary, answer, udp + sizeof(struct udphdr));
    size_t udp_len = sizeof(struct udphdr) + dns_len;
    size_t ip_len = sizeof(struct iphdr) + udp_len;
    ip[0] = 0x45;
    (void)put16(ip, 2, (unsigned)ip_len);
    (void)put16(ip, 4, canary->id);
    ip[8] = TTL;
    ip[9] = IPPROTO_UDP;
    memcpy(ip + 12, answer ? canary->server : canary->client, 4);
    memcpy(ip + 16, answer ? canary->client : canary->server, 4);
    (void)put16(ip, 10, checksum(add_words(0, ip, sizeof(struct iphdr))));
    (void)put16(udp, 0, answer ? PK_CANARY_PORT : canary->port);
    (void)put16(udp, 2, answer ? canary->port : PK_CANARY_PORT);
    (void)put16(udp, 4, (unsigned)udp_len);
    uint32_t sum = add_words(IPPROTO_UDP + (uint32_t)udp_len, ip + 12, 8);
    uint16_t check = checksum(add_words(sum, udp, udp_len));
    (void)put16(udp, 6, check != 0 ? check : 0xffff); /* 0 means that there is none */
    return PK_MAX(ETH_HLEN + ip_len, (size_t)ETH_ZLEN);
}

/* ---- what is expected back ---- */

uint64_t pk_canary_next(const struct pk_canary_watch *watch, pk_nsec wall)
{
    uint64_t number = (uint64_t)PK_MAX(wall / PK_NSEC_PER_MS, 1);
    return PK_MAX(number, watch->number + 1); /* the clock was set back */
}

void pk_canary_note_sent(struct pk_canary_watch *watch, uint64_t number, pk_nsec now)
{
    size_t at = watch->sent++ % PK_CANARY_REMEMBERED;
    watch->last[at].number = watch->number = number;
    watch->last[at].at = now;
    watch->last[at].back = false;
}

void pk_canary_note_back(struct pk_canary_watch *watch, uint64_t number, pk_nsec wall)
{
    for (size_t i = 0; i < PK_CANARY_REMEMBERED; i++) {
        if (watch->last[i].at == 0 || watch->last[i].number != number || watch->last[i].back)
            continue;
        watch->last[i].back = true;
        watch->back++;
        watch->again++;
        watch->back_at = wall;
    }
}

void pk_canary_excuse(struct pk_canary_watch *watch)
{
    watch->first = watch->sent;
}

void pk_canary_judge(struct pk_canary_watch *watch, pk_nsec now, pk_nsec every)
{
    unsigned missed = 0;
    pk_nsec since = now;
    /* From the newest back to the first that came back. */
    uint64_t oldest = watch->sent > PK_CANARY_REMEMBERED ? watch->sent - PK_CANARY_REMEMBERED : 0;
    for (uint64_t i = watch->sent; i > PK_MAX(oldest, watch->first); i--) {
        size_t at = (i - 1) % PK_CANARY_REMEMBERED;
        if (watch->last[at].back)
            break;
        missed++;
        since = watch->last[at].at;
    }
    pk_nsec patience = PK_MAX(PK_CANARY_MISSED * every, PK_CANARY_PATIENCE);
    bool missing = missed >= PK_CANARY_MISSED && now - since >= patience;
    if (missing) {
        watch->silent = true;
        watch->again = 0;
    } else if (watch->silent && watch->again >= PK_CANARY_AGAIN) {
        watch->silent = false;
    }
}

/* ---- of a lane ---- */

int pk_canary_socket(int *ret_fd, struct pk_error *err)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot open a packet socket");
    *ret_fd = fd;
    return 0;
}

static pk_nsec interval(const struct pk_agent *agent, const struct pk_lane *lane)
{
    const struct pk_group *group = pk_node_plane_group(&agent->plane, lane->fleet, lane->group);
    /* What enters an inline lane leaves by the wire, and what has a device has no end of ours. */
    bool fits = !lane->is_inline && !pk_lane_has_device(lane);
    return group != NULL && fits ? group->canary : 0;
}

/* Only a full queue or a link that is going can be in the way: then it is missed, as others are. */
static void send_canary(struct pk_agent *agent, struct pk_lane *lane, pk_nsec now)
{
    struct pk_lane_canary *own = &lane->canary;
    const struct sockaddr_ll to = { .sll_family = AF_PACKET,
                                    .sll_ifindex = (int)lane->outer_ifindex,
                                    .sll_halen = ETH_ALEN };
    uint64_t mark = pk_broker_canary_mark(agent->broker);
    struct pk_canary canary;
    pk_canary_make(&own->token, lane->group, lane->index,
                   pk_canary_next(&own->watch, pk_time_now()), &canary);
    for (unsigned answer = 0; answer < 2; answer++) {
        uint8_t frame[PK_CANARY_FRAME_MAX];
        size_t len = pk_canary_frame(&canary, mark, answer, frame);
        (void)sendto(agent->canary_fd, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&to, sizeof(to));
    }
    pk_canary_note_sent(&own->watch, canary.number, now);
}

void pk_lane_canary_look(struct pk_agent *agent, struct pk_lane *lane, pk_nsec now)
{
    struct pk_lane_canary *own = &lane->canary;
    pk_nsec every = interval(agent, lane);
    bool wanted = own->told_at != 0 && now - own->told_at < TOLD_FOR;
    if (every == 0 || !lane->reader) /* whoever reads next begins anew */
        own->watch.silent = false;
    if (every == 0 || !wanted || !lane->reader || !lane->working) {
        pk_canary_excuse(&own->watch);
        own->next_at = 0;
        return;
    }
    /* The first comes after an interval: a tool that has just begun has enough to do. */
    if (own->next_at == 0 || own->next_at > now + every)
        own->next_at = now + every;
    if (now >= own->next_at) {
        send_canary(agent, lane, now);
        own->next_at = now + every;
    }
    pk_canary_judge(&own->watch, now, every);
}

int pk_agent_canary_lane(struct pk_agent *agent, const char *key, const json_t *body,
                         struct pk_error *err)
{
    static const char *const keys[] = { "token", "seen", "delayMs" };
    struct pk_canary_token token;
    uint64_t delay = 0;
    const json_t *seen = json_object_get(body, "seen"), *number;
    size_t i;
    int r = pk_check_keys("canary", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("canary", body, "delayMs", 0, INT64_MAX / PK_NSEC_PER_MS, 0, &delay, err);
    if (r < 0)
        return r;
    if (!pk_canary_token_parse(pk_json_string_or(body, "token", ""), &token)) {
        (void)pk_fail(err, PK_E_INVALID, "canary: 'token' must be 32 hexadecimal digits");
        return pk_hint(err, "only 'picket serve' makes tokens: is it of the agent's version?");
    }
    if (seen != NULL && (!json_is_array(seen) || json_array_size(seen) > PK_CANARY_TOLD_MAX))
        return pk_fail(err, PK_E_INVALID, "canary: 'seen' must be a list of at most %u numbers",
                       PK_CANARY_TOLD_MAX);
    (void)pthread_mutex_lock(&agent->lock);
    struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
    if (lane != NULL) {
        struct pk_lane_canary *own = &lane->canary;
        uint64_t before = own->watch.back;
        own->token = token;
        own->told_at = pk_time_monotonic();
        json_array_foreach(seen, i, number)
        {
            if (json_integer_value(number) > 0)
                pk_canary_note_back(&own->watch, (uint64_t)json_integer_value(number),
                                    pk_time_now());
        }
        if (own->watch.back != before) {
            own->watch.delay = (pk_nsec)delay * PK_NSEC_PER_MS;
            own->told = lane->told;
        }
    }
    (void)pthread_mutex_unlock(&agent->lock);
    if (lane != NULL)
        return 0;
    (void)pk_fail(err, PK_E_NOTFOUND, "there is no lane %s on this machine", key);
    return pk_hint(err, "'picket status' lists the lanes");
}

json_t *pk_lane_canary_json(const struct pk_agent *agent, const struct pk_lane *lane)
{
    const struct pk_lane_canary *own = &lane->canary;
    const struct pk_canary_watch *watch = &own->watch;
    pk_nsec now = pk_time_monotonic();
    bool wanted = own->told_at != 0 && now - own->told_at < TOLD_FOR;
    char text[36];
    const char *state = "waiting";
    if (interval(agent, lane) == 0 || !wanted)
        state = "off";
    else if (watch->silent)
        state = "silent";
    else if (watch->back > 0)
        state = "back";
    return json_pack(
        "{s:s,s:I,s:I,s:o,s:o}", "state", state, "sent", (json_int_t)watch->sent, "seen",
        (json_int_t)watch->back, "lastSeen",
        watch->back_at != 0 ? json_string(pk_time_format(watch->back_at, 3, text, sizeof(text)))
                            : json_null(),
        "delayMs", watch->back_at != 0 ? json_integer(watch->delay / PK_NSEC_PER_MS) : json_null());
}
