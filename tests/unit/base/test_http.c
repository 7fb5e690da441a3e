/* SPDX-License-Identifier: Apache-2.0 */
/* Client and server against each other, over a unix socket and over TLS, and raw bytes from a
 * socket of our own where a client would not send them. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/http.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/time.h"

static char dir[] = "/tmp/pk-test-http-XXXXXX";
static char socket_path[64], url[80];
static struct pk_http_server *server;
static atomic_int streams_done;

static int get_echo(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)err;
    const struct pk_http_peer *peer = pk_http_peer(request);
    const char *query = pk_http_query(request, "q");
    return pk_http_reply_json_take(
        request, 200,
        json_pack("{s:s,s:s?,s:b,s:i,s:i}", "name", pk_http_param(request, "name"), "q", query,
                  "local", peer->local, "uid", (int)peer->uid, "pid", (int)peer->pid));
}

static int post_body(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    json_t *json;
    int r = pk_http_body_json(request, &json, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 201, json);
}

static int put_raw(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)err;
    size_t len;
    const char *body = pk_http_body(request, &len);
    return pk_http_reply(request, 200, "application/octet-stream", body, len);
}

static int get_fault(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)request;
    pk_fail(err, PK_E_CONFLICT, "the plan is stale");
    pk_hint(err, "plan again");
    pk_error_at(err, "demo.yaml", 3, 4);
    return PK_E_CONFLICT;
}

static int get_nothing(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)request;
    (void)err;
    return 0;
}

struct counter {
    unsigned now, end;
};

static int next_number(void *arg, struct pk_buf *buf)
{
    struct counter *counter = arg;
    if (counter->now == counter->end)
        return 0;
    if (counter->end > 1000)
        pk_sleep_ms(5);                /* the endless one */
    return counter->now++ % 3 == 1 ? 1 /* nothing yet */
                                   : (pk_buf_printf(buf, "%u\n", counter->now - 1), 1);
}

static void counter_done(void *arg)
{
    atomic_fetch_add(&streams_done, 1);
    pk_free(arg);
}

static int get_stream(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)err;
    struct counter *counter = pk_zalloc(sizeof(*counter));
    counter->end = pk_http_query(request, "endless") != NULL ? UINT32_MAX : 6;
    return pk_http_reply_stream(request, "text/plain", next_number, counter_done, counter);
}

static int authorise(void *arg, const struct pk_http_peer *peer, const char *method,
                     const char *path, struct pk_error *err)
{
    (void)arg;
    (void)method;
    (void)path;
    if (peer->local || (peer->token != NULL && strcmp(peer->token, "secret") == 0))
        return 0;
    return pk_fail(err, PK_E_DENIED, "a token is needed");
}

static const struct pk_http_route routes[] = {
    { "GET", "/v1/echo/{name}", get_echo, 0 },
    { "POST", "/v1/body", post_body, 0 },
    { "PUT", "/v1/raw", put_raw, 0 },
    { "GET", "/v1/fault", get_fault, 0 },
    { "GET", "/v1/nothing", get_nothing, 0 },
    { "GET", "/v1/stream", get_stream, 0 },
    { "GET", "/v1/public", put_raw, PK_ROUTE_PUBLIC },
};

static struct pk_http_server_options base_options(void)
{
    return (struct pk_http_server_options){ .routes = routes,
                                            .route_count = PK_ARRAY_SIZE(routes),
                                            .socket_path = socket_path,
                                            .socket_mode = 0660,
                                            .socket_gid = (gid_t)-1,
                                            .max_body = 1000,
                                            .authorise = authorise };
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(socket_path, sizeof(socket_path), "%s/s", dir);
    (void)snprintf(url, sizeof(url), "unix:%s", socket_path);
    struct pk_http_server_options options = base_options();
    struct pk_error err = { 0 };
    int r = pk_http_server_start(&options, &server, &err);
    if (r < 0)
        print_error("%s\n", err.msg);
    return r;
}

