/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From filters to the instructions of pk_filter_mask().
 *
 * Registers: r1 parser (the window is its start), r2 size of the frame, r4 the targets that want
 * the packet; of classic BPF, r0 is A and r5 is X, and the stack has its memory. r3 is free. All
 * values but r1 and r4 are kept below 2^32. No instruction takes two places (64-bit constants do):
 * libbpf's line numbers stay as they were and must not point into the middle of one.
 *
 * What the verifier cannot bear: instructions that no jump reaches. So what follows from a load
 * that always fails is left out, and the room that is left is reached by a branch that is never
 * taken.
 */
#include "broker/filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/alloc.h"
#include "broker/bpf/filter.h"
#include "packet/parse.h"

enum {
    A = BPF_REG_0,
    PARSER = BPF_REG_1,
    SIZE = BPF_REG_2,
    T = BPF_REG_3,
    TARGETS = BPF_REG_4,
    X = BPF_REG_5
};

#define NO_LABEL UINT32_MAX

struct emitter {
    struct bpf_insn *insns;
    uint32_t *target; /* per instruction: the label that it jumps to */
    size_t count;
    size_t room;
    uint32_t *labels; /* where they are */
    uint32_t label_count;
    uint32_t label_room;
    bool failed; /* no memory */
};

static uint32_t new_labels(struct emitter *emitter, uint32_t count)
{
    uint32_t first = emitter->label_count;
    if (first + count > emitter->label_room) {
        uint32_t room = (first + count) * 2;
        uint32_t *labels = pk_realloc_array(emitter->labels, room, sizeof *labels);
        if (labels == NULL) {
            emitter->failed = true;
            return 0;
        }
        emitter->labels = labels;
        emitter->label_room = room;
    }
    emitter->label_count += count;
    return first;
}

static uint32_t new_label(struct emitter *emitter)
{
    return new_labels(emitter, 1);
}

static void put_label(struct emitter *emitter, uint32_t label)
{
    if (!emitter->failed)
        emitter->labels[label] = (uint32_t)emitter->count;
}

/* Beyond the room it only counts. */
static void put(struct emitter *emitter, struct bpf_insn insn, uint32_t label)
{
    if (emitter->count < emitter->room) {
        emitter->insns[emitter->count] = insn;
        emitter->target[emitter->count] = label;
    }
    emitter->count++;
}

static void put_op(struct emitter *emitter, unsigned code, unsigned to, unsigned from, uint32_t k)
{
    put(emitter,
        (struct bpf_insn){ .code = (uint8_t)code,
                           .dst_reg = (uint8_t)(to & 15),
                           .src_reg = (uint8_t)(from & 15),
                           .imm = (int32_t)k },
        NO_LABEL);
}

static void put_load(struct emitter *emitter, unsigned size, unsigned to, unsigned from, size_t at)
{
    put(emitter,
        (struct bpf_insn){ .code = (uint8_t)(BPF_LDX | BPF_MEM | size),
                           .dst_reg = (uint8_t)(to & 15),
                           .src_reg = (uint8_t)(from & 15),
                           .off = (int16_t)at },
        NO_LABEL);
}

static void put_goto(struct emitter *emitter, uint32_t label)
{
    put(emitter, (struct bpf_insn){ .code = BPF_JMP | BPF_JA }, label);
}

/* if (w_reg op k) goto label */
static void put_if(struct emitter *emitter, unsigned op, unsigned reg, uint32_t k, uint32_t label)
{
    put(emitter,
        (struct bpf_insn){ .code = (uint8_t)(BPF_JMP32 | op | BPF_K),
                           .dst_reg = (uint8_t)(reg & 15),
                           .imm = (int32_t)k },
        label);
}

static void put_move(struct emitter *emitter, unsigned reg, uint32_t k)
{
    put_op(emitter, BPF_ALU | BPF_MOV | BPF_K, reg, 0, k);
}

static void put_exit(struct emitter *emitter)
{
    put_op(emitter, BPF_JMP | BPF_EXIT, 0, 0, 0);
}

/* ---- classic BPF ---- */

