/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions through libpcap's compiler. It looks names up wherever a word stands for an address,
 * by DNS too, which a server must not do for what a file says: so words are looked at first. And it
 * says that something is wrong, but not where: so the place is found by asking again.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <pthread.h>
#include <string.h>

#include <pcap/pcap.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "packet/filter_internal.h"

#define SNAP 262144 /* what tcpdump has: no instruction is left out for it */

/* libpcap is reentrant since 1.8, but not all that it calls is. */
static pthread_mutex_t compiler = PTHREAD_MUTEX_INITIALIZER;

/* Returns 0, or -1 with libpcap's words in *message. */
static int compile(const char *text, struct bpf_program *ret_program, char message[256])
{
    pthread_mutex_lock(&compiler);
    pcap_t *pcap = pcap_open_dead(DLT_EN10MB, SNAP);
    int r = -1;
    if (pcap == NULL) {
        snprintf(message, 256, "out of memory");
    } else {
        r = pcap_compile(pcap, ret_program, text, 1, PCAP_NETMASK_UNKNOWN);
        if (r < 0)
            snprintf(message, 256, "%s", pcap_geterr(pcap));
        pcap_close(pcap);
    }
    pthread_mutex_unlock(&compiler);
    return r;
}

/* ---- words ---- */

/* All that libpcap 1.10 knows in its scanner.l, less what it knows for other links than Ethernet.
 * Sorted by what a name behind it stands for. */
static const char *const port_words[] = { "port", "portrange", NULL };
static const char *const protocol_words[] = { "proto", "protochain", NULL };
static const char *const joining_words[] = { "and", "or", "not", NULL };
/* clang-format off */
static const char *const other_words[] = {
    "dst", "src", "link", "ether", "arp", "rarp", "ip", "sctp", "tcp", "udp", "icmp", "igmp",
    "igrp", "pim", "vrrp", "carp", "ip6", "icmp6", "ah", "esp", "atalk", "aarp", "decnet", "lat",
    "sca", "moprc", "mopdl", "iso", "esis", "es-is", "isis", "is-is", "l1", "l2", "iih", "lsp",
    "snp", "csnp", "psnp", "clnp", "stp", "ipx", "netbeui", "host", "net", "mask", "less",
    "greater", "byte", "broadcast", "multicast", "len", "length", "inbound", "outbound", "ifindex",
    "vlan", "mpls", "pppoed", "pppoes", "geneve", "icmptype", "icmpcode", "icmp-echoreply",
    "icmp-unreach", "icmp-sourcequench", "icmp-redirect", "icmp-echo", "icmp-routeradvert",
    "icmp-routersolicit", "icmp-timxceed", "icmp-paramprob", "icmp-tstamp", "icmp-tstampreply",
    "icmp-ireq", "icmp-ireqreply", "icmp-maskreq", "icmp-maskreply", "icmp6type", "icmp6code",
    "icmp6-echo", "icmp6-echoreply", "icmp6-multicastlistenerquery",
    "icmp6-multicastlistenerreportv1", "icmp6-multicastlistenerdone", "icmp6-routersolicit",
    "icmp6-routeradvert", "icmp6-neighborsolicit", "icmp6-neighboradvert", "icmp6-redirect",
    "icmp6-routerrenum", "icmp6-nodeinformationquery", "icmp6-nodeinformationresponse",
    "icmp6-ineighbordiscoverysolicit", "icmp6-ineighbordiscoveryadvert",
    "icmp6-multicastlistenerreportv2", "icmp6-homeagentdiscoveryrequest",
    "icmp6-homeagentdiscoveryreply", "icmp6-mobileprefixsolicit", "icmp6-mobileprefixadvert",
    "icmp6-certpathsolicit", "icmp6-certpathadvert", "icmp6-multicastrouteradvert",
    "icmp6-multicastroutersolicit", "icmp6-multicastrouterterm", "icmp6-destinationunreach",
    "icmp6-packettoobig", "icmp6-timeexceeded", "icmp6-parameterproblem", "tcpflags", "tcp-fin",
    "tcp-syn", "tcp-rst", "tcp-push", "tcp-ack", "tcp-urg", "tcp-ece", "tcp-cwr", NULL,
};
/* clang-format on */

struct word {
    const char *start;
    size_t len;
};

static bool is_one_of(struct word word, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strlen(*list) == word.len && memcmp(*list, word.start, word.len) == 0)
            return true;
    return false;
}

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '.';
}

/* The next word, number, address or sign at *at; false at the end. */
static bool next_word(const char **at, unsigned depth, struct word *ret_word)
{
    const char *p = *at;
    while (isspace((unsigned char)*p))
        p++;
    if (*p == '\0')
        return false;
    const char *start = p;
    if (is_name_char(*p) || *p == '\\' || (depth == 0 && *p == ':'))
        for (p++; is_name_char(*p) || (depth == 0 && *p == ':');)
            p++;
    else
        p++;
    *ret_word = (struct word){ start, (size_t)(p - start) };
    *at = p;
    return true;
}