static int tear_down(void **state)
{
    (void)state;
    pk_http_server_stop(server);
    bool left = pk_file_exists(socket_path);
    return pk_rm_rf(dir, NULL) < 0 || left ? -1 : 0;
}

static struct pk_http_client *new_client(void)
{
    struct pk_http_client *client = NULL;
    const struct pk_http_client_options options = { .base_url = url, .timeout_ms = 5000 };
    assert_int_equal(pk_http_client_new(&options, &client, NULL), 0);
    return client;
}

static void test_json_both_ways(void **state)
{
    (void)state;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = new_client();
    PK_JSON answer = NULL;
    PK_CLEANUP(pk_free_p) char *segment = pk_url_escape("a/b c%\xc3\xa4?");
    assert_string_equal(segment, "a%2Fb%20c%25%C3%A4%3F");
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/echo/%s?q=%s&r", segment, segment);
    assert_int_equal(pk_http_json(client, "GET", path, NULL, &answer, NULL), 0);
    assert_string_equal(pk_json_string_or(answer, "name", ""), "a/b c%\xc3\xa4?");
    assert_string_equal(pk_json_string_or(answer, "q", ""), "a/b c%\xc3\xa4?");
    assert_true(pk_json_bool_or(answer, "local", false));
    assert_int_equal(pk_json_int_or(answer, "uid", -1), getuid());
    assert_int_equal(pk_json_int_or(answer, "pid", -1), getpid());
    PK_JSON sent = json_pack("{s:[i,s]}", "list", 1, "\xc3\xa4");
    PK_JSON back = NULL;
    assert_int_equal(pk_http_json(client, "POST", "/v1/body", sent, &back, NULL), 0);
    assert_true(json_equal(sent, back));
    PK_JSON nothing = json_null();
    assert_int_equal(pk_http_json(client, "PUT", "/v1/raw", NULL, &nothing, NULL), 0);
    assert_null(nothing);
}

static void test_errors_travel(void **state)
{
    (void)state;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = new_client();
    struct pk_error err = { 0 };
    assert_int_equal(pk_http_json(client, "GET", "/v1/fault", NULL, NULL, &err), PK_E_CONFLICT);
    assert_string_equal(err.msg, "the plan is stale");
    assert_string_equal(err.hint, "plan again");
    assert_string_equal(err.file, "demo.yaml");
    assert_int_equal(err.line, 3);
    static const struct {
        const char *method, *path;
        unsigned status;
        int code;
    } cases[] = {
        { "GET", "/v1/none", 404, PK_E_NOTFOUND },     { "GET", "/v1/echo/", 404, PK_E_NOTFOUND },
        { "GET", "/v1/echo/a/b", 404, PK_E_NOTFOUND }, { "DELETE", "/v1/body", 405, PK_E_USAGE },
        { "GET", "/v1/echo/%zz", 400, PK_E_USAGE },    { "GET", "/v1/echo/%00", 400, PK_E_USAGE },
        { "GET", "/v1/echo/%ff", 400, PK_E_USAGE },    { "GET", "/v1/echo/x?q=%", 400, PK_E_USAGE },
        { "POST", "/v1/body", 400, PK_E_USAGE },       { "GET", "/v1/nothing", 500, PK_E_INTERNAL },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        unsigned status = 0;
        PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(10000);
        const struct pk_http_call call = { .method = cases[i].method, .path = cases[i].path };
        assert_int_equal(pk_http_call(client, &call, &status, &body, &err), 0);
        if (status != cases[i].status)
            fail_msg("%s %s: %u %s", cases[i].method, cases[i].path, status, body.data);
        assert_int_equal(pk_http_json(client, cases[i].method, cases[i].path, NULL, NULL, &err),
                         cases[i].code);
    }
}