static void put_swap(struct emitter *emitter, unsigned reg, unsigned size)
{
    if (size > 1)
        put_op(emitter, BPF_ALU | BPF_END | BPF_TO_BE, reg, 0, size * 8);
}

static unsigned size_of(uint16_t code)
{
    return BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
}

/* The frame has end bytes; known: that many it has for certain. */
static void put_length_check(struct emitter *emitter, uint32_t end, uint32_t known, uint32_t fail)
{
    if (end > known)
        put_if(emitter, BPF_JLT, SIZE, end, fail);
}

/* Loads at X + k. */
static void put_indirect(struct emitter *emitter, const struct pk_filter_op *op, uint32_t pass,
                         uint32_t fail)
{
    unsigned size = size_of(op->code);
    put_op(emitter, BPF_ALU64 | BPF_MOV | BPF_X, T, X, 0);
    if (op->k != 0)
        put_op(emitter, BPF_ALU64 | BPF_ADD | BPF_K, T, 0, op->k);
    put_op(emitter, BPF_ALU64 | BPF_MOV | BPF_X, A, T, 0);
    put_op(emitter, BPF_ALU64 | BPF_ADD | BPF_K, A, 0, size);
    put(emitter,
        (struct bpf_insn){ .code = BPF_JMP | BPF_JGT | BPF_X, .dst_reg = A, .src_reg = SIZE },
        fail);
    put(emitter,
        (struct bpf_insn){ .code = BPF_JMP | BPF_JGT | BPF_K,
                           .dst_reg = T,
                           .imm = (int32_t)(PK_PARSE_WINDOW - size) },
        pass);
    put_op(emitter, BPF_ALU64 | BPF_ADD | BPF_X, T, PARSER, 0);
    put_load(emitter, BPF_SIZE(op->code), A, T, 0);
    put_swap(emitter, A, size);
}

static void put_memory(struct emitter *emitter, const struct pk_filter_op *op)
{
    int16_t at = (int16_t)((int)op->k * 4 - BPF_MEMWORDS * 4);
    struct bpf_insn insn = { .off = at };
    switch (BPF_CLASS(op->code)) {
    case BPF_LD:
    case BPF_LDX:
        insn.code = BPF_LDX | BPF_MEM | BPF_W;
        insn.dst_reg = BPF_CLASS(op->code) == BPF_LD ? A : X;
        insn.src_reg = BPF_REG_10;
        break;
    default:
        insn.code = BPF_STX | BPF_MEM | BPF_W;
        insn.dst_reg = BPF_REG_10;
        insn.src_reg = BPF_CLASS(op->code) == BPF_ST ? A : X;
    }
    put(emitter, insn, NO_LABEL);
}

/* Returns false if it always fails. */
static bool put_alu(struct emitter *emitter, const struct pk_filter_op *op, uint32_t fail)
{
    unsigned kind = BPF_OP(op->code), source = BPF_SRC(op->code);
    bool divides = kind == BPF_DIV || kind == BPF_MOD, shifts = kind == BPF_LSH || kind == BPF_RSH;
    if (kind == BPF_NEG) {
        put_op(emitter, BPF_ALU | BPF_NEG, A, 0, 0);
    } else if (source == BPF_K) {
        if (divides && op->k == 0) {
            put_goto(emitter, fail);
            return false;
        }
        if (shifts && op->k >= 32)
            put_move(emitter, A, 0);
        else
            put_op(emitter, BPF_ALU | kind | BPF_K, A, 0, op->k);
    } else {
        if (divides)
            put_if(emitter, BPF_JEQ, X, 0, fail);
        uint32_t small = 0, done = 0;
        if (shifts) {
            small = new_label(emitter);
            done = new_label(emitter);
            put_if(emitter, BPF_JLT, X, 32, small);
            put_move(emitter, A, 0);
            put_goto(emitter, done);
            put_label(emitter, small);
        }
        put_op(emitter, BPF_ALU | kind | BPF_X, A, X, 0);
        if (shifts)
            put_label(emitter, done);
    }
    return true;
}