/* Decimal, octal or hexadecimal. */
static bool is_number(struct word word)
{
    bool hex = word.len > 2 && word.start[0] == '0' && (word.start[1] | 0x20) == 'x';
    for (size_t i = hex ? 2 : 0; i < word.len; i++)
        if (hex ? !isxdigit((unsigned char)word.start[i]) : !isdigit((unsigned char)word.start[i]))
            return false;
    return true;
}

/* Groups of digits between separators, for "10.1", "02:00:00:00:00:01". */
static bool is_groups(struct word word, char separator, size_t min, size_t max, bool hex)
{
    size_t groups = 1, digits = 0;
    for (size_t i = 0; i < word.len; i++) {
        char c = word.start[i];
        if (c == separator) {
            if (digits == 0)
                return false;
            groups++;
            digits = 0;
        } else if (hex ? isxdigit((unsigned char)c) : isdigit((unsigned char)c)) {
            if (++digits > (hex ? 2u : 3u))
                return false;
        } else {
            return false;
        }
    }
    return digits > 0 && groups >= min && groups <= max;
}

static bool is_address(struct word word)
{
    char text[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    if (is_groups(word, '.', 2, 4, false) || is_groups(word, ':', 6, 6, true) ||
        is_groups(word, '-', 6, 6, true))
        return true;
    if (word.len >= sizeof text)
        return false;
    memcpy(text, word.start, word.len);
    text[word.len] = '\0';
    return inet_pton(AF_INET6, text, bytes) == 1;
}

static int refuse_name(struct word word, unsigned depth, struct pk_error *err)
{
    const char *known[PK_ARRAY_SIZE(other_words) + 8];
    size_t count = 0;
    const char *const *const all[] = { joining_words, port_words, protocol_words, other_words };
    for (size_t i = 0; i < PK_ARRAY_SIZE(all); i++)
        for (const char *const *each = all[i]; *each != NULL; each++)
            known[count++] = *each;
    char text[32];
    snprintf(text, sizeof text, "%.*s", (int)PK_MIN(word.len, sizeof text - 1), word.start);
    const char *close = pk_str_closest(text, known, count);
    pk_fail(err, PK_E_INVALID, "the filter has '%s' where %s should be", text,
            depth > 0 ? "a number" : "an address");
    if (close != NULL)
        return pk_hint(err, "did you mean '%s'? Names of hosts are not looked up", close);
    return pk_hint(err, "names of hosts and networks are not looked up: write addresses");
}

/* Refuses each word for which libpcap would ask a resolver. *ret_column: where. */
static int check_words(const char *text, unsigned *ret_column, struct pk_error *err)
{
    const char *at = text;
    struct word word;
    unsigned depth = 0;    /* of brackets */
    bool is_local = false; /* a name here is one of a port or protocol, found in a file */
    while (next_word(&at, depth, &word)) {
        if (word.start[0] == '[')
            depth++;
        else if (word.start[0] == ']' && depth > 0)
            depth--;
        else if (is_one_of(word, port_words) || is_one_of(word, protocol_words))
            is_local = true;
        else if (is_one_of(word, joining_words))
            ;
        else if (is_one_of(word, other_words))
            is_local = false;
        else if ((is_name_char(word.start[0]) || word.start[0] == '\\' ||
                  (depth == 0 && word.start[0] == ':')) &&
                 !is_number(word) && !(depth == 0 && (is_address(word) || is_local)) &&
                 !(word.len == 1 && word.start[0] == '-')) {
            *ret_column = (unsigned)(word.start - text) + 1;
            return refuse_name(word, depth, err);
        }
    }
    return 0;
}

/* ---- where libpcap stumbles ---- */

/* Can the text's first words be the start of some expression? */
static bool can_go_on(const char *text, size_t len)
{
    static const char *const ends[] = { "",
                                        " tcp",
                                        " 1",
                                        " = 1",
                                        " ] = 1",
                                        " 1 ] = 1",
                                        " 1 = 1",
                                        " 10.0.0.1",
                                        " port 1",
                                        " host 10.0.0.1",
                                        " 00:00:00:00:00:00" };
    unsigned round = 0, square = 0;
    for (size_t i = 0; i < len; i++) {
        round += text[i] == '(';
        round -= text[i] == ')' && round > 0;
        square += text[i] == '[';
        square -= text[i] == ']' && square > 0;
    }
    for (size_t i = 0; i < PK_ARRAY_SIZE(ends); i++) {
        struct pk_buf all = PK_BUF_INIT(4 * PK_FILTER_TEXT_MAX);
        struct bpf_program program;
        char message[256] = "";
        pk_buf_add(&all, text, len);
        pk_buf_puts(&all, ends[i]);
        for (unsigned k = 0; k < round; k++)
            pk_buf_putc(&all, ')');
        int r = all.failed || all.data == NULL ? 0 : compile(all.data, &program, message);
        if (r == 0 && !all.failed && all.data != NULL)
            pcap_freecode(&program);
        pk_buf_done(&all);
        if (r == 0 || strstr(message, "rejects all packets") != NULL)
            return true;
    }
    return false;
}

/* The first word with which no expression can go on, by halving; 0 = there is none. */
static unsigned find_column(const char *text)
{
    PK_CLEANUP(pk_free_p) struct word *words = pk_zalloc_array(strlen(text) + 1, sizeof *words);
    size_t count = 0;
    unsigned depth = 0;
    if (words == NULL)
        return 0;
    for (const char *at = text; next_word(&at, depth, &words[count]); count++) {
        depth += words[count].start[0] == '[';
        depth -= words[count].start[0] == ']' && depth > 0;
    }
    size_t good = 0, bad = count + 1; /* numbers of words */
    while (bad - good > 1) {
        size_t middle = (good + bad) / 2;
        const struct word *last = &words[middle - 1];
        if (middle <= count && can_go_on(text, (size_t)(last->start + last->len - text)))
            good = middle;
        else
            bad = middle;
    }
    if (bad > count)
        return count > 0 ? (unsigned)(words[count - 1].start + words[count - 1].len - text) + 1 : 0;
    return (unsigned)(words[bad - 1].start - text) + 1;
}

static int fail_compile(const char *text, const char *message, unsigned *ret_column,
                        struct pk_error *err)
{
    static const char prefix[] = "can't parse filter expression: ";
    if (strncmp(message, prefix, sizeof prefix - 1) == 0)
        message += sizeof prefix - 1;
    unsigned column = strstr(message, "rejects all packets") != NULL ? 0 : find_column(text);
    *ret_column = column;
    if (column == 0)
        pk_fail(err, PK_E_INVALID, "the filter cannot be compiled: %s", message);
    else if (column > strlen(text))
        pk_fail(err, PK_E_INVALID, "the filter cannot be compiled: %s: it ends too early", message);
    else
        pk_fail(err, PK_E_INVALID, "the filter cannot be compiled: %s at '%.*s'", message,
                (int)PK_MIN(24, strcspn(text + column - 1, "\t\r\n")), text + column - 1);
    if (strstr(message, "rejects all packets") != NULL)
        return pk_hint(err, "no packet can be all that it asks for at once: is an 'and' to be an "
                            "'or'?");
    return pk_hint(err, "it is written as for tcpdump: 'man pcap-filter'");
}

/* Messages repeat what is wrong: they are to be printable. */
static int check_characters(const char *text, unsigned *ret_column, struct pk_error *err)
{
    for (const char *at = text; *at != '\0'; at++) {
        if ((*at >= ' ' && *at < 0x7f) || strchr("\t\r\n", *at) != NULL)
            continue;
        *ret_column = (unsigned)(at - text) + 1;
        pk_fail(err, PK_E_INVALID, "the filter has a character that no expression has");
        return pk_hint(err, "write it in ASCII, as for tcpdump: 'man pcap-filter'");
    }
    return 0;
}

int pk_filter_expression(const char *text, struct pk_filter_op **ret_ops, size_t *ret_count,
                         unsigned *ret_column, struct pk_error *err)
{
    *ret_column = 0;
    if (strlen(text) > PK_FILTER_TEXT_MAX) {
        pk_fail(err, PK_E_INVALID, "the filter's expression is longer than %u characters",
                PK_FILTER_TEXT_MAX);
        return pk_hint(err, "lists of addresses and ports go into 'prefixes' and 'ports'");
    }
    if (text[strspn(text, " \t\r\n")] == '\0') {
        pk_fail(err, PK_E_INVALID, "the filter is empty");
        return pk_hint(err, "leave it out to let everything pass");
    }
    int r = check_characters(text, ret_column, err);
    if (r >= 0)
        r = check_words(text, ret_column, err);
    if (r < 0)
        return r;
    struct bpf_program program;
    char message[256];
    if (compile(text, &program, message) < 0)
        return fail_compile(text, message, ret_column, err);
    struct pk_filter_op *ops = pk_zalloc_array(program.bf_len, sizeof *ops);
    for (unsigned i = 0; ops != NULL && i < program.bf_len; i++) {
        const struct bpf_insn *insn = &program.bf_insns[i];
        ops[i] = (struct pk_filter_op){ insn->code, insn->jt, insn->jf, insn->k };
    }
    size_t count = program.bf_len;
    pcap_freecode(&program);
    if (ops == NULL)
        return pk_no_memory(err);
    *ret_ops = ops;
    *ret_count = count;
    return 0;
}
