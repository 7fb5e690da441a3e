/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread per connection, so handlers and streams may block. Path and query are decoded here,
 * not by libmicrohttpd: "%2F" in a segment must not become a separator. The body of a request that
 * is refused is read and dropped, so that the client gets to read why.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/http.h"
#include "base/json.h"
#include "base/str.h"

#define DEFAULT_MAX_BODY    ((size_t)8 << 20)
#define DEFAULT_CONNECTIONS 256u
#define IDLE_SECONDS        120u
#define MAX_PARAMS          8
#define MAX_QUERIES         32
#define PEM_MAX             ((size_t)1 << 20)
#define STREAM_CHUNK        ((size_t)1 << 20)

struct pk_http_server {
    struct pk_http_server_options options; /* strings are not kept */
    struct MHD_Daemon *unix_daemon, *tcp_daemon;
    char *socket_path;
    ino_t socket_inode;
    uint16_t port;
    char *cert, *key;
    atomic_bool stopping;
};

struct pair {
    char *name, *value;
};

struct pk_http_request {
    struct pk_http_server *server;
    struct MHD_Connection *connection;
    const struct pk_http_route *route; /* NULL: refused */
    struct pair params[MAX_PARAMS], queries[MAX_QUERIES];
    size_t param_count, query_count;
    struct pk_buf body;
    size_t dropped; /* bytes of a body that is not wanted */
    struct pk_http_peer peer;
    struct pk_error refusal; /* code PK_OK: none */
    unsigned refusal_status; /* 0: of the code */
    const char *allow;
    bool replied;
};

static void free_request(struct pk_http_request *request)
{
    if (request == NULL)
        return;
    for (size_t i = 0; i < request->param_count; i++) {
        pk_free(request->params[i].name);
        pk_free(request->params[i].value);
    }
    for (size_t i = 0; i < request->query_count; i++) {
        pk_free(request->queries[i].name);
        pk_free(request->queries[i].value);
    }
    pk_buf_done(&request->body);
    pk_free(request);
}

/* ---- replies ---- */

static int queue(struct pk_http_request *request, unsigned status, const char *content_type,
                 struct MHD_Response *response)
{
    if (response == NULL)
        return PK_E_NOMEM;
    bool ok = MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_YES &&
              MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES;
    if (content_type != NULL)
        ok = ok && MHD_add_response_header(response, "Content-Type", content_type) == MHD_YES;
    if (request->allow != NULL)
        ok = ok && MHD_add_response_header(response, "Allow", request->allow) == MHD_YES;
    ok = ok && MHD_queue_response(request->connection, status, response) == MHD_YES;
    MHD_destroy_response(response);
    if (!ok)
        return PK_E_NOMEM;
    request->replied = true;
    return 0;
}

int pk_http_reply(struct pk_http_request *request, unsigned status, const char *content_type,
                  const void *data, size_t len)
{
    void *copy = pk_memdup(data, len);
    if (copy == NULL)
        return PK_E_NOMEM;
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(len, copy, pk_free);
    if (response == NULL)
        pk_free(copy);
    return queue(request, status, content_type, response);
}

int pk_http_reply_json_take(struct pk_http_request *request, unsigned status, json_t *json)
{
    PK_JSON owned = json;
    char *text = owned == NULL ? NULL : pk_json_compact(owned);
    if (text == NULL)
        return PK_E_NOMEM;
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(strlen(text), text, pk_free);
    if (response == NULL)
        pk_free(text);
    return queue(request, status, "application/json", response);
}

struct stream {
    struct pk_http_server *server;
    int fd; /* the connection's, to see whether the client is still there */
    int (*next)(void *arg, struct pk_buf *buf);
    void (*done)(void *arg);
    void *arg;
    struct pk_buf pending;
    bool ended;
};

static void free_stream(void *cls)
{
    struct stream *stream = cls;
    if (stream->done != NULL)
        stream->done(stream->arg);
    pk_buf_done(&stream->pending);
    pk_free(stream);
}

