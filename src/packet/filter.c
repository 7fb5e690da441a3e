/* SPDX-License-Identifier: Apache-2.0 */
/* Filters made of what the user writes: libpcap's compiler for expressions, lists for fields. */
#include "packet/filter.h"

#include <linux/filter.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/prefix.h"
#include "base/str.h"
#include "packet/filter_internal.h"
#include "packet/parse.h"

static void fault_at(struct pk_filter_fault *fault, const char *key, size_t index, unsigned column)
{
    if (fault != NULL)
        *fault = (struct pk_filter_fault){ key, index, column };
}

/* ---- instructions ---- */

static bool reads_frame(const struct pk_filter_op *op)
{
    unsigned class = BPF_CLASS(op->code), mode = BPF_MODE(op->code);
    return (class == BPF_LD && (mode == BPF_ABS || mode == BPF_IND)) ||
           (class == BPF_LDX && mode == BPF_MSH);
}

/* Is the code one that filter_match.c and broker/filter.c know? */
static bool is_known(uint16_t code)
{
    switch (BPF_CLASS(code)) {
    case BPF_LD:
        switch (BPF_MODE(code)) {
        case BPF_ABS:
        case BPF_IND:
            return BPF_SIZE(code) != 0x18 && code == (BPF_LD | BPF_SIZE(code) | BPF_MODE(code));
        default:
            return code == (BPF_LD | BPF_W | BPF_LEN) || code == (BPF_LD | BPF_IMM) ||
                   code == (BPF_LD | BPF_MEM);
        }
    case BPF_LDX:
        return code == (BPF_LDX | BPF_MSH | BPF_B) || code == (BPF_LDX | BPF_W | BPF_LEN) ||
               code == (BPF_LDX | BPF_IMM) || code == (BPF_LDX | BPF_MEM);
    case BPF_ST:
        return code == BPF_ST;
    case BPF_STX:
        return code == BPF_STX;
    case BPF_ALU:
        return code < 0x100 &&
               (BPF_OP(code) == BPF_NEG ? code == (BPF_ALU | BPF_NEG) : BPF_OP(code) <= BPF_XOR);
    case BPF_JMP:
        return code < 0x100 &&
               (BPF_OP(code) == BPF_JA ? code == (BPF_JMP | BPF_JA) : BPF_OP(code) <= BPF_JSET);
    case BPF_RET:
        return code == (BPF_RET | BPF_K) || code == (BPF_RET | BPF_A);
    default:
        return code == (BPF_MISC | BPF_TAX) || code == (BPF_MISC | BPF_TXA);
    }
}

static int check_op(const struct pk_filter_op *op, size_t left, struct pk_error *err)
{
    unsigned class = BPF_CLASS(op->code);
    if (!is_known(op->code)) {
        pk_fail(err, PK_E_INVALID, "the filter has an instruction 0x%x that is not known",
                op->code);
        return pk_hint(err, "write the filter in another way, or as fields");
    }
    bool uses_memory = class == BPF_ST || class == BPF_STX ||
                       ((class == BPF_LD || class == BPF_LDX) && BPF_MODE(op->code) == BPF_MEM);
    if (uses_memory && op->k >= BPF_MEMWORDS) {
        (void)pk_fail(err, PK_E_INVALID, "the filter uses a memory word %u", op->k);
        return pk_hint(err, "write the filter in another way, or as fields");
    }
    if (class == BPF_JMP) {
        bool always = BPF_OP(op->code) == BPF_JA;
        if (always ? op->k >= left : op->jt >= left || op->jf >= left) {
            /* libpcap jumps backwards by an offset that wraps. */
            pk_fail(err, PK_E_INVALID, "the filter has a loop");
            return pk_hint(err, "'protochain' is not supported: 'protocols' as a field looks "
                                "behind IPv6's extension headers");
        }
    }
    if (!reads_frame(op))
        return 0;
    if ((int32_t)op->k < 0 && BPF_MODE(op->code) == BPF_ABS) {
        pk_fail(err, PK_E_INVALID, "the filter asks for what only a capturing host knows");
        return pk_hint(err, "'inbound', 'outbound' and 'ifindex' mean nothing here: a tap's "
                            "packets all come in");
    }
    if (BPF_MODE(op->code) != BPF_IND &&
        op->k + (uint64_t)pk_filter_load_size(op->code) > PK_PARSE_WINDOW) {
        pk_fail(err, PK_E_INVALID, "the filter reads byte %u of the frame", op->k);
        return pk_hint(err, "filters see the first %u bytes", PK_PARSE_WINDOW);
    }
    return 0;
}

