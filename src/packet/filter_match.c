/* SPDX-License-Identifier: Apache-2.0 */
/* Filters in user space: classic BPF interpreted, and fields compared. */
#include "packet/filter.h"

#include <linux/filter.h>
#include <string.h>

#include "packet/filter_internal.h"
#include "packet/parse.h"

enum verdict { DROP, PASS };

/* What a load finds: the value, or what the filter comes to without it. */
static bool load(const uint8_t *frame, size_t len, uint64_t at, unsigned size, uint32_t *ret_value,
                 enum verdict *ret_verdict)
{
    if (at + size > len || at + size > PK_PARSE_WINDOW) {
        *ret_verdict = at + size > len ? DROP : PASS;
        return false;
    }
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | frame[at + i];
    *ret_value = value;
    return true;
}

/* pk_filter_compile_ops() has checked the instructions: jumps go forwards to one that is there. */
static enum verdict interpret(const struct pk_filter_op *op, const uint8_t *frame, size_t len)
{
    uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = { 0 };
    enum verdict verdict = DROP;
    for (;; op++) {
        uint32_t k = op->k, other = BPF_SRC(op->code) == BPF_X ? x : k;
        bool is_true = false;
        switch (BPF_CLASS(op->code)) {
        case BPF_LD:
            switch (BPF_MODE(op->code)) {
            case BPF_ABS:
                if (!load(frame, len, k, pk_filter_load_size(op->code), &a, &verdict))
                    return verdict;
                break;
            case BPF_IND:
                if (!load(frame, len, (uint64_t)x + k, pk_filter_load_size(op->code), &a, &verdict))
                    return verdict;
                break;
            case BPF_LEN:
                a = (uint32_t)len;
                break;
            case BPF_IMM:
                a = k;
                break;
            default: /* BPF_MEM */
                a = memory[k];
            }
            break;
        case BPF_LDX:
            switch (BPF_MODE(op->code)) {
            case BPF_MSH:
                if (!load(frame, len, k, 1, &x, &verdict))
                    return verdict;
                x = (x & 15) << 2;
                break;
            case BPF_LEN:
                x = (uint32_t)len;
                break;
            case BPF_IMM:
                x = k;
                break;
            default:
                x = memory[k];
            }
            break;
        case BPF_ST:
            memory[k] = a;
            break;
        case BPF_STX:
            memory[k] = x;
            break;
        case BPF_ALU:
            switch (BPF_OP(op->code)) {
            case BPF_ADD:
                a += other;
                break;
            case BPF_SUB:
                a -= other;
                break;
            case BPF_MUL:
                a *= other;
                break;
            case BPF_DIV:
                if (other == 0)
                    return DROP;
                a /= other;
                break;
            case BPF_MOD:
                if (other == 0)
                    return DROP;
                a %= other;
                break;
            case BPF_AND:
                a &= other;
                break;
            case BPF_OR:
                a |= other;
                break;
            case BPF_XOR:
                a ^= other;
                break;
            case BPF_LSH:
                a = other < 32 ? a << other : 0;
                break;
            case BPF_RSH:
                a = other < 32 ? a >> other : 0;
                break;
            default: /* BPF_NEG */
                a = 0u - a;
            }
            break;
        case BPF_JMP:
            switch (BPF_OP(op->code)) {
            case BPF_JA:
                op += k;
                continue;
            case BPF_JEQ:
                is_true = a == other;
                break;
            case BPF_JGT:
                is_true = a > other;
                break;
            case BPF_JGE:
                is_true = a >= other;
                break;
            default: /* BPF_JSET */
                is_true = (a & other) != 0;
            }
            op += is_true ? op->jt : op->jf;
            break;
        case BPF_RET:
            return (BPF_RVAL(op->code) == BPF_A ? a : k) != 0 ? PASS : DROP;
        default: /* BPF_MISC */
            if (BPF_MISCOP(op->code) == BPF_TAX)
                x = a;
            else
                a = x;
        }
    }
}

/* ---- fields ---- */

static bool in_prefix(const struct pk_filter_prefix *prefix, const uint64_t address[2])
{
    return (address[0] & prefix->mask[0]) == prefix->net[0] &&
           (address[1] & prefix->mask[1]) == prefix->net[1];
}

static bool match_prefixes(const struct pk_filter *filter, const struct pk_flow *flow)
{
    for (size_t i = 0; i < filter->prefix_count; i++) {
        const struct pk_filter_prefix *prefix = &filter->prefixes[i];
        uint64_t src[] = { flow->src[0], flow->src[1] }, dst[] = { flow->dst[0], flow->dst[1] };
        if (prefix->family == flow->family && (in_prefix(prefix, src) || in_prefix(prefix, dst)))
            return true;
    }
    return false;
}

static bool match_ports(const struct pk_filter *filter, const struct pk_flow *flow)
{
    unsigned last = flow->fragments;
    if (last > 0 && flow->fragment[(last - 1) % PK_PARSE_FRAGMENTS].place == PK_FRAGMENT_LATER)
        return true;
    if (flow->proto != 6 && flow->proto != 17 && flow->proto != 132)
        return false;
    uint16_t src = PK_BE16(flow->src_port), dst = PK_BE16(flow->dst_port);
    for (size_t i = 0; i < filter->port_count; i++) {
        const struct pk_filter_ports *range = &filter->ports[i];
        if ((src >= range->from && src <= range->to) || (dst >= range->from && dst <= range->to))
            return true;
    }
    return false;
}

static bool match_protocols(const struct pk_filter *filter, const struct pk_flow *flow)
{
    for (size_t i = 0; i < filter->protocol_count; i++)
        if (flow->family != 0 && flow->protocol == filter->protocols[i])
            return true;
    return false;
}

static bool match_vlans(const struct pk_filter *filter, const struct pk_flow *flow)
{
    for (size_t i = 0; i < filter->vlan_count; i++) {
        const struct pk_filter_vlan *vlan = &filter->vlans[i];
        if (flow->vlans >= 1 && flow->vlan[0] == vlan->outer &&
            (vlan->inner == PK_FILTER_NO_VLAN ||
             (flow->vlans >= 2 && flow->vlan[1] == vlan->inner)))
            return true;
    }
    return false;
}

static bool match_vnis(const struct pk_filter *filter, const struct pk_flow *flow)
{
    for (size_t i = 0; i < filter->vni_count; i++)
        if ((flow->tags & PK_TAG_VNI) != 0 && flow->vni == filter->vnis[i])
            return true;
    return false;
}

bool pk_filter_match(const struct pk_filter *filter, const void *frame, size_t len,
                     const struct pk_flow *flow)
{
    if (filter->op_count > 0 && interpret(filter->ops, frame, len) == DROP)
        return false;
    return (filter->vlan_count == 0 || match_vlans(filter, flow)) &&
           (filter->prefix_count == 0 || match_prefixes(filter, flow)) &&
           (filter->port_count == 0 || match_ports(filter, flow)) &&
           (filter->protocol_count == 0 || match_protocols(filter, flow)) &&
           (filter->vni_count == 0 || match_vnis(filter, flow));
}

bool pk_filter_needs_flow(const struct pk_filter *filter)
{
    return filter->vlan_count + filter->prefix_count + filter->port_count + filter->protocol_count +
               filter->vni_count >
           0;
}
