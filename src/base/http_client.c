/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/http.h"
#include "base/json.h"
#include "base/str.h"

#define DEFAULT_TIMEOUT_MS 30000u
#define DEFAULT_CONNECT_MS 3000u
#define DEFAULT_MAX_BODY   ((size_t)64 << 20)

struct pk_http_client {
    CURL *easy;
    char *url;         /* without a slash at its end */
    char *socket_path; /* of unix:..., else NULL */
    char *token;       /* "Authorization: Bearer ..." or NULL */
    char *ca_file;
    unsigned timeout_ms, connect_timeout_ms;
};

static void init_curl(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

int pk_http_client_new(const struct pk_http_client_options *options,
                       struct pk_http_client **ret_client, struct pk_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, init_curl);
    const char *url = options->base_url;
    bool local = pk_str_starts(url, "unix:/");
    if (!local && !pk_str_starts(url, "https://") && !pk_str_starts(url, "http://")) {
        pk_fail(err, PK_E_USAGE, "'%.200s' is not the address of a server", url);
        pk_hint(err, "write unix:/path/to/serve.sock or https://host:port");
        return PK_E_USAGE;
    }
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = pk_zalloc(sizeof(*client));
    if (client == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot make an HTTP client: out of memory");
    size_t len = strlen(url);
    while (!local && len > 0 && url[len - 1] == '/')
        len--;
    client->easy = curl_easy_init();
    client->url = local ? pk_strdup("http://localhost") : pk_strndup(url, len);
    client->socket_path = local ? pk_strdup(url + strlen("unix:")) : NULL;
    client->token =
        options->token == NULL ? NULL : pk_asprintf("Authorization: Bearer %s", options->token);
    client->ca_file = pk_strdup(options->ca_file);
    client->timeout_ms = options->timeout_ms == 0 ? DEFAULT_TIMEOUT_MS : options->timeout_ms;
    client->connect_timeout_ms =
        options->connect_timeout_ms == 0 ? DEFAULT_CONNECT_MS : options->connect_timeout_ms;
    if (client->easy == NULL || client->url == NULL || (local && client->socket_path == NULL) ||
        (options->token != NULL && client->token == NULL) ||
        (options->ca_file != NULL && client->ca_file == NULL))
        return pk_fail(err, PK_E_NOMEM, "cannot make an HTTP client: out of memory");
    *ret_client = PK_TAKE(client);
    return 0;
}

void pk_http_client_free(struct pk_http_client *client)
{
    if (client == NULL)
        return;
    if (client->easy != NULL)
        curl_easy_cleanup(client->easy);
    pk_free(client->url);
    pk_free(client->socket_path);
    pk_free(client->token);
    pk_free(client->ca_file);
    pk_free(client);
}

struct answer {
    const struct pk_http_call *call;
    struct pk_buf *body;
    size_t got, max;
    int trouble; /* PK_E_NOMEM, PK_E_NOSPACE */
    bool stopped;
};

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct answer *answer = arg;
    size_t len = size * count;
    if (answer->call->on_data != NULL) {
        answer->stopped = answer->call->on_data(answer->call->on_data_arg, data, len) != 0;
        return answer->stopped ? CURL_WRITEFUNC_ERROR : len;
    }
    if (len > answer->max - answer->got) {
        answer->trouble = PK_E_NOSPACE;
        return CURL_WRITEFUNC_ERROR;
    }
    answer->got += len;
    if (answer->body != NULL) {
        answer->trouble = pk_buf_add(answer->body, data, len);
        if (answer->trouble < 0)
            return CURL_WRITEFUNC_ERROR;
    }
    return len;
}

