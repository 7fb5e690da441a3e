/* SPDX-License-Identifier: Apache-2.0 */
#include "expressions.h"

#include <linux/filter.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PICK(rng, list) ((list)[frames_below((rng), sizeof(list) / sizeof((list)[0]))])

static const uint16_t port_pool[] = { 53, 80, 443, 8080, 9200, 40000 };

static void random_ends(struct frames_rng *rng, struct frames_flow *flow)
{
    static const uint8_t net6[] = { 0x20, 0x01, 0x0d, 0xb8 };
    static const uint8_t protos[] = { 6, 17, 132, 1, 50 };
    memset(flow, 0, sizeof *flow);
    flow->family = frames_below(rng, 3) == 0 ? 6 : 4;
    flow->proto = PICK(rng, protos);
    if (flow->family == 6 && flow->proto == 1)
        flow->proto = 58;
    flow->sport = PICK(rng, port_pool);
    flow->dport = PICK(rng, port_pool);
    uint8_t *ends[] = { flow->src, flow->dst };
    for (unsigned i = 0; i < 2; i++) {
        if (flow->family == 6) {
            memcpy(ends[i], net6, sizeof net6);
            ends[i][15] = (uint8_t)frames_below(rng, 4);
        } else {
            ends[i][0] = 10;
            ends[i][1] = (uint8_t)frames_below(rng, 2);
            ends[i][3] = (uint8_t)frames_below(rng, 4);
        }
    }
}

size_t expression_frame(struct frames_rng *rng, uint8_t out[ENCAP_ROOM])
{
    static uint8_t room[ENCAP_ROOM];
    struct frames_flow flow;
    random_ends(rng, &flow);
    enum frames_kind kind =
        frames_below(rng, 3) ? FRAMES_PLAIN : (enum frames_kind)frames_below(rng, 5);
    size_t len = frames_make(rng, &flow, kind, false, 1, out);
    for (unsigned n = frames_below(rng, 6) / 3; n > 0; n--) {
        struct encap_outer outer = { .id = 1, .fragment = frames_below(rng, 8) == 0 };
        random_ends(rng, &outer.ends);
        size_t more =
            encap_wrap(rng, (enum encap)frames_below(rng, ENCAP_COUNT), &outer, out, len, room);
        if (more == 0)
            continue;
        len = more;
        memcpy(out, room, len);
    }
    for (unsigned n = frames_below(rng, 3) ? 0 : 1 + frames_below(rng, 2); n > 0; n--) {
        memmove(out + 16, out + 12, len - 12);
        out[12] = frames_below(rng, 2) ? 0x81 : 0x88;
        out[13] = out[12] == 0x81 ? 0 : 0xa8;
        out[14] = 0;
        out[15] = (uint8_t)frames_below(rng, 4);
        len += 4;
    }
    return frames_below(rng, 4) == 0 ? frames_mutate(rng, out, len) : len;
}

/* ---- expressions ---- */

struct text {
    char *data;
    size_t len;
};

static void __attribute__((format(printf, 2, 3))) say(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text->data + text->len, EXPRESSION_ROOM - text->len, format, args);
    va_end(args);
    if (n > 0 && text->len + (size_t)n < EXPRESSION_ROOM)
        text->len += (size_t)n;
}

static void sum(struct frames_rng *rng, struct text *text, unsigned depth)
{
    static const char *const headers[] = { "ether", "ip", "ip", "tcp", "udp", "icmp", "ip6" };
    static const char *const sizes[] = { "", ":1", ":2", ":4" };
    static const char *const signs[] = { "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>" };
    switch (frames_below(rng, depth > 2 ? 3 : 6)) {
    case 0:
        say(text, "%u", frames_below(rng, frames_below(rng, 2) ? 40 : 4));
        break;
    case 1:
        say(text, "len");
        break;
    case 2:
        say(text, "%s[%u%s]", PICK(rng, headers), frames_below(rng, 24), PICK(rng, sizes));
        break;
    case 3:
        say(text, "%s[", PICK(rng, headers));
        sum(rng, text, depth + 1);
        say(text, "%s]", PICK(rng, sizes));
        break;
    default: { /* with blanks, or "len-1" were a name */
        const char *sign = PICK(rng, signs);
        say(text, "(");
        sum(rng, text, depth + 1);
        say(text, " %s ", sign);
        if (sign[0] == '<' ||
            sign[0] == '>') /* of constants libpcap shifts by more than there is */
            say(text, "%u", frames_below(rng, 32));
        else
            sum(rng, text, depth + 1);
        say(text, ")");
    }
    }
}

