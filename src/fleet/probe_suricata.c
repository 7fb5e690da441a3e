/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suricata's command protocol: JSON objects without a length prefix. A reply may arrive in pieces,
 * so it is whole when it parses. Version 0.2 ends messages with a newline, which older servers
 * ignore.
 */
#include "fleet/probe_suricata.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"

#define REPLY_MAX   (256u << 10)
#define REQUEST_MAX 256u

enum stage { STAGE_HELLO, STAGE_STAT, STAGE_COUNTERS, STAGE_DONE };

struct talk {
    struct pk_suricata_probe *probe;
    enum stage stage;
    int fd;
    char request[REQUEST_MAX];
    size_t request_len, sent;
    struct pk_buf reply;
};

static void finish(struct talk *talk, int code)
{
    talk->probe->code = code;
    talk->stage = STAGE_DONE;
    pk_close_p(&talk->fd);
    talk->fd = -1;
    pk_buf_done(&talk->reply);
}

static void ask(struct talk *talk, enum stage stage)
{
    int len;
    if (stage == STAGE_HELLO)
        len = snprintf(talk->request, sizeof(talk->request), "{\"version\": \"0.2\"}\n");
    else if (stage == STAGE_COUNTERS)
        len = snprintf(talk->request, sizeof(talk->request), "{\"command\": \"dump-counters\"}\n");
    else
        len = snprintf(talk->request, sizeof(talk->request),
                       "{\"command\": \"iface-stat\", \"arguments\": {\"iface\": \"%s\"}}\n",
                       talk->probe->interface);
    talk->stage = stage;
    talk->sent = 0;
    talk->request_len = (size_t)len < sizeof(talk->request) ? (size_t)len : 0;
    pk_buf_clear(&talk->reply);
}

/* Connects through the folder's descriptor: a state folder's path may be longer than the 107 bytes
 * of a socket address. */
static int dial(struct talk *talk)
{
    const char *path = talk->probe->socket;
    struct pk_error *err = &talk->probe->error;
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return pk_fail(err, PK_E_INVALID, "%s: not an absolute path", path);
    PK_CLEANUP(pk_free_p) char *folder = pk_strndup(path, (size_t)(slash - path));
    if (folder == NULL)
        return pk_no_memory(err);
    PK_CLEANUP(pk_close_p) int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return pk_fail_errno(err, errno, "%s", folder);

    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int len =
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir, slash + 1);
    if (len < 0 || (size_t)len >= sizeof(address.sun_path))
        return pk_fail(err, PK_E_INVALID, "%s: the socket's name is too long", path);
    talk->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (talk->fd < 0)
        return pk_fail_errno(err, errno, "a socket for %s", path);
    /* A unix socket connects at once or not at all; EAGAIN is a full backlog. */
    if (connect(talk->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        pk_fail_errno(err, errno, "%s", path);
        err->code = PK_E_UNREACHABLE;
        return PK_E_UNREACHABLE;
    }
    return 0;
}

static uint64_t count_of(const json_t *message, const char *key)
{
    int64_t value = pk_json_int_or(message, key, 0);
    return value > 0 ? (uint64_t)value : 0;
}

/* The counters that tell of what Suricata did with its packets. */
static json_t *notes_of(const json_t *counters)
{
    static const struct {
        const char *path, *name;
    } wanted[] = { { "decoder.pkts", "decoded" },
                   { "decoder.invalid", "decoderInvalid" },
                   { "tcp.reassembly_gap", "reassemblyGap" },
                   { "tcp.segment_memcap_drop", "segmentMemcap" },
                   { "tcp.ssn_memcap_drop", "sessionMemcap" },
                   { "flow.memcap", "flowMemcap" },
                   { "tcp.pkt_on_wrong_thread", "wrongThread" },
                   { "detect.alert_queue_overflow", "alertOverflow" } };
    json_t *notes = json_object();
    for (size_t i = 0; i < PK_ARRAY_SIZE(wanted) && notes != NULL; i++) {
        int64_t value = pk_json_int_or(counters, wanted[i].path, -1);
        if (value >= 0)
            (void)json_object_set_new(notes, wanted[i].name, json_integer(value));
    }
    return notes;
}