static int transport_error(const struct pk_http_client *client, const struct answer *answer,
                           CURLcode code, const char *detail, struct pk_error *err)
{
    const char *where = client->socket_path != NULL ? client->socket_path : client->url;
    const char *why = detail[0] != '\0' ? detail : curl_easy_strerror(code);
    if (answer->trouble == PK_E_NOSPACE) {
        pk_fail(err, PK_E_NOSPACE, "the answer of %s is larger than %zu bytes", where, answer->max);
        pk_hint(err, "ask for less at once");
        return PK_E_NOSPACE;
    }
    if (answer->trouble == PK_E_NOMEM || code == CURLE_OUT_OF_MEMORY)
        return pk_fail(err, PK_E_NOMEM, "cannot keep the answer of %s: out of memory", where);
    if (code == CURLE_OPERATION_TIMEDOUT) {
        pk_fail(err, PK_E_TIMEOUT, "%s does not answer in time: %s", where, why);
        pk_hint(err, "see whether the server is busy or hangs, in its log");
        return PK_E_TIMEOUT;
    }
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) {
        pk_fail(err, PK_E_DENIED, "the certificate of %s is not trusted: %s", where, why);
        pk_hint(err, "give the file of the authority that signed it");
        return PK_E_DENIED;
    }
    /* curl speaks of "localhost port 80" where it means a socket file. */
    long sys = 0;
    if (code == CURLE_COULDNT_CONNECT && client->socket_path != NULL &&
        curl_easy_getinfo(client->easy, CURLINFO_OS_ERRNO, &sys) == CURLE_OK && sys != 0)
        why = strerrordesc_np((int)sys);
    pk_fail(err, PK_E_UNREACHABLE, "cannot reach %s: %s", where, why != NULL ? why : "?");
    pk_hint(err, client->socket_path != NULL
                     ? "check that the server runs ('picket up' starts it) and that this user may "
                       "use its socket"
                     : "check the address and that the server runs");
    return PK_E_UNREACHABLE;
}

static int add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *grown = curl_slist_append(*list, line);
    if (grown == NULL)
        return -1;
    *list = grown;
    return 0;
}

static void free_headers(struct curl_slist **list)
{
    curl_slist_free_all(*list);
}

/* curl_easy_setopt() of valid options fails only when memory is out. */
#define SET(option, value) (failed |= curl_easy_setopt(easy, option, value) != CURLE_OK)