/* ops: the label of the first instruction, whose followers' labels follow it. */
static void put_jump(struct emitter *emitter, const struct pk_filter_op *op, uint32_t next)
{
    static const struct {
        uint8_t op;
        uint8_t opposite; /* 0 = there is none */
    } kinds[] = {
        { BPF_JEQ, BPF_JNE }, { BPF_JGT, BPF_JLE }, { BPF_JGE, BPF_JLT }, { BPF_JSET, 0 }
    };
    unsigned kind = BPF_OP(op->code);
    if (kind == BPF_JA || op->jt == op->jf) {
        uint32_t by = kind == BPF_JA ? op->k : op->jt;
        if (by > 0)
            put_goto(emitter, next + by);
        return;
    }
    unsigned opposite = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(kinds); i++)
        if (kinds[i].op == kind)
            opposite = kinds[i].opposite;
    bool turned = op->jt == 0 && opposite != 0;
    struct bpf_insn insn = {
        .code = (uint8_t)(BPF_JMP32 | BPF_SRC(op->code) | (turned ? opposite : kind)), .dst_reg = A
    };
    if (BPF_SRC(op->code) == BPF_X)
        insn.src_reg = X;
    else
        insn.imm = (int32_t)op->k;
    put(emitter, insn, next + (turned ? op->jf : op->jt));
    if (!turned && op->jf > 0)
        put_goto(emitter, next + op->jf);
}

/* One instruction. Returns false if what follows it is not reached through it. *known: how many
 * bytes the frame has for certain, before and after it. */
static bool put_one(struct emitter *emitter, const struct pk_filter_op *op, uint32_t next,
                    uint32_t pass, uint32_t fail, uint32_t *known)
{
    unsigned mode = BPF_MODE(op->code), size = size_of(op->code);
    switch (BPF_CLASS(op->code)) {
    case BPF_LD:
    case BPF_LDX: {
        unsigned reg = BPF_CLASS(op->code) == BPF_LD ? A : X;
        switch (mode) {
        case BPF_ABS:
            put_length_check(emitter, op->k + size, *known, fail);
            *known = PK_MAX(*known, op->k + size);
            put_load(emitter, BPF_SIZE(op->code), A, PARSER, op->k);
            put_swap(emitter, A, size);
            break;
        case BPF_IND:
            if (op->k > INT32_MAX) { /* beyond any frame */
                put_goto(emitter, fail);
                return false;
            }
            put_indirect(emitter, op, pass, fail);
            break;
        case BPF_MSH:
            put_length_check(emitter, op->k + 1, *known, fail);
            *known = PK_MAX(*known, op->k + 1);
            put_load(emitter, BPF_B, X, PARSER, op->k);
            put_op(emitter, BPF_ALU | BPF_AND | BPF_K, X, 0, 15);
            put_op(emitter, BPF_ALU | BPF_LSH | BPF_K, X, 0, 2);
            break;
        case BPF_LEN:
            put_op(emitter, BPF_ALU | BPF_MOV | BPF_X, reg, SIZE, 0);
            break;
        case BPF_IMM:
            put_move(emitter, reg, op->k);
            break;
        default:
            put_memory(emitter, op);
        }
        return true;
    }
    case BPF_ST:
    case BPF_STX:
        put_memory(emitter, op);
        return true;
    case BPF_ALU:
        return put_alu(emitter, op, fail);
    case BPF_JMP:
        put_jump(emitter, op, next);
        return false;
    case BPF_RET:
        if (BPF_RVAL(op->code) == BPF_A)
            put_if(emitter, BPF_JNE, A, 0, pass);
        put_goto(emitter, BPF_RVAL(op->code) == BPF_A || op->k == 0 ? fail : pass);
        return false;
    default:
        if (BPF_MISCOP(op->code) == BPF_TAX)
            put_op(emitter, BPF_ALU | BPF_MOV | BPF_X, X, A, 0);
        else
            put_op(emitter, BPF_ALU | BPF_MOV | BPF_X, A, X, 0);
        return true;
    }
}

#define UNREACHED UINT32_MAX