unsigned pk_filter_load_size(uint16_t code)
{
    return BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
}

/* Behind alternatives of which one has 'vlan', 'geneve' or the like, libpcap may use offsets that
 * it has set in the other alternative only. Tells by the words that each way has written. */
static int check_memory(const struct pk_filter_op *ops, size_t count, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) uint16_t *written = pk_zalloc_array(count, sizeof *written);
    if (written == NULL)
        return pk_no_memory(err);
    memset(written + 1, 0xff, (count - 1) * sizeof *written); /* not reached yet: all of them */
    for (size_t i = 0; i < count; i++) {
        const struct pk_filter_op *op = &ops[i];
        unsigned class = BPF_CLASS(op->code);
        uint16_t now = written[i];
        if ((class == BPF_LD || class == BPF_LDX) && BPF_MODE(op->code) == BPF_MEM &&
            (now >> op->k & 1) == 0) {
            pk_fail(err, PK_E_INVALID, "libpcap loses track of where headers are in this filter");
            return pk_hint(err, "what stands behind 'vlan', 'mpls', 'pppoes' or 'geneve' is looked "
                                "for behind them, also in other alternatives: put these last");
        }
        if (class == BPF_ST || class == BPF_STX)
            now |= (uint16_t)(1u << op->k);
        if (class == BPF_JMP && BPF_OP(op->code) == BPF_JA) {
            written[i + 1 + op->k] &= now;
        } else if (class == BPF_JMP) {
            written[i + 1 + op->jt] &= now;
            written[i + 1 + op->jf] &= now;
        } else if (class != BPF_RET && i + 1 < count) {
            written[i + 1] &= now;
        }
    }
    return 0;
}

static int take_ops(struct pk_filter *filter, const struct pk_filter_op *ops, size_t count,
                    struct pk_error *err)
{
    for (size_t i = 0; i < count; i++) {
        int r = check_op(&ops[i], count - i - 1, err);
        if (r < 0)
            return r;
    }
    if (count == 0 || BPF_CLASS(ops[count - 1].code) != BPF_RET) {
        (void)pk_fail(err, PK_E_INVALID, "the filter has no end");
        return pk_hint(err, "write the filter in another way, or as fields");
    }
    int r = check_memory(ops, count, err);
    if (r < 0)
        return r;
    filter->ops = pk_memdup(ops, count * sizeof *ops);
    if (filter->ops == NULL)
        return pk_no_memory(err);
    filter->op_count = count;
    return 0;
}

static int take_expression(struct pk_filter *filter, const json_t *value, unsigned *ret_column,
                           struct pk_error *err)
{
    const char *text = json_string_value(value);
    if (strlen(text) != json_string_length(value)) {
        (void)pk_fail(err, PK_E_INVALID, "the filter has a byte of value 0 in it");
        return pk_hint(err, "remove what does not belong to the expression");
    }
    PK_CLEANUP(pk_free_p) struct pk_filter_op *ops = NULL;
    size_t count = 0;
    int r = pk_filter_expression(text, &ops, &count, ret_column, err);
    return r < 0 ? r : take_ops(filter, ops, count, err);
}

/* ---- entries of lists ---- */

static int parse_number(const char *text, uint64_t max, const char *what, uint32_t *ret_number,
                        struct pk_error *err)
{
    uint64_t number;
    if (pk_parse_u64(text, &number, NULL) < 0 || number > max) {
        pk_fail(err, PK_E_INVALID, "\"%s\" is no %s", text, what);
        return pk_hint(err, "write a number up to %llu", (unsigned long long)max);
    }
    *ret_number = (uint32_t)number;
    return 0;
}