static void test_bodies_and_their_limit(void **state)
{
    (void)state;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = new_client();
    static char data[3000000];
    memset(data, '\1', sizeof(data));
    const size_t sizes[] = { 1, 1000, 1001, 100000, sizeof(data) };
    for (size_t i = 0; i < PK_ARRAY_SIZE(sizes); i++) {
        PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(10000);
        unsigned status = 0;
        const struct pk_http_call call = { .method = "PUT",
                                           .path = "/v1/raw",
                                           .data = data,
                                           .data_len = sizes[i],
                                           .content_type = "application/octet-stream" };
        struct pk_error err = { 0 };
        int r = pk_http_call(client, &call, &status, &body, &err);
        if (sizes[i] > 1 << 20) /* too much even to be dropped: cut off */
            assert_int_equal(r, PK_E_UNREACHABLE);
        else if (r < 0)
            fail_msg("%zu bytes: %s", sizes[i], err.msg);
        if (sizes[i] <= 1000) {
            assert_int_equal(status, 200);
            assert_int_equal(body.len, sizes[i]);
        } else if (r == 0) {
            assert_int_equal(status, 413);
        }
    }
    unsigned status;
    struct pk_error err = { 0 };
    const struct pk_http_call small = { .method = "GET", .path = "/v1/stream", .max_body = 3 };
    assert_int_equal(pk_http_call(client, &small, &status, NULL, &err), PK_E_NOSPACE);
}

static int take_some(void *arg, const char *data, size_t len)
{
    struct pk_buf *got = arg;
    assert_int_equal(pk_buf_add(got, data, len), 0);
    return got->len > 20;
}

static void test_streams(void **state)
{
    (void)state;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = new_client();
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(1000);
    unsigned status;
    const struct pk_http_call whole = { .method = "GET", .path = "/v1/stream" };
    int done = atomic_load(&streams_done);
    assert_int_equal(pk_http_call(client, &whole, &status, &body, NULL), 0);
    assert_string_equal(body.data, "0\n2\n3\n5\n");
    /* A client that goes away ends an endless stream. */
    PK_CLEANUP(pk_buf_done) struct pk_buf got = PK_BUF_INIT(1000);
    const struct pk_http_call endless = {
        .method = "GET", .path = "/v1/stream?endless=1", .on_data = take_some, .on_data_arg = &got
    };
    assert_int_equal(pk_http_call(client, &endless, &status, NULL, NULL), 0);
    assert_int_equal(status, 200);
    pk_http_client_free(PK_TAKE(client));
    for (int i = 0; i < 300 && atomic_load(&streams_done) < done + 2; i++)
        pk_sleep_ms(10);
    assert_int_equal(atomic_load(&streams_done), done + 2);
}

static void send_raw(const char *bytes, char *answer, size_t size)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    ssize_t n = read(fd, answer, size - 1);
    answer[n < 0 ? 0 : n] = '\0';
}

static void test_what_no_client_sends(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /%2e%2e HTTP/1.1\r\n\r\n",
        "PUT /v1/raw HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "PUT /v1/raw HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "PUT /v1/raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "PUT /v1/raw HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    };
    char answer[4096];
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++)
        send_raw(cases[i], answer, sizeof(answer));
    send_raw("GET /v1/public HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n\r\n", answer,
             sizeof(answer));
    assert_non_null(strstr(answer, "200 OK")); /* still there */
    assert_non_null(strstr(answer, "X-Content-Type-Options: nosniff"));
    send_raw("DELETE /v1/public HTTP/1.1\r\nHost: x\r\n\r\n", answer, sizeof(answer));
    assert_non_null(strstr(answer, "Allow: GET"));
}