static void reach(uint32_t *known, size_t at, uint32_t bytes)
{
    known[at] = PK_MIN(known[at], bytes);
}

static void put_expression(struct emitter *emitter, const struct pk_filter *filter, uint32_t pass,
                           uint32_t fail)
{
    PK_CLEANUP(pk_free_p) uint32_t *known = pk_zalloc_array(filter->op_count, sizeof *known);
    uint32_t labels = new_labels(emitter, (uint32_t)filter->op_count);
    if (known == NULL || emitter->failed) {
        emitter->failed = true;
        return;
    }
    memset(known + 1, 0xff, (filter->op_count - 1) * sizeof *known);
    put_move(emitter, A, 0);
    put_move(emitter, X, 0);
    put_if(emitter, BPF_JNE, A, 0, fail); /* never, but so what does not pass is reached */
    for (size_t i = 0; i < filter->op_count; i++) {
        const struct pk_filter_op *op = &filter->ops[i];
        put_label(emitter, labels + (uint32_t)i);
        if (known[i] == UNREACHED)
            continue;
        uint32_t bytes = known[i];
        bool goes_on = put_one(emitter, op, labels + (uint32_t)i + 1, pass, fail, &bytes);
        if (BPF_CLASS(op->code) == BPF_JMP && BPF_OP(op->code) == BPF_JA) {
            reach(known, i + 1 + op->k, bytes);
        } else if (BPF_CLASS(op->code) == BPF_JMP) {
            reach(known, i + 1 + op->jt, bytes);
            reach(known, i + 1 + op->jf, bytes);
        } else if (goes_on) {
            reach(known, i + 1, bytes);
        }
    }
}

/* ---- fields ---- */

#define FLOW(field) (offsetof(struct pk_parser, flow) + offsetof(struct pk_flow, field))

/* Goes to found if the address at the offset has the prefix, else on. */
static void put_prefix(struct emitter *emitter, const struct pk_filter_prefix *prefix,
                       size_t address, uint32_t found)
{
    uint32_t net[4], mask[4], other = new_label(emitter);
    memcpy(net, prefix->net, sizeof net);
    memcpy(mask, prefix->mask, sizeof mask);
    for (unsigned i = 0; i < 4; i++) {
        if (mask[i] == 0)
            continue;
        put_load(emitter, BPF_W, T, PARSER, address + i * 4);
        if (mask[i] != UINT32_MAX)
            put_op(emitter, BPF_ALU | BPF_AND | BPF_K, T, 0, mask[i]);
        put_if(emitter, BPF_JNE, T, net[i], other);
    }
    put_goto(emitter, found);
    put_label(emitter, other);
}

static void put_prefixes(struct emitter *emitter, const struct pk_filter *filter, uint32_t found,
                         uint32_t fail)
{
    static const uint8_t families[] = { 4, 6 };
    for (unsigned f = 0; f < 2; f++) {
        uint32_t other = new_label(emitter);
        put_load(emitter, BPF_B, T, PARSER, FLOW(family));
        put_if(emitter, BPF_JNE, T, families[f], other);
        bool all = false;
        for (size_t i = 0; i < filter->prefix_count && !all; i++) {
            const struct pk_filter_prefix *prefix = &filter->prefixes[i];
            if (prefix->family != families[f])
                continue;
            all = prefix->bits == 0;
            if (all)
                break;
            put_prefix(emitter, prefix, FLOW(src), found);
            put_prefix(emitter, prefix, FLOW(dst), found);
        }
        put_goto(emitter, all ? found : fail);
        put_label(emitter, other);
    }
    put_goto(emitter, fail);
}

static void put_port(struct emitter *emitter, unsigned reg, const struct pk_filter_ports *range,
                     uint32_t found)
{
    if (range->from == range->to) {
        put_if(emitter, BPF_JEQ, reg, range->from, found);
        return;
    }
    uint32_t other = new_label(emitter);
    put_if(emitter, BPF_JLT, reg, range->from, other);
    put_if(emitter, BPF_JLE, reg, range->to, found);
    put_label(emitter, other);
}