static bool client_gone(int fd)
{
    struct pollfd poller = { .fd = fd, .events = POLLRDHUP };
    return poll(&poller, 1, 0) > 0 && (poller.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

static ssize_t read_stream(void *cls, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct stream *stream = cls;
    while (stream->pending.len == 0) {
        if (stream->ended || atomic_load(&stream->server->stopping) || client_gone(stream->fd))
            return MHD_CONTENT_READER_END_OF_STREAM;
        pk_buf_clear(&stream->pending);
        stream->ended = stream->next(stream->arg, &stream->pending) <= 0;
        if (stream->pending.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t len = PK_MIN(max, stream->pending.len);
    memcpy(out, stream->pending.data, len);
    pk_buf_consume(&stream->pending, len);
    return (ssize_t)len;
}

static int connection_fd(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info == NULL ? -1 : info->connect_fd;
}

int pk_http_reply_stream(struct pk_http_request *request, const char *content_type,
                         int (*next)(void *arg, struct pk_buf *buf), void (*done)(void *arg),
                         void *arg)
{
    struct stream *stream = pk_zalloc(sizeof(*stream));
    if (stream == NULL) {
        if (done != NULL)
            done(arg);
        return PK_E_NOMEM;
    }
    *stream = (struct stream){ .server = request->server,
                               .fd = connection_fd(request->connection),
                               .next = next,
                               .done = done,
                               .arg = arg,
                               .pending = PK_BUF_INIT((size_t)64 << 20) };
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_CHUNK, read_stream, stream, free_stream);
    if (response == NULL)
        free_stream(stream);
    return queue(request, 200, content_type, response);
}

static int reply_error(struct pk_http_request *request, const struct pk_error *err, unsigned status)
{
    json_t *json = json_pack("{s:o}", "error", pk_json_of_error(err));
    return pk_http_reply_json_take(
        request, status != 0 ? status : (unsigned)pk_code_info(err->code)->http_status, json);
}

/* ---- the request ---- */

/* Percent-decoding in place. False on a wrong escape, a NUL or what is not UTF-8. */
static bool url_decode(char *text)
{
    char *out = text;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p != '%') {
            *out++ = *p;
            continue;
        }
        uint64_t byte;
        if (pk_parse_hex(p + 1, strnlen(p + 1, 2), &byte, NULL) < 0 || p[2] == '\0' || byte == 0)
            return false;
        *out++ = (char)byte;
        p += 2;
    }
    *out = '\0';
    size_t len = (size_t)(out - text);
    return pk_utf8_prefix(text, len) == len;
}

static void refuse(struct pk_http_request *request, unsigned status, int code, const char *hint,
                   const char *message)
{
    if (request->refusal.code != PK_OK)
        return;
    pk_fail(&request->refusal, code, "%s", message);
    pk_hint(&request->refusal, "%s", hint);
    request->refusal_status = status;
}

static void refuse_escape(struct pk_http_request *request)
{
    refuse(request, 400, PK_E_USAGE, "percent-encode the address as UTF-8",
           "the address is not well encoded");
}

static void refuse_no_memory(struct pk_http_request *request)
{
    refuse(request, 0, PK_E_NOMEM, "try again later", "out of memory");
}

/* libmicrohttpd asks us to decode: not yet. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

static enum MHD_Result take_query(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value)
{
    (void)kind;
    struct pk_http_request *request = cls;
    if (request->query_count == MAX_QUERIES) {
        refuse(request, 400, PK_E_USAGE, "give fewer parameters", "there are too many parameters");
        return MHD_NO;
    }
    struct pair *pair = &request->queries[request->query_count++];
    pair->name = pk_strdup(key);
    pair->value = pk_strdup(value == NULL ? "" : value);
    if (pair->name == NULL || pair->value == NULL) {
        refuse_no_memory(request);
        return MHD_NO;
    }
    if (!url_decode(pair->name) || !url_decode(pair->value)) {
        refuse_escape(request);
        return MHD_NO;
    }
    return MHD_YES;
}

/* Does path fit the pattern? With keep, the segments for {names} are taken. */
static bool match(struct pk_http_request *request, const char *pattern, const char *path, bool keep)
{
    while (*pattern == '/' && *path == '/') {
        size_t want = strcspn(++pattern, "/"), have = strcspn(++path, "/");
        bool variable = pattern[0] == '{';
        if (variable ? have == 0 : want != have || memcmp(pattern, path, want) != 0)
            return false;
        if (variable && keep && request->param_count < MAX_PARAMS) {
            struct pair *pair = &request->params[request->param_count++];
            pair->name = pk_strndup(pattern + 1, want - 2);
            pair->value = pk_strndup(path, have);
            if (pair->name == NULL || pair->value == NULL)
                refuse_no_memory(request);
            else if (!url_decode(pair->value))
                refuse_escape(request);
        }
        pattern += want;
        path += have;
    }
    return *pattern == '\0' && *path == '\0';
}

static void find_route(struct pk_http_request *request, const char *method, const char *path)
{
    const struct pk_http_server_options *options = &request->server->options;
    const char *other_method = NULL;
    for (size_t i = 0; i < options->route_count; i++) {
        const struct pk_http_route *route = &options->routes[i];
        if (!match(request, route->path, path, false))
            continue;
        if (strcmp(route->method, method) == 0) {
            request->route = route;
            (void)match(request, route->path, path, true);
            return;
        }
        other_method = route->method;
    }
    if (other_method != NULL) {
        request->allow = other_method;
        refuse(request, 405, PK_E_USAGE,
               "see the API's description for the methods of this address",
               "this address does not take this method");
    } else {
        refuse(request, 404, PK_E_NOTFOUND, "see the API's description for its addresses",
               "there is no such address");
    }
}

static void find_peer(struct pk_http_request *request, bool local)
{
    struct pk_http_peer *peer = &request->peer;
    *peer = (struct pk_http_peer){ .uid = (uid_t)-1, .gid = (gid_t)-1, .pid = -1 };
    struct ucred credentials;
    socklen_t len = sizeof(credentials);
    if (local && getsockopt(connection_fd(request->connection), SOL_SOCKET, SO_PEERCRED,
                            &credentials, &len) == 0) {
        peer->local = true;
        peer->uid = credentials.uid;
        peer->gid = credentials.gid;
        peer->pid = credentials.pid;
    }
    const char *authorization =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Authorization");
    if (authorization != NULL && strncasecmp(authorization, "Bearer ", 7) == 0)
        peer->token = authorization + 7;
}

static void check_length(struct pk_http_request *request)
{
    const char *length =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Content-Length");
    uint64_t bytes;
    if (length != NULL && pk_parse_u64(length, &bytes, NULL) == 0 && bytes > request->body.max)
        refuse(request, 413, PK_E_NOSPACE, "send less at once", "the request is too large");
}

static struct pk_http_request *begin(struct pk_http_server *server,
                                     struct MHD_Connection *connection, bool local,
                                     const char *method, const char *path)
{
    struct pk_http_request *request = pk_zalloc(sizeof(*request));
    if (request == NULL)
        return NULL;
    request->server = server;
    request->connection = connection;
    request->body = PK_BUF_INIT(server->options.max_body);
    find_peer(request, local);
    (void)MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, take_query, request);
    find_route(request, method, path);
    const struct pk_http_server_options *options = &server->options;
    bool asked = request->route != NULL && (request->route->flags & PK_ROUTE_PUBLIC) == 0;
    struct pk_error err = { 0 };
    if (asked && options->authorise != NULL && request->refusal.code == PK_OK &&
        options->authorise(options->arg, &request->peer, method, path, &err) < 0)
        request->refusal = err;
    check_length(request);
    return request;
}

