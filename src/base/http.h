/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 both ways: a client on libcurl (unix socket, TCP, TLS) and a server on libmicrohttpd.
 * Bodies are JSON unless said otherwise. An error answer is {"error": {...}} as of
 * pk_json_of_error(), with the status of the code table, and comes back as the same pk_error.
 */
#ifndef PICKET_BASE_HTTP_H
#define PICKET_BASE_HTTP_H

#include <jansson.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"

/* ---- client: one per thread; connections are kept open between calls ---- */
struct pk_http_client;

struct pk_http_client_options {
    const char *base_url;        /* "unix:/run/picket/serve.sock" or "https://host:port" */
    const char *token;           /* bearer token or NULL */
    const char *ca_file;         /* NULL = the system's */
    unsigned timeout_ms;         /* of a whole call; 0 = 30 s */
    unsigned connect_timeout_ms; /* 0 = 3 s */
};
int pk_http_client_new(const struct pk_http_client_options *options,
                       struct pk_http_client **ret_client, struct pk_error *err);
void pk_http_client_free(struct pk_http_client *client);
PK_DEFINE_CLEANUP(struct pk_http_client, pk_http_client_free);

struct pk_http_call {
    const char *method; /* "GET" ... */
    const char *path;   /* "/v1/..." already escaped */
    const json_t *json; /* body, or */
    const void *data;   /* raw body */
    size_t data_len;
    const char *content_type; /* of data */
    unsigned timeout_ms;      /* 0 = the client's */
    size_t max_body;          /* of the answer; 0 = 64 MiB */
    /* When set, the answer's body is handed over piece by piece (non-zero = stop) instead of kept;
     * there is then no overall time limit unless timeout_ms is set. */
    int (*on_data)(void *arg, const char *data, size_t len);
    void *on_data_arg;
};
/* Transport trouble: PK_E_UNREACHABLE or PK_E_TIMEOUT. An answer of any status is success here. */
int pk_http_call(struct pk_http_client *client, const struct pk_http_call *call,
                 unsigned *ret_status, struct pk_buf *body, struct pk_error *err);
/* JSON in, JSON out; statuses >= 400 become the error in the body. json may be NULL; *ret_json may
 * come back NULL for an empty body; ret_json may be NULL. */
int pk_http_json(struct pk_http_client *client, const char *method, const char *path,
                 const json_t *json, json_t **ret_json, struct pk_error *err);
/* Percent-encodes one path segment or query value; release with pk_free(). */
char *pk_url_escape(const char *text);

/* ---- server ---- */
struct pk_http_server;
struct pk_http_request; /* valid during the handler */

struct pk_http_peer {
    bool local; /* came over the unix socket: the kernel vouches for uid, gid, pid */
    uid_t uid;
    gid_t gid;
    pid_t pid;
    const char *token; /* bearer token of the request or NULL */
};

struct pk_http_route {
    const char *method;
    const char *path; /* "/v1/fleets/{fleet}/status": {x} matches one segment */
    /* Runs on a server thread, may block. Returns 0 after one pk_http_reply*(), or an error code
     * with *err filled, which becomes the error answer. */
    int (*handle)(void *arg, struct pk_http_request *request, struct pk_error *err);
    unsigned flags;
};
#define PK_ROUTE_PUBLIC 1u /* no authorisation asked */

struct pk_http_server_options {
    const struct pk_http_route *routes;
    size_t route_count;
    void *arg;
    const char *socket_path; /* unix socket, or NULL; an old one is replaced if nobody listens */
    mode_t socket_mode;
    gid_t socket_gid;    /* (gid_t)-1 = leave */
    const char *address; /* "127.0.0.1" with port, or NULL. TCP needs TLS: */
    uint16_t port;
    const char *cert_file, *key_file; /* PEM */
    bool clear;                       /* or goes without: for routes that are public anyway */
    size_t max_body;                  /* 0 = 8 MiB; larger requests get 413 */
    unsigned max_connections;         /* 0 = 256 */
    /* Asked before every route that is not public. 0 = go on. */
    int (*authorise)(void *arg, const struct pk_http_peer *peer, const char *method,
                     const char *path, struct pk_error *err);
};
/* "127.0.0.1:7443", "[::1]:7443"; with a default host also ":7443" and "7443". option is for the
 * error. */
int pk_http_parse_listen(const char *option, const char *text, const char *default_host,
                         char *ret_address, size_t size, uint16_t *ret_port, struct pk_error *err);
int pk_http_server_start(const struct pk_http_server_options *options,
                         struct pk_http_server **ret_server, struct pk_error *err);
uint16_t pk_http_server_port(const struct pk_http_server *server); /* as bound; 0 without TCP */
void pk_http_server_stop(struct pk_http_server *server); /* waits for running handlers; NULL ok */
PK_DEFINE_CLEANUP(struct pk_http_server, pk_http_server_stop);

const char *pk_http_param(const struct pk_http_request *request,
                          const char *name); /* of the path */
const char *pk_http_query(const struct pk_http_request *request, const char *name); /* or NULL */
const char *pk_http_body(const struct pk_http_request *request, size_t *ret_len);   /* never NULL */
int pk_http_body_json(struct pk_http_request *request, json_t **ret_json, struct pk_error *err);
const struct pk_http_peer *pk_http_peer(const struct pk_http_request *request);
int pk_http_reply_json_take(struct pk_http_request *request, unsigned status, json_t *json);
int pk_http_reply(struct pk_http_request *request, unsigned status, const char *content_type,
                  const void *data, size_t len);
/* A body made while it is sent (chunked). next() appends to buf and returns 1, or 0 at the end; it
 * may block, must return at least every few seconds (an empty append is fine) and runs on a server
 * thread; done() releases arg, also when the client goes away. */
int pk_http_reply_stream(struct pk_http_request *request, const char *content_type,
                         int (*next)(void *arg, struct pk_buf *buf), void (*done)(void *arg),
                         void *arg);

#endif