static void primitive(struct frames_rng *rng, struct text *text)
{
    static const char *const directions[] = { "", "src ", "dst ", "src or dst ", "src and dst " };
    static const char *const protos[] = { "", "tcp ", "udp ", "sctp " };
    static const char *const words[] = { "ip",         "ip6",          "tcp",
                                         "udp",        "sctp",         "icmp",
                                         "arp",        "icmp6",        "esp",
                                         "vlan",       "mpls",         "pppoes",
                                         "geneve",     "ip multicast", "ether broadcast",
                                         "ip proto 47" };
    static const char *const compared[] = { "=", "!=", "<", ">", "<=", ">=" };
    switch (frames_below(rng, 9)) {
    case 0:
        say(text, "%shost 10.%u.0.%u", PICK(rng, directions), frames_below(rng, 2),
            frames_below(rng, 4));
        break;
    case 1:
        say(text, "%snet 10.%u.0.0/16", PICK(rng, directions), frames_below(rng, 2));
        break;
    case 2:
        say(text, "%shost 2001:db8::%u", PICK(rng, directions), frames_below(rng, 4));
        break;
    case 3:
    case 4:
        say(text, "%s%sport %u", PICK(rng, protos), PICK(rng, directions), PICK(rng, port_pool));
        break;
    case 5:
        say(text, "%sportrange %u-%u", PICK(rng, protos), frames_below(rng, 500),
            500 + frames_below(rng, 9000));
        break;
    case 6:
        say(text, "vlan %u", frames_below(rng, 4));
        break;
    case 7:
        say(text, "%s", PICK(rng, words));
        break;
    default:
        sum(rng, text, 0);
        say(text, " %s ", PICK(rng, compared));
        sum(rng, text, 0);
    }
}

void expression_random(struct frames_rng *rng, char out[EXPRESSION_ROOM])
{
    struct text text = { .data = out };
    unsigned open = 0;
    out[0] = '\0';
    for (unsigned n = 1 + frames_below(rng, 6); n > 0; n--) {
        if (frames_below(rng, 4) == 0)
            say(&text, "not ");
        if (n > 1 && frames_below(rng, 4) == 0) {
            say(&text, "(");
            open++;
        }
        primitive(rng, &text);
        if (open > 0 && frames_below(rng, 2)) {
            say(&text, ")");
            open--;
        }
        if (n > 1)
            say(&text, frames_below(rng, 3) ? " or " : " and ");
    }
    for (; open > 0; open--)
        say(&text, ")");
}

void expression_fields(struct frames_rng *rng, char out[EXPRESSION_ROOM])
{
    static const char *const protos[] = { "\"tcp\"", "\"udp\"", "\"sctp\"", "1", "58", "\"esp\"" };
    struct text text = { .data = out };
    unsigned which = 1 + frames_below(rng, 63); /* at least one key */
    const char *comma = "";
    out[0] = '\0';
    say(&text, "{");
    for (unsigned key = 0; key < 6; key++) {
        if ((which >> key & 1) == 0 ||
            (which != 1u << key && frames_below(rng, 3) == 0 && key > 0 && *comma != '\0'))
            continue;
        static const char *const names[] = { "ports", "prefixes", "protocols",
                                             "vlans", "vnis",     "expression" };
        say(&text, "%s\"%s\":", comma, names[key]);
        comma = ",";
        if (key == 5) {
            say(&text, "\"%s\"", frames_below(rng, 2) ? "ip or ip6" : "not host 10.0.0.1");
            continue;
        }
        say(&text, "[");
        for (unsigned i = 0, n = 1 + frames_below(rng, 4); i < n; i++) {
            say(&text, "%s", i > 0 ? "," : "");
            if (key == 0 && frames_below(rng, 2))
                say(&text, "\"%u-%u\"", frames_below(rng, 500), 500 + frames_below(rng, 60000));
            else if (key == 0)
                say(&text, "%u", PICK(rng, port_pool));
            else if (key == 1 && frames_below(rng, 2))
                say(&text, "\"10.%u.0.0/16\"", frames_below(rng, 2));
            else if (key == 1)
                say(&text, frames_below(rng, 2) ? "\"2001:db8::%u\"" : "\"10.0.0.%u\"",
                    frames_below(rng, 4));
            else if (key == 2)
                say(&text, "%s", PICK(rng, protos));
            else if (key == 3 && frames_below(rng, 2))
                say(&text, "\"%u.%u\"", frames_below(rng, 4), frames_below(rng, 4));
            else
                say(&text, "%u", frames_below(rng, 4));
        }
        say(&text, "]");
    }
    say(&text, "}");
}