static enum MHD_Result take_body(struct pk_http_request *request, const char *data, size_t len)
{
    if (request->refusal.code == PK_OK) {
        int r = pk_buf_add(&request->body, data, len);
        if (r == PK_E_NOMEM)
            refuse_no_memory(request);
        else if (r < 0)
            refuse(request, 413, PK_E_NOSPACE, "send less at once", "the request is too large");
        if (r == 0)
            return MHD_YES;
        pk_buf_done(&request->body);
    }
    request->dropped += len;
    return request->dropped > 4 * request->body.max + ((size_t)1 << 20) ? MHD_NO : MHD_YES;
}

static enum MHD_Result answer(struct pk_http_request *request)
{
    struct pk_error err = request->refusal;
    int r = err.code;
    if (r == PK_OK)
        r = request->route->handle(request->server->options.arg, request, &err);
    if (request->replied)
        return MHD_YES;
    if (r >= 0)
        pk_fail(&err, PK_E_INTERNAL, "the handler of %s did not answer", request->route->path);
    else if (err.code == PK_OK)
        pk_fail(&err, r, "%s", pk_code_info(r)->meaning);
    /* No memory even for the error: the connection is closed. */
    return reply_error(request, &err, request->refusal_status) == 0 ? MHD_YES : MHD_NO;
}