static void test_the_socket(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(socket_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    struct pk_http_server_options options = base_options();
    struct pk_http_server *second = NULL;
    struct pk_error err = { 0 };
    assert_int_equal(pk_http_server_start(&options, &second, &err), PK_E_CONFLICT);
    assert_non_null(strstr(err.msg, "another server"));
    PK_CLEANUP(pk_free_p) char *file = pk_path_join(dir, "file");
    assert_int_equal(pk_file_write(file, "", 0, 0600, NULL), 0);
    options.socket_path = file;
    assert_int_equal(pk_http_server_start(&options, &second, &err), PK_E_CONFLICT);
    assert_true(pk_file_exists(file));
    /* What a server that was killed left behind is replaced. */
    PK_CLEANUP(pk_free_p) char *stale = pk_path_join(dir, "stale");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    memcpy(address.sun_path, stale, strlen(stale) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    pk_close_p(&fd);
    options.socket_path = stale;
    assert_int_equal(pk_http_server_start(&options, &second, &err), 0);
    pk_http_server_stop(second);
    assert_false(pk_file_exists(stale));
    options.socket_path = "/nonexistent/s";
    assert_int_equal(pk_http_server_start(&options, &second, &err), PK_E_NOTFOUND);
}

static void test_unreachable_and_slow(void **state)
{
    (void)state;
    struct pk_http_client *client = NULL;
    struct pk_error err = { 0 };
    const struct pk_http_client_options nobody = { .base_url = "unix:/tmp/pk-nobody-there" };
    assert_int_equal(pk_http_client_new(&nobody, &client, NULL), 0);
    assert_int_equal(pk_http_json(client, "GET", "/", NULL, NULL, &err), PK_E_UNREACHABLE);
    assert_non_null(strstr(err.hint, "picket up"));
    pk_http_client_free(client);
    client = NULL;
    const struct pk_http_client_options wrong = { .base_url = "ftp://x" };
    assert_int_equal(pk_http_client_new(&wrong, &client, &err), PK_E_USAGE);
    assert_null(client);
    client = new_client();
    unsigned status;
    const struct pk_http_call slow = { .method = "GET",
                                       .path = "/v1/stream?endless=1",
                                       .timeout_ms = 100 };
    assert_int_equal(pk_http_call(client, &slow, &status, NULL, &err), PK_E_TIMEOUT);
    pk_http_client_free(client);
}

static void test_client_without_memory(void **state)
{
    (void)state;
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_http_client *client = NULL;
        const struct pk_http_client_options options = { .base_url = url, .token = "t" };
        r = pk_http_client_new(&options, &client, NULL);
        pk_http_client_free(client);
    });
}

/* ---- TLS: a certificate made for the test ---- */

static bool make_certificate(const char *cert, const char *key)
{
    const char *const argv[] = { "openssl",
                                 "req",
                                 "-x509",
                                 "-newkey",
                                 "ec",
                                 "-pkeyopt",
                                 "ec_paramgen_curve:P-256",
                                 "-nodes",
                                 "-days",
                                 "2",
                                 "-subj",
                                 "/CN=localhost",
                                 "-addext",
                                 "subjectAltName=IP:127.0.0.1",
                                 "-keyout",
                                 key,
                                 "-out",
                                 cert,
                                 NULL };
    const struct pk_proc_options options = { .argv = argv, .timeout_ms = 20000 };
    return pk_proc_check(&options, NULL, NULL) == 0;
}