int pk_filter_vlan_parse(const char *text, struct pk_filter_vlan *ret_vlan, struct pk_error *err)
{
    char part[8] = "";
    const char *dot = strchr(text, '.');
    uint32_t outer, inner = PK_FILTER_NO_VLAN;
    size_t len = dot != NULL ? (size_t)(dot - text) : strlen(text);
    memcpy(part, text, PK_MIN(len, sizeof part - 1));
    if (len >= sizeof part || pk_parse_u64(part, &(uint64_t){ 0 }, NULL) < 0 ||
        parse_number(part, 4094, "VLAN id", &outer, NULL) < 0 ||
        (dot != NULL && parse_number(dot + 1, 4094, "VLAN id", &inner, NULL) < 0)) {
        pk_fail(err, PK_E_INVALID, "\"%.64s\" is no VLAN", text);
        return pk_hint(err, "write an id, 110, or two for a tag in a tag, \"100.200\"; ids are 0 "
                            "to 4094");
    }
    *ret_vlan = (struct pk_filter_vlan){ (uint16_t)outer, (uint16_t)inner };
    return 0;
}

static int take_vlan(struct pk_filter *filter, const char *text, struct pk_error *err)
{
    int r = pk_filter_vlan_parse(text, &filter->vlans[filter->vlan_count], err);
    if (r >= 0)
        filter->vlan_count++;
    return r;
}

static int take_prefix(struct pk_filter *filter, const char *text, struct pk_error *err)
{
    struct pk_prefix parsed;
    int r = pk_prefix_parse(text, &parsed, err);
    if (r < 0)
        return r;
    uint8_t mask[16] = { 0 };
    for (unsigned i = 0; i < parsed.bits; i++)
        mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
    struct pk_filter_prefix *prefix = &filter->prefixes[filter->prefix_count++];
    *prefix = (struct pk_filter_prefix){ .family = parsed.v6 ? 6 : 4, .bits = parsed.bits };
    if (parsed.v6) {
        memcpy(prefix->net, parsed.addr, sizeof prefix->net);
        memcpy(prefix->mask, mask, sizeof prefix->mask);
    } else { /* in the lower half of the first number */
        prefix->net[0] = PK_LOAD(uint32_t, parsed.addr);
        prefix->mask[0] = PK_LOAD(uint32_t, mask);
    }
    return 0;
}

static int take_ports(struct pk_filter *filter, const char *text, struct pk_error *err)
{
    char from_text[8] = "";
    const char *dash = strchr(text, '-');
    size_t len = dash != NULL ? (size_t)(dash - text) : strlen(text);
    uint64_t from, to;
    memcpy(from_text, text, PK_MIN(len, sizeof from_text - 1));
    bool ok = len < sizeof from_text && pk_parse_u64(from_text, &from, NULL) >= 0;
    if (ok) {
        to = from;
        ok = (dash == NULL || pk_parse_u64(dash + 1, &to, NULL) >= 0) && from <= to && to <= 65535;
    }
    if (!ok) {
        pk_fail(err, PK_E_INVALID, "\"%.64s\" is neither a port nor a range of ports", text);
        return pk_hint(err, "write 53, or \"8000-8100\"; ports are 0 to 65535");
    }
    filter->ports[filter->port_count++] = (struct pk_filter_ports){ (uint16_t)from, (uint16_t)to };
    return 0;
}

static const struct {
    const char *name;
    uint8_t number;
} protocol_names[] = {
    /* Names as in IANA's list; "ipip" and "ipv6" are what is in IP as IP. */
    { "icmp", 1 },  { "igmp", 2 },  { "ipip", 4 },   { "tcp", 6 },    { "udp", 17 },
    { "ipv6", 41 }, { "gre", 47 },  { "esp", 50 },   { "ah", 51 },    { "icmp6", 58 },
    { "ospf", 89 }, { "pim", 103 }, { "vrrp", 112 }, { "l2tp", 115 }, { "sctp", 132 },
};