static void put_ports(struct emitter *emitter, const struct pk_filter *filter, uint32_t found,
                      uint32_t fail)
{
    uint32_t whole = new_label(emitter), has_ports = new_label(emitter);
    put_load(emitter, BPF_B, T, PARSER, FLOW(fragments));
    put_if(emitter, BPF_JEQ, T, 0, whole);
    put_load(emitter, BPF_W, A, PARSER, FLOW(fragment[0].place));
    put_if(emitter, BPF_JEQ, A, PK_FRAGMENT_LATER, found);
    put_if(emitter, BPF_JEQ, T, 1, whole);
    put_load(emitter, BPF_W, A, PARSER, FLOW(fragment[1].place));
    put_if(emitter, BPF_JEQ, A, PK_FRAGMENT_LATER, found);
    put_label(emitter, whole);
    put_load(emitter, BPF_B, T, PARSER, FLOW(proto));
    put_if(emitter, BPF_JEQ, T, 6, has_ports);
    put_if(emitter, BPF_JEQ, T, 17, has_ports);
    put_if(emitter, BPF_JNE, T, 132, fail);
    put_label(emitter, has_ports);
    put_load(emitter, BPF_H, A, PARSER, FLOW(src_port));
    put_swap(emitter, A, 2);
    put_load(emitter, BPF_H, X, PARSER, FLOW(dst_port));
    put_swap(emitter, X, 2);
    for (size_t i = 0; i < filter->port_count; i++) {
        put_port(emitter, A, &filter->ports[i], found);
        put_port(emitter, X, &filter->ports[i], found);
    }
    put_goto(emitter, fail);
}

static void put_protocols(struct emitter *emitter, const struct pk_filter *filter, uint32_t found,
                          uint32_t fail)
{
    put_load(emitter, BPF_B, T, PARSER, FLOW(family));
    put_if(emitter, BPF_JEQ, T, 0, fail);
    put_load(emitter, BPF_B, T, PARSER, FLOW(protocol));
    for (size_t i = 0; i < filter->protocol_count; i++)
        put_if(emitter, BPF_JEQ, T, filter->protocols[i], found);
    put_goto(emitter, fail);
}

static void put_vlans(struct emitter *emitter, const struct pk_filter *filter, uint32_t found,
                      uint32_t fail)
{
    put_load(emitter, BPF_B, T, PARSER, FLOW(vlans));
    put_if(emitter, BPF_JEQ, T, 0, fail);
    put_load(emitter, BPF_H, A, PARSER, FLOW(vlan[0]));
    put_load(emitter, BPF_H, X, PARSER, FLOW(vlan[1]));
    for (size_t i = 0; i < filter->vlan_count; i++) {
        const struct pk_filter_vlan *vlan = &filter->vlans[i];
        if (vlan->inner == PK_FILTER_NO_VLAN) {
            put_if(emitter, BPF_JEQ, A, vlan->outer, found);
            continue;
        }
        uint32_t other = new_label(emitter);
        put_if(emitter, BPF_JNE, A, vlan->outer, other);
        put_if(emitter, BPF_JLT, T, 2, other);
        put_if(emitter, BPF_JEQ, X, vlan->inner, found);
        put_label(emitter, other);
    }
    put_goto(emitter, fail);
}

static void put_vnis(struct emitter *emitter, const struct pk_filter *filter, uint32_t found,
                     uint32_t fail)
{
    put_load(emitter, BPF_B, T, PARSER, FLOW(tags));
    put_op(emitter, BPF_ALU | BPF_AND | BPF_K, T, 0, PK_TAG_VNI);
    put_if(emitter, BPF_JEQ, T, 0, fail);
    put_load(emitter, BPF_W, T, PARSER, FLOW(vni));
    for (size_t i = 0; i < filter->vni_count; i++)
        put_if(emitter, BPF_JEQ, T, filter->vnis[i], found);
    put_goto(emitter, fail);
}