/* A whole reply to the request of this stage. */
static void take_reply(struct talk *talk, const json_t *reply)
{
    struct pk_suricata_probe *probe = talk->probe;
    if (talk->stage == STAGE_COUNTERS) {
        /* Not there until Suricata has added them up for the first time. */
        if (strcmp(pk_json_string_or(reply, "return", ""), "OK") == 0)
            probe->notes = notes_of(json_object_get(reply, "message"));
        finish(talk, 0);
        return;
    }
    if (strcmp(pk_json_string_or(reply, "return", ""), "OK") != 0) {
        const char *message = pk_json_string_or(reply, "message", "no reason given");
        finish(talk, pk_fail(&probe->error, PK_E_UNSUPPORTED, "Suricata refused: %.200s", message));
        return;
    }
    if (talk->stage == STAGE_HELLO) {
        ask(talk, STAGE_STAT);
        return;
    }
    const json_t *message = json_object_get(reply, "message");
    if (!json_is_object(message)) {
        finish(talk, pk_fail(&probe->error, PK_E_INVALID, "Suricata sent no counters"));
        return;
    }
    probe->packets = count_of(message, "pkts");
    probe->drops = count_of(message, "drop");
    if (probe->want_notes)
        ask(talk, STAGE_COUNTERS);
    else
        finish(talk, 0);
}

static void on_data(struct talk *talk)
{
    struct pk_error *err = &talk->probe->error;
    char chunk[4096];
    ssize_t got = recv(talk->fd, chunk, sizeof(chunk), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        finish(talk, pk_fail(err, PK_E_UNREACHABLE, "Suricata closed its command socket"));
        return;
    }
    if (pk_buf_add(&talk->reply, chunk, (size_t)got) < 0) {
        finish(talk, pk_fail(err, PK_E_NOSPACE, "Suricata's reply is over %u bytes", REPLY_MAX));
        return;
    }
    json_error_t fault;
    PK_JSON reply = json_loadb(talk->reply.data, talk->reply.len, JSON_DISABLE_EOF_CHECK, &fault);
    if (reply != NULL)
        take_reply(talk, reply);
    else if (json_error_code(&fault) != json_error_premature_end_of_input)
        finish(talk, pk_fail(err, PK_E_INVALID, "Suricata's reply is no JSON: %.100s", fault.text));
}

static void on_writable(struct talk *talk)
{
    ssize_t put =
        send(talk->fd, talk->request + talk->sent, talk->request_len - talk->sent, MSG_NOSIGNAL);
    if (put >= 0)
        talk->sent += (size_t)put;
    else if (errno != EAGAIN && errno != EINTR)
        finish(talk, pk_fail(&talk->probe->error, PK_E_UNREACHABLE,
                             "Suricata closed its command socket"));
}

static void run(struct talk *talks, struct pollfd *fds, size_t count, pk_nsec deadline)
{
    for (;;) {
        nfds_t open_count = 0;
        for (size_t i = 0; i < count; i++) {
            bool open = talks[i].stage != STAGE_DONE;
            fds[i] = (struct pollfd){ .fd = open ? talks[i].fd : -1,
                                      .events =
                                          talks[i].sent < talks[i].request_len ? POLLOUT : POLLIN };
            open_count += open;
        }
        pk_nsec left = deadline - pk_time_monotonic();
        if (open_count == 0 || left <= 0)
            return;
        if (poll(fds, count, (int)(left / PK_NSEC_PER_MS) + 1) < 0 && errno != EINTR)
            return;
        for (size_t i = 0; i < count; i++) {
            if (talks[i].stage == STAGE_DONE || fds[i].revents == 0)
                continue;
            if (fds[i].revents & POLLOUT)
                on_writable(&talks[i]);
            else
                on_data(&talks[i]);
        }
    }
}

void pk_suricata_probe_all(struct pk_suricata_probe *probes, size_t count, unsigned timeout_ms)
{
    pk_nsec deadline = pk_time_monotonic() + timeout_ms * PK_NSEC_PER_MS;
    PK_CLEANUP(pk_free_p) struct talk *talks = pk_zalloc_array(PK_MAX(count, 1u), sizeof(*talks));
    PK_CLEANUP(pk_free_p) struct pollfd *fds = pk_zalloc_array(PK_MAX(count, 1u), sizeof(*fds));
    for (size_t i = 0; i < count; i++) {
        probes[i].code = PK_E_NOMEM;
        probes[i].error = (struct pk_error){ 0 };
        if (talks == NULL || fds == NULL) {
            (void)pk_fail(&probes[i].error, PK_E_NOMEM, "out of memory");
            continue;
        }
        talks[i] = (struct talk){ .probe = &probes[i], .fd = -1, .reply = PK_BUF_INIT(REPLY_MAX) };
        ask(&talks[i], STAGE_HELLO);
        int r = dial(&talks[i]);
        if (r < 0)
            finish(&talks[i], r);
    }
    if (talks == NULL || fds == NULL)
        return;
    run(talks, fds, count, deadline);
    for (size_t i = 0; i < count; i++)
        if (talks[i].stage != STAGE_DONE)
            finish(&talks[i], pk_fail(&probes[i].error, PK_E_TIMEOUT,
                                      "Suricata did not answer within %u ms", timeout_ms));
}