static int take_protocol(struct pk_filter *filter, const char *text, struct pk_error *err)
{
    uint64_t number = 256;
    for (size_t i = 0; i < PK_ARRAY_SIZE(protocol_names); i++)
        if (strcmp(protocol_names[i].name, text) == 0)
            number = protocol_names[i].number;
    if (number == 256 && (pk_parse_u64(text, &number, NULL) < 0 || number > 255)) {
        const char *names[PK_ARRAY_SIZE(protocol_names)];
        for (size_t i = 0; i < PK_ARRAY_SIZE(protocol_names); i++)
            names[i] = protocol_names[i].name;
        const char *close = pk_str_closest(text, names, PK_ARRAY_SIZE(names));
        pk_fail(err, PK_E_INVALID, "\"%.64s\" is no IP protocol", text);
        return close != NULL ? pk_hint(err, "did you mean \"%s\"?", close)
                             : pk_hint(err, "write tcp, udp, sctp, icmp, icmp6, gre, esp ..., or a "
                                            "number up to 255");
    }
    filter->protocols[filter->protocol_count++] = (uint8_t)number;
    return 0;
}

static int take_vni(struct pk_filter *filter, const char *text, struct pk_error *err)
{
    int r = parse_number(text, 0xffffff, "VNI", &filter->vnis[filter->vni_count], err);
    if (r >= 0)
        filter->vni_count++;
    return r;
}

static const struct {
    const char *key;
    size_t at; /* of the list's pointer in struct pk_filter */
    size_t size;
    int (*take)(struct pk_filter *filter, const char *text, struct pk_error *err);
} lists[] = {
#define LIST(name, function)                                                                     \
    {                                                                                            \
#        name, offsetof(struct pk_filter, name), sizeof *((struct pk_filter *)0)->name, function \
    }
    LIST(vlans, take_vlan),         LIST(prefixes, take_prefix), LIST(ports, take_ports),
    LIST(protocols, take_protocol), LIST(vnis, take_vni),
#undef LIST
};

static int take_list(struct pk_filter *filter, size_t which, const json_t *value,
                     struct pk_filter_fault *fault, struct pk_error *err)
{
    const char *key = lists[which].key;
    size_t count = json_array_size(value);
    fault_at(fault, key, 0, 0);
    if (count == 0 || count > PK_FILTER_LIST_MAX) {
        pk_fail(err, PK_E_INVALID, "\"%s\" of a filter is a list of 1 to %u entries", key,
                PK_FILTER_LIST_MAX);
        return pk_hint(err, "leave \"%s\" out to let everything pass it", key);
    }
    void *list = pk_zalloc_array(count, lists[which].size);
    if (list == NULL)
        return pk_no_memory(err);
    memcpy((char *)filter + lists[which].at, &list, sizeof list);
    size_t i;
    json_t *entry;
    json_array_foreach(value, i, entry)
    {
        char number[32];
        const char *text = json_string_value(entry);
        fault_at(fault, key, i, 0);
        if (json_is_integer(entry)) {
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(entry));
            text = number;
        }
        if (text == NULL) {
            pk_fail(err, PK_E_INVALID,
                    "\"%s\" of a filter has an entry that is neither text nor a "
                    "whole number",
                    key);
            return pk_hint(err, "write the entries as text in quotation marks");
        }
        int r = lists[which].take(filter, text, err);
        if (r < 0)
            return pk_wrap(err, "filter's %s", key);
    }
    return 0;
}