/* Takes the target out of r4 if it does not want the packet. */
static void put_filter(struct emitter *emitter, const struct pk_filter *filter, uint8_t bit)
{
    const struct {
        size_t count;
        void (*put)(struct emitter *emitter, const struct pk_filter *filter, uint32_t found,
                    uint32_t fail);
    } parts[] = {
        { filter->vlan_count, put_vlans },         { filter->vni_count, put_vnis },
        { filter->protocol_count, put_protocols }, { filter->port_count, put_ports },
        { filter->prefix_count, put_prefixes },    { filter->op_count, put_expression },
    };
    uint32_t fail = new_label(emitter), pass = new_label(emitter);
    size_t last = PK_ARRAY_SIZE(parts);
    while (last > 0 && parts[last - 1].count == 0)
        last--;
    for (size_t i = 0; i < last; i++) {
        if (parts[i].count == 0)
            continue;
        uint32_t found = i + 1 == last ? pass : new_label(emitter);
        parts[i].put(emitter, filter, found, fail);
        if (i + 1 < last)
            put_label(emitter, found);
    }
    put_label(emitter, fail);
    put_move(emitter, T, 1);
    put_op(emitter, BPF_ALU64 | BPF_LSH | BPF_K, T, 0, bit);
    put_op(emitter, BPF_ALU64 | BPF_XOR | BPF_X, TARGETS, T, 0);
    put_label(emitter, pass);
}

/* ---- all of a tap ---- */

static bool is_first_of_channel(const struct pk_filter_use *uses, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (uses[i].channel == uses[at].channel && uses[i].filter != NULL)
            return false;
    return uses[at].filter != NULL;
}

static int too_large(const struct pk_filter_use *use, size_t room, struct pk_error *err)
{
    pk_fail(err, PK_E_NOSPACE,
            "the filters of this tap are too large: that of group %s is the one "
            "that does not fit in %zu instructions",
            use->name, room);
    return pk_hint(err, "give it less to compare, or let the group have a tap of its own");
}

static int put_channels(struct emitter *emitter, const struct pk_filter_use *uses, size_t count,
                        struct pk_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_first_of_channel(uses, i))
            continue;
        uint32_t other = new_label(emitter);
        put_if(emitter, BPF_JNE, T, uses[i].channel, other);
        put_op(emitter, BPF_ALU64 | BPF_MOV | BPF_K, TARGETS, 0, UINT32_MAX); /* all 64 bits */
        for (size_t k = i; k < count; k++) {
            if (uses[k].channel != uses[i].channel || uses[k].filter == NULL)
                continue;
            put_filter(emitter, uses[k].filter, uses[k].bit);
            if (emitter->failed)
                return pk_no_memory(err);
            if (emitter->count + 8 > emitter->room)
                return too_large(&uses[k], emitter->room, err);
        }
        put_op(emitter, BPF_ALU64 | BPF_MOV | BPF_X, A, TARGETS, 0);
        put_exit(emitter);
        put_label(emitter, other);
    }
    return 0;
}

static int emit(struct emitter *emitter, const struct pk_filter_use *uses, size_t count,
                struct pk_error *err)
{
    uint32_t none = new_label(emitter);
    put(emitter, (struct bpf_insn){ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = PARSER }, none);
    put_op(emitter, BPF_ALU | BPF_MOV | BPF_X, SIZE, SIZE, 0); /* nothing above 32 bits */
    put_op(emitter, BPF_ALU | BPF_MOV | BPF_X, T, T, 0);
    int r = put_channels(emitter, uses, count, err);
    if (r < 0)
        return r;
    put_label(emitter, none);
    put_op(emitter, BPF_ALU64 | BPF_MOV | BPF_K, A, 0, UINT32_MAX);
    put_exit(emitter);
    if (emitter->failed)
        return pk_no_memory(err);
    for (size_t i = 0; i < emitter->count; i++)
        if (emitter->target[i] != NO_LABEL)
            emitter->insns[i].off = (int16_t)(emitter->labels[emitter->target[i]] - i - 1);
    return 0;
}