static int set_up(struct pk_http_client *client, const struct pk_http_call *call, const char *url,
                  const void *data, size_t len, struct curl_slist *headers)
{
    CURL *easy = client->easy;
    bool failed = false;
    unsigned timeout = call->timeout_ms;
    if (timeout == 0 && call->on_data == NULL)
        timeout = client->timeout_ms;
    curl_easy_reset(easy); /* keeps the connections */
    SET(CURLOPT_URL, url);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_USERAGENT, "picket/" PICKET_VERSION);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_TIMEOUT_MS, (long)timeout);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)client->connect_timeout_ms);
    if (client->socket_path != NULL) {
        SET(CURLOPT_UNIX_SOCKET_PATH, client->socket_path);
        SET(CURLOPT_PROXY, ""); /* whatever the environment says */
    }
    if (client->ca_file != NULL)
        SET(CURLOPT_CAINFO, client->ca_file);
    if (data != NULL) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, data); /* not copied: it lives through the call */
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
    } else if (strcmp(call->method, "POST") == 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, "");
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
    }
    if (strcmp(call->method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    SET(CURLOPT_CUSTOMREQUEST, call->method);
    return failed ? -1 : 0;
}

static int make_headers(const struct pk_http_client *client, const struct pk_http_call *call,
                        bool has_data, struct curl_slist **ret_headers)
{
    PK_CLEANUP(free_headers) struct curl_slist *headers = NULL;
    const char *type = call->content_type != NULL ? call->content_type : "application/json";
    PK_CLEANUP(pk_free_p) char *line = pk_asprintf("Content-Type: %s", type);
    if (line == NULL || add_header(&headers, "Expect:") < 0 ||
        (has_data && add_header(&headers, line) < 0) ||
        (client->token != NULL && add_header(&headers, client->token) < 0))
        return -1;
    *ret_headers = PK_TAKE(headers);
    return 0;
}

int pk_http_call(struct pk_http_client *client, const struct pk_http_call *call,
                 unsigned *ret_status, struct pk_buf *body, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *json = call->json == NULL ? NULL : pk_json_compact(call->json);
    PK_CLEANUP(pk_free_p) char *url = pk_asprintf("%s%s", client->url, call->path);
    PK_CLEANUP(free_headers) struct curl_slist *headers = NULL;
    const void *data = json != NULL ? json : call->data;
    size_t len = json != NULL ? strlen(json) : call->data_len;
    struct answer answer = { .call = call,
                             .body = body,
                             .max = call->max_body == 0 ? DEFAULT_MAX_BODY : call->max_body };
    char detail[CURL_ERROR_SIZE] = "";
    if ((call->json != NULL && json == NULL) || url == NULL ||
        make_headers(client, call, data != NULL, &headers) < 0 ||
        set_up(client, call, url, data, len, headers) < 0 ||
        curl_easy_setopt(client->easy, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK ||
        curl_easy_setopt(client->easy, CURLOPT_WRITEDATA, &answer) != CURLE_OK ||
        curl_easy_setopt(client->easy, CURLOPT_ERRORBUFFER, detail) != CURLE_OK)
        return pk_fail(err, PK_E_NOMEM, "cannot call %s: out of memory", client->url);
    if (body != NULL && body->max == 0)
        body->max = answer.max;
    CURLcode code = curl_easy_perform(client->easy);
    if (code != CURLE_OK && !(answer.stopped && code == CURLE_WRITE_ERROR))
        return transport_error(client, &answer, code, detail, err);
    if (body != NULL && pk_buf_reserve(body, 0) < 0) /* "" rather than NULL for an empty answer */
        return pk_fail(err, PK_E_NOMEM, "cannot keep the answer: out of memory");
    long status = 0;
    (void)curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
    if (ret_status != NULL)
        *ret_status = (unsigned)status;
    return 0;
}

static int code_of_status(unsigned status)
{
    size_t count;
    const struct pk_code_info *table = pk_code_table(&count);
    for (size_t i = 0; i < count; i++)
        if ((unsigned)table[i].http_status == status && table[i].code != PK_OK)
            return table[i].code;
    return status == 401 ? PK_E_DENIED : status < 500 ? PK_E_USAGE : PK_E_INTERNAL;
}

int pk_http_json(struct pk_http_client *client, const char *method, const char *path,
                 const json_t *json, json_t **ret_json, struct pk_error *err)
{
    const struct pk_http_call call = { .method = method, .path = path, .json = json };
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(DEFAULT_MAX_BODY);
    unsigned status;
    int r = pk_http_call(client, &call, &status, &body, err);
    if (r < 0)
        return r;
    PK_JSON answer = NULL;
    struct pk_error fault = { 0 };
    if (body.len > 0)
        r = pk_json_parse("the server's answer", body.data, body.len, &answer, &fault);
    if (r == PK_E_NOMEM)
        return pk_fail(err, r, "cannot read the server's answer: out of memory");
    if (status >= 400) {
        const json_t *error = json_object_get(answer, "error");
        if (json_is_object(error)) {
            struct pk_error told;
            pk_json_to_error(error, &told);
            if (err != NULL)
                *err = told;
            return told.code;
        }
        return pk_fail(err, code_of_status(status), "%s %s: the server answered with status %u",
                       method, path, status);
    }
    if (r < 0) {
        pk_fail(err, PK_E_INTERNAL, "the server's answer to %s %s is not JSON", method, path);
        pk_hint(err, "check that the address is that of picket's server");
        return PK_E_INTERNAL;
    }
    if (ret_json != NULL)
        *ret_json = PK_TAKE(answer);
    return 0;
}

char *pk_url_escape(const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    struct pk_buf out = PK_BUF_INIT((size_t)3 * strlen(text) + 1);
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr(plain, *p) != NULL)
            (void)pk_buf_putc(&out, *p);
        else
            (void)pk_buf_printf(&out, "%%%02X", (unsigned)(unsigned char)*p);
    }
    return pk_buf_take(&out);
}