static int take_object(struct pk_filter *filter, const json_t *value, struct pk_filter_fault *fault,
                       struct pk_error *err)
{
    static const char *const known[] = { "expression", "vlans",     "prefixes",
                                         "ports",      "protocols", "vnis" };
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        size_t which = 0;
        while (which < PK_ARRAY_SIZE(lists) && strcmp(lists[which].key, key) != 0)
            which++;
        int r;
        if (which < PK_ARRAY_SIZE(lists)) {
            r = take_list(filter, which, member, fault, err);
        } else if (strcmp(key, "expression") == 0) {
            unsigned column = 0;
            fault_at(fault, "expression", 0, 0);
            if (!json_is_string(member)) {
                pk_fail(err, PK_E_INVALID, "\"expression\" of a filter is text");
                return pk_hint(err, "write it in quotation marks");
            }
            r = take_expression(filter, member, &column, err);
            if (r < 0)
                fault_at(fault, "expression", 0, column);
        } else {
            fault_at(fault, NULL, 0, 0);
            pk_fail(err, PK_E_INVALID, "a filter has no \"%.64s\"", key);
            const char *close = pk_str_closest(key, known, PK_ARRAY_SIZE(known));
            return close != NULL ? pk_hint(err, "did you mean \"%s\"?", close)
                                 : pk_hint(err, "it may have expression, vlans, prefixes, ports, "
                                                "protocols, vnis");
        }
        if (r < 0)
            return r;
    }
    if (filter->op_count == 0 && !pk_filter_needs_flow(filter)) {
        fault_at(fault, NULL, 0, 0);
        pk_fail(err, PK_E_INVALID, "the filter is empty");
        return pk_hint(err, "leave it out to let everything pass");
    }
    filter->text = pk_json_canonical(value);
    return filter->text != NULL ? 0 : pk_no_memory(err);
}

int pk_filter_compile(const json_t *value, struct pk_filter **ret_filter,
                      struct pk_filter_fault *ret_fault, struct pk_error *err)
{
    struct pk_filter_fault fault = { 0 };
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = pk_zalloc(sizeof *filter);
    if (filter == NULL)
        return pk_no_memory(err);
    int r;
    if (json_is_string(value)) {
        fault.key = "expression";
        r = take_expression(filter, value, &fault.column, err);
        if (r >= 0) {
            filter->text = pk_strdup(json_string_value(value));
            if (filter->text == NULL)
                r = pk_no_memory(err);
        }
    } else if (json_is_object(value)) {
        r = take_object(filter, value, &fault, err);
    } else {
        pk_fail(err, PK_E_INVALID, "a filter is text or a map");
        r = pk_hint(err, "for example \"not port 9200\", or {ports: [53]}");
    }
    if (r < 0) {
        if (ret_fault != NULL)
            *ret_fault = fault;
        return r;
    }
    *ret_filter = filter;
    filter = NULL;
    return 0;
}

int pk_filter_compile_text(const char *expression, struct pk_filter **ret_filter,
                           struct pk_error *err)
{
    PK_JSON value = json_string(expression);
    if (value == NULL) {
        pk_fail(err, PK_E_INVALID, "the filter is no UTF-8 text");
        return pk_hint(err, "an expression has ASCII characters only");
    }
    return pk_filter_compile(value, ret_filter, NULL, err);
}

int pk_filter_compile_ops(const struct pk_filter_op *ops, size_t count, const char *text,
                          struct pk_filter **ret_filter, struct pk_error *err)
{
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = pk_zalloc(sizeof *filter);
    if (filter == NULL || (filter->text = pk_strdup(text)) == NULL)
        return pk_no_memory(err);
    int r = take_ops(filter, ops, count, err);
    if (r < 0)
        return r;
    *ret_filter = filter;
    filter = NULL;
    return 0;
}

struct pk_filter *pk_filter_ref(struct pk_filter *filter)
{
    (void)__atomic_add_fetch(&filter->others, 1, __ATOMIC_RELAXED);
    return filter;
}

void pk_filter_free(struct pk_filter *filter)
{
    if (filter == NULL || __atomic_fetch_sub(&filter->others, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pk_free(filter->text);
    pk_free(filter->ops);
    pk_free(filter->vlans);
    pk_free(filter->prefixes);
    pk_free(filter->ports);
    pk_free(filter->protocols);
    pk_free(filter->vnis);
    pk_free(filter);
}

const char *pk_filter_text(const struct pk_filter *filter)
{
    return filter->text;
}