int pk_filter_emit(const struct pk_filter_use *uses, size_t count, size_t room,
                   struct pk_filter_code *ret_code, struct pk_error *err)
{
    struct emitter emitter = { .room = PK_MIN(room, INT16_MAX) };
    emitter.insns = pk_zalloc_array(emitter.room, sizeof *emitter.insns);
    emitter.target = pk_zalloc_array(emitter.room, sizeof *emitter.target);
    int r = emitter.insns != NULL && emitter.target != NULL && room >= 16
                ? emit(&emitter, uses, count, err)
                : pk_no_memory(err);
    pk_free(emitter.target);
    pk_free(emitter.labels);
    if (r < 0) {
        pk_free(emitter.insns);
        return r;
    }
    *ret_code = (struct pk_filter_code){ emitter.insns, emitter.count };
    return 0;
}

void pk_filter_code_done(struct pk_filter_code *code)
{
    pk_free(code->insns);
    *code = (struct pk_filter_code){ 0 };
}

/* ---- into the program ---- */

static bool calls(const struct bpf_insn *insn)
{
    return (insn->code == (BPF_JMP | BPF_CALL) && insn->src_reg == BPF_PSEUDO_CALL) ||
           (insn->code == (BPF_LD | BPF_IMM | BPF_DW) && insn->src_reg == BPF_PSEUDO_FUNC);
}

int pk_filter_patch(struct bpf_insn *insns, size_t count, const struct pk_filter_code *code)
{
    size_t mark = 0, start = 0, end = count;
    while (mark < count &&
           !(BPF_OP(insns[mark].code) == BPF_MOV && insns[mark].imm == PK_FILTER_MARK))
        mark++;
    if (mark == count)
        return 0; /* a program without filters */
    /* A function is from where it is called to where the next one is. */
    for (size_t i = 0; i < count; i++) {
        size_t to = i + 1 + (size_t)(ptrdiff_t)insns[i].imm;
        if (!calls(&insns[i]) || to >= count)
            continue;
        if (to <= mark && to > start)
            start = to;
        if (to > mark && to < end)
            end = to;
    }
    size_t room = end - start;
    if (start == 0 || code->count + 3 > room)
        return -E2BIG;
    struct bpf_insn *at = insns + start;
    /* Room that is left: reached, as the verifier asks of each instruction, by a branch that it
     * sees is never taken, and so takes out again. */
    *at++ = (struct bpf_insn){ .code = BPF_ALU | BPF_MOV | BPF_K, .dst_reg = A };
    *at++ = (struct bpf_insn){ .code = BPF_JMP | BPF_JNE | BPF_K,
                               .dst_reg = A,
                               .off = (int16_t)code->count };
    memcpy(at, code->insns, code->count * sizeof *at);
    for (at += code->count; at < insns + end - 1; at++)
        *at = (struct bpf_insn){ .code = BPF_JMP | BPF_JA };
    *at = (struct bpf_insn){ .code = BPF_JMP | BPF_EXIT };
    return 0;
}

static _Thread_local const struct pk_filter_code *installed;

/* What libbpf does for the section, which this handler takes its place for, and the patch. */
static int prepare(struct bpf_program *program, struct bpf_prog_load_opts *opts, long cookie)
{
    (void)cookie;
    opts->prog_flags |= BPF_F_XDP_HAS_FRAGS;
    if (installed == NULL)
        return 0;
    size_t count = bpf_program__insn_cnt(program);
    PK_CLEANUP(pk_free_p)
    struct bpf_insn *insns = pk_memdup(bpf_program__insns(program), count * sizeof *insns);
    if (insns == NULL)
        return -ENOMEM;
    int r = pk_filter_patch(insns, count, installed);
    return r < 0 ? r : bpf_program__set_insns(program, insns, count);
}

int pk_filter_install(const struct pk_filter_code *code)
{
    static int handler;
    installed = code;
    if (handler <= 0) {
        LIBBPF_OPTS(libbpf_prog_handler_opts, opts, .prog_prepare_load_fn = prepare);
        handler = libbpf_register_prog_handler("xdp.frags", BPF_PROG_TYPE_XDP, BPF_XDP, &opts);
    }
    return handler > 0 || code == NULL ? 0 : handler;
}