static enum MHD_Result on_access(struct pk_http_server *server, struct MHD_Connection *connection,
                                 bool local, const char *path, const char *method, const char *data,
                                 size_t *len, void **state)
{
    struct pk_http_request *request = *state;
    if (request == NULL) {
        *state = begin(server, connection, local, method, path);
        return *state == NULL ? MHD_NO : MHD_YES;
    }
    if (*len > 0) {
        enum MHD_Result result = take_body(request, data, *len);
        *len = 0;
        return result;
    }
    return answer(request);
}

static enum MHD_Result on_unix(void *cls, struct MHD_Connection *connection, const char *path,
                               const char *method, const char *version, const char *data,
                               size_t *len, void **state)
{
    (void)version;
    return on_access(cls, connection, true, path, method, data, len, state);
}

static enum MHD_Result on_tcp(void *cls, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *data,
                              size_t *len, void **state)
{
    (void)version;
    return on_access(cls, connection, false, path, method, data, len, state);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    (void)code;
    free_request(*state);
    *state = NULL;
}

static const char *find_pair(const struct pair *pairs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(pairs[i].name, name) == 0)
            return pairs[i].value;
    return NULL;
}

const char *pk_http_param(const struct pk_http_request *request, const char *name)
{
    return find_pair(request->params, request->param_count, name);
}

const char *pk_http_query(const struct pk_http_request *request, const char *name)
{
    return find_pair(request->queries, request->query_count, name);
}

const char *pk_http_body(const struct pk_http_request *request, size_t *ret_len)
{
    if (ret_len != NULL)
        *ret_len = request->body.len;
    return request->body.data == NULL ? "" : request->body.data;
}

int pk_http_body_json(struct pk_http_request *request, json_t **ret_json, struct pk_error *err)
{
    size_t len;
    const char *text = pk_http_body(request, &len);
    int r = pk_json_parse("the request's body", text, len, ret_json, err);
    if (r == PK_E_INVALID && err != NULL)
        err->code = PK_E_USAGE;
    return r == PK_E_INVALID ? PK_E_USAGE : r;
}

const struct pk_http_peer *pk_http_peer(const struct pk_http_request *request)
{
    return &request->peer;
}

/* ---- starting and stopping ---- */

static int remove_stale(const char *path, const struct sockaddr_un *address, struct pk_error *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot look at %s", path);
    if (!S_ISSOCK(st.st_mode)) {
        pk_fail(err, PK_E_CONFLICT, "%s is there and is no socket", path);
        pk_hint(err, "remove it, or give another --run-dir");
        return PK_E_CONFLICT;
    }
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot make a socket");
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN) {
        pk_fail(err, PK_E_CONFLICT, "another server listens on %s", path);
        pk_hint(err, "stop it, or give another --run-dir");
        return PK_E_CONFLICT;
    }
    if (unlink(path) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "cannot remove old socket %s", path);
    return 0;
}