static void test_tls_with_token(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *cert = pk_path_join(dir, "cert.pem");
    PK_CLEANUP(pk_free_p) char *key = pk_path_join(dir, "key.pem");
    if (!make_certificate(cert, key))
        PK_SKIP("openssl is not installed");
    struct pk_http_server_options options = base_options();
    options.socket_path = NULL;
    options.address = "127.0.0.1";
    struct pk_http_server *secure = NULL;
    struct pk_error err = { 0 };
    assert_int_equal(pk_http_server_start(&options, &secure, &err), PK_E_USAGE); /* no plain TCP */
    options.cert_file = cert;
    options.key_file = cert;
    assert_int_equal(pk_http_server_start(&options, &secure, &err), PK_E_INVALID);
    options.key_file = key;
    assert_int_equal(pk_http_server_start(&options, &secure, &err), 0);
    PK_CLEANUP(pk_free_p)
    char *address = pk_asprintf("https://127.0.0.1:%u/", pk_http_server_port(secure));
    static const struct {
        const char *token;
        bool trusted;
        const char *path;
        int want;
    } cases[] = {
        { "secret", true, "/v1/echo/x", 0 },
        { "wrong", true, "/v1/echo/x", PK_E_DENIED },
        { NULL, true, "/v1/echo/x", PK_E_DENIED },
        { NULL, true, "/v1/public", 0 },
        { "secret", false, "/v1/echo/x", PK_E_DENIED },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
        const struct pk_http_client_options how = { .base_url = address,
                                                    .token = cases[i].token,
                                                    .ca_file = cases[i].trusted ? cert : NULL };
        assert_int_equal(pk_http_client_new(&how, &client, NULL), 0);
        PK_JSON answer = NULL;
        int r = pk_http_json(client, "GET", cases[i].path, NULL, &answer, &err);
        if (r != cases[i].want)
            fail_msg("case %zu: %d %s", i, r, err.msg);
        if (r == 0 && answer != NULL)
            assert_false(pk_json_bool_or(answer, "local", true));
    }
    struct pk_http_server *second = NULL;
    options.port = pk_http_server_port(secure);
    assert_int_equal(pk_http_server_start(&options, &second, &err), PK_E_CONFLICT);
    assert_true(err.hint[0] != '\0');
    pk_http_server_stop(secure);
}

/* Many clients at once, and a stop while an endless stream runs. */
static void *call_often(void *arg)
{
    (void)arg;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = new_client();
    size_t good = 0;
    for (int i = 0; i < 50; i++) {
        PK_JSON answer = NULL;
        good += pk_http_json(client, "GET", "/v1/echo/x", NULL, &answer, NULL) == 0;
    }
    return (void *)(uintptr_t)good;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[8];
    for (size_t i = 0; i < PK_ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, NULL), 0);
    for (size_t i = 0; i < PK_ARRAY_SIZE(threads); i++) {
        void *good;
        assert_int_equal(pthread_join(threads[i], &good), 0);
        assert_int_equal((uintptr_t)good, 50);
    }
}

static void *follow(void *arg)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    const struct pk_http_client_options options = { .base_url = arg };
    assert_int_equal(pk_http_client_new(&options, &client, NULL), 0);
    PK_CLEANUP(pk_buf_done) struct pk_buf got = PK_BUF_INIT(0);
    const struct pk_http_call call = { .method = "GET",
                                       .path = "/v1/stream?endless=1",
                                       .timeout_ms = 20000 };
    unsigned status;
    (void)pk_http_call(client, &call, &status, &got, NULL);
    return NULL;
}

static void test_stop_ends_streams(void **state)
{
    (void)state;
    struct pk_http_server_options options = base_options();
    PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, "other");
    options.socket_path = path;
    struct pk_http_server *other = NULL;
    assert_int_equal(pk_http_server_start(&options, &other, NULL), 0);
    PK_CLEANUP(pk_free_p) char *address = pk_asprintf("unix:%s", path);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, follow, address), 0);
    pk_sleep_ms(100);
    pk_nsec start = pk_time_monotonic();
    pk_http_server_stop(other);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(pk_time_monotonic() - start < 5 * PK_NSEC_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_both_ways),         cmocka_unit_test(test_errors_travel),
        cmocka_unit_test(test_bodies_and_their_limit), cmocka_unit_test(test_streams),
        cmocka_unit_test(test_what_no_client_sends),   cmocka_unit_test(test_the_socket),
        cmocka_unit_test(test_unreachable_and_slow),   cmocka_unit_test(test_client_without_memory),
        cmocka_unit_test(test_tls_with_token),         cmocka_unit_test(test_threads),
        cmocka_unit_test(test_stop_ends_streams),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