/* ---- instructions ---- */

size_t expression_ops(struct frames_rng *rng, struct pk_filter_op *ops, size_t room)
{
    static const uint16_t sizes[] = { BPF_W, BPF_H, BPF_B };
    static const uint16_t alus[] = { BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_MOD, BPF_AND,
                                     BPF_OR,  BPF_XOR, BPF_LSH, BPF_RSH, BPF_NEG };
    static const uint16_t jumps[] = { BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET };
    static const uint32_t numbers[] = { 0,  1,   2,   3,          31,         32,
                                        60, 511, 512, 0x7fffffff, 0x80000000, 0xffffffff };
    size_t count = 2 + frames_below(rng, (uint32_t)room - 2);
    size_t i = 0;
    /* Words are written before they are read. */
    for (uint32_t word = 0; word < BPF_MEMWORDS && i + 2 < count; word += 3)
        ops[i++] =
            (struct pk_filter_op){ .code = frames_below(rng, 2) ? BPF_ST : BPF_STX, .k = word };
    bool has_memory = count >= 8;
    for (; i < count; i++) {
        struct pk_filter_op op = { 0 };
        uint32_t left = (uint32_t)(count - i - 1);
        uint32_t number = frames_below(rng, 3) ? frames_below(rng, 80) : PICK(rng, numbers);
        uint32_t kind = left == 0 ? 0 : frames_below(rng, 40);
        op.k = number;
        if (kind < 2) {
            op.code = (uint16_t)(BPF_RET | (frames_below(rng, 2) ? BPF_A : BPF_K));
            if (left > 0 && frames_below(rng, 2))
                op.k = 0;
        } else if (kind < 10) {
            op.code = (uint16_t)(BPF_LD | BPF_ABS | PICK(rng, sizes));
            op.k = frames_below(rng, 8) ? frames_below(rng, 80) : frames_below(rng, 509);
        } else if (kind < 16) {
            op.code = (uint16_t)(BPF_LD | BPF_IND | PICK(rng, sizes));
        } else if (kind < 18) {
            op.code = BPF_LDX | BPF_MSH | BPF_B;
            op.k = frames_below(rng, 100);
        } else if (kind < 22) {
            static const uint16_t codes[] = { BPF_LD | BPF_IMM, BPF_LDX | BPF_IMM,
                                              BPF_LD | BPF_W | BPF_LEN, BPF_LDX | BPF_W | BPF_LEN };
            op.code = PICK(rng, codes);
        } else if (kind < 26 && has_memory) {
            static const uint16_t codes[] = { BPF_LD | BPF_MEM, BPF_LDX | BPF_MEM, BPF_ST,
                                              BPF_STX };
            op.code = PICK(rng, codes);
            op.k = 3 * frames_below(rng, 6);
        } else if (kind < 28) {
            op.code = (uint16_t)(BPF_MISC | (frames_below(rng, 2) ? BPF_TAX : BPF_TXA));
        } else if (kind < 34) {
            uint16_t alu = PICK(rng, alus);
            op.code = (uint16_t)(BPF_ALU | alu |
                                 (alu != BPF_NEG && frames_below(rng, 2) ? BPF_X : BPF_K));
        } else if (kind < 35) {
            op.code = BPF_JMP | BPF_JA;
            op.k = frames_below(rng, left);
        } else {
            op.code =
                (uint16_t)(BPF_JMP | PICK(rng, jumps) | (frames_below(rng, 3) ? BPF_K : BPF_X));
            op.jt = (uint8_t)frames_below(rng, left < 255 ? left : 255);
            op.jf = (uint8_t)frames_below(rng, left < 255 ? left : 255);
        }
        ops[i] = op;
    }
    return count;
}