static int listen_unix(const struct pk_http_server_options *options, int *ret_fd, ino_t *ret_inode,
                       struct pk_error *err)
{
    const char *path = options->socket_path;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(address.sun_path)) {
        pk_fail(err, PK_E_USAGE, "the socket's path %s is longer than %zu bytes", path,
                sizeof(address.sun_path) - 1);
        pk_hint(err, "give a shorter --run-dir");
        return PK_E_USAGE;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int r = remove_stale(path, &address, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* The mode of the descriptor is that of the file which bind() makes: nobody gets in before the
     * owner and mode are right. */
    struct stat st;
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return pk_fail_errno(err, errno, "cannot listen on %s", address.sun_path);
    if ((options->socket_gid != (gid_t)-1 && chown(path, (uid_t)-1, options->socket_gid) < 0) ||
        chmod(path, options->socket_mode) < 0 || lstat(path, &st) < 0 || listen(fd, 128) < 0) {
        r = pk_fail_errno(err, errno, "cannot listen on %s", address.sun_path);
        (void)unlink(path);
        return r;
    }
    *ret_inode = st.st_ino;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int listen_tcp(const struct pk_http_server_options *options, int *ret_fd, uint16_t *ret_port,
                      struct pk_error *err)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = { 0 };
    socklen_t len;
    if (inet_pton(AF_INET, options->address, &address.v4.sin_addr) == 1) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons(options->port);
        len = sizeof(address.v4);
    } else if (inet_pton(AF_INET6, options->address, &address.v6.sin6_addr) == 1) {
        address.v6.sin6_family = AF_INET6;
        address.v6.sin6_port = htons(options->port);
        len = sizeof(address.v6);
    } else {
        pk_fail(err, PK_E_USAGE, "'%s' is not an address to listen on", options->address);
        pk_hint(err, "write an IPv4 or IPv6 address, such as 127.0.0.1");
        return PK_E_USAGE;
    }
    PK_CLEANUP(pk_close_p) int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, &address.any, len) < 0 || listen(fd, 128) < 0 ||
        getsockname(fd, &address.any, &len) < 0) {
        int r = pk_fail_errno(err, errno, "cannot listen on %s port %u", options->address,
                              options->port);
        pk_hint(err, "choose another port, or stop what uses this one");
        return r;
    }
    *ret_port =
        ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pk_http_parse_listen(const char *option, const char *text, const char *default_host,
                         char *ret_address, size_t size, uint16_t *ret_port, struct pk_error *err)
{
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    const char *start = text, *number = colon == NULL ? text : colon + 1;
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        start++;
        len -= 2;
    }
    bool plain = bracketed || memchr(start, ':', len) == NULL;
    if (len == 0 && default_host != NULL && !bracketed) {
        start = default_host;
        len = strlen(default_host);
    }
    if (len == 0 || len >= size || !plain || pk_parse_u64(number, &port, NULL) < 0 || port < 1 ||
        port > UINT16_MAX) {
        (void)pk_fail(err, PK_E_USAGE, "%s: '%.80s' is not ADDRESS:PORT", option, text);
        return pk_hint(err, "for example %s 127.0.0.1:7443 or %s '[::1]:7443'", option, option);
    }
    memcpy(ret_address, start, len);
    ret_address[len] = '\0';
    *ret_port = (uint16_t)port;
    return 0;
}

/* Takes fd. Threads of libmicrohttpd inherit the mask: signals are for the main loop. */
static struct MHD_Daemon *start_daemon(struct pk_http_server *server, int fd,
                                       MHD_AccessHandlerCallback handler, bool tls)
{
    const struct MHD_OptionItem secure[] = {
        { MHD_OPTION_HTTPS_MEM_CERT, 0, server->cert },
        { MHD_OPTION_HTTPS_MEM_KEY, 0, server->key },
        { MHD_OPTION_END, 0, NULL },
    };
    const struct MHD_OptionItem plain[] = { { MHD_OPTION_END, 0, NULL } };
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ITC | (tls ? MHD_USE_TLS : 0);
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, handler, server, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, server->options.max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
        IDLE_SECONDS, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, NULL, MHD_OPTION_ARRAY, tls ? secure : plain, MHD_OPTION_END);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (daemon == NULL)
        (void)close(fd);
    return daemon;
}

static int start_unix(struct pk_http_server *server, struct pk_error *err)
{
    server->socket_path = pk_strdup(server->options.socket_path);
    if (server->socket_path == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot start the server: out of memory");
    int fd = -1;
    int r = listen_unix(&server->options, &fd, &server->socket_inode, err);
    if (r < 0)
        return r;
    server->unix_daemon = start_daemon(server, fd, on_unix, false);
    if (server->unix_daemon == NULL)
        return pk_fail(err, PK_E_IO, "cannot start the server on %s", server->socket_path);
    return 0;
}

static int start_clear(struct pk_http_server *server, struct pk_error *err)
{
    int fd = -1;
    int r = listen_tcp(&server->options, &fd, &server->port, err);
    if (r < 0)
        return r;
    server->tcp_daemon = start_daemon(server, fd, on_tcp, false);
    if (server->tcp_daemon == NULL)
        return pk_fail(err, PK_E_IO, "cannot start the server on %s", server->options.address);
    return 0;
}

static int start_tls(struct pk_http_server *server, struct pk_error *err)
{
    const struct pk_http_server_options *options = &server->options;
    if (options->cert_file == NULL || options->key_file == NULL) {
        pk_fail(err, PK_E_USAGE, "listening on %s needs a certificate and its key",
                options->address);
        pk_hint(err, "give both as PEM files");
        return PK_E_USAGE;
    }
    int r = pk_file_read(options->cert_file, PEM_MAX, &server->cert, NULL, err);
    if (r == 0)
        r = pk_file_read(options->key_file, PEM_MAX, &server->key, NULL, err);
    int fd = -1;
    if (r == 0)
        r = listen_tcp(options, &fd, &server->port, err);
    if (r < 0)
        return r;
    server->tcp_daemon = start_daemon(server, fd, on_tcp, true);
    if (server->tcp_daemon == NULL) {
        pk_fail(err, PK_E_INVALID, "cannot start the server with certificate %s and key %s",
                options->cert_file, options->key_file);
        pk_hint(err, "check that both are PEM and belong together");
        return PK_E_INVALID;
    }
    return 0;
}

int pk_http_server_start(const struct pk_http_server_options *options,
                         struct pk_http_server **ret_server, struct pk_error *err)
{
    PK_CLEANUP(pk_http_server_stop_p) struct pk_http_server *server = pk_zalloc(sizeof(*server));
    if (server == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot start the server: out of memory");
    server->options = *options;
    if (server->options.max_body == 0)
        server->options.max_body = DEFAULT_MAX_BODY;
    if (server->options.max_connections == 0)
        server->options.max_connections = DEFAULT_CONNECTIONS;
    /* A client that goes away must not end the process. */
    (void)signal(SIGPIPE, SIG_IGN);
    int r = 0;
    if (options->socket_path != NULL)
        r = start_unix(server, err);
    if (r == 0 && options->address != NULL)
        r = options->clear ? start_clear(server, err) : start_tls(server, err);
    if (r < 0)
        return r;
    *ret_server = PK_TAKE(server);
    return 0;
}

uint16_t pk_http_server_port(const struct pk_http_server *server)
{
    return server->port;
}

void pk_http_server_stop(struct pk_http_server *server)
{
    if (server == NULL)
        return;
    atomic_store(&server->stopping, true);
    struct stat st; /* a newer server may have put its socket there already */
    if (server->unix_daemon != NULL && lstat(server->socket_path, &st) == 0 &&
        st.st_ino == server->socket_inode)
        (void)unlink(server->socket_path);
    if (server->unix_daemon != NULL)
        MHD_stop_daemon(server->unix_daemon);
    if (server->tcp_daemon != NULL)
        MHD_stop_daemon(server->tcp_daemon);
    pk_free(server->socket_path);
    pk_free(server->cert);
    pk_free(server->key);
    pk_free(server);
}
