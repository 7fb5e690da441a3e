/* SPDX-License-Identifier: Apache-2.0 */
#include "ebpf.h"

#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>

#define DATA  ((uint64_t)1 << 60) /* where pointers seem to point */
#define STACK ((uint64_t)2 << 60)

struct machine {
    uint64_t reg[11];
    bool has[11];
    uint8_t stack[512];
    bool written[512];
    const uint8_t *data;
    size_t size;
    const char *why;
};

static bool fail(struct machine *machine, const char *why)
{
    machine->why = why;
    return false;
}

static unsigned width(const struct bpf_insn *insn)
{
    return BPF_SIZE(insn->code) == BPF_W ? 4 : BPF_SIZE(insn->code) == BPF_H ? 2 : 1;
}

static bool load(struct machine *machine, const struct bpf_insn *insn)
{
    uint64_t at = machine->reg[insn->src_reg] + (uint64_t)(int64_t)insn->off;
    unsigned size = width(insn);
    const uint8_t *from;
    if (!machine->has[insn->src_reg])
        return fail(machine, "a pointer was not written");
    if (at >= DATA && at - DATA + size <= machine->size) {
        from = machine->data + (at - DATA);
    } else if (at < STACK && STACK - at <= 512 && STACK - at >= size) {
        size_t place = 512 - (size_t)(STACK - at);
        for (unsigned i = 0; i < size; i++)
            if (!machine->written[place + i])
                return fail(machine, "a word of the stack was not written");
        from = machine->stack + place;
    } else {
        return fail(machine, "a load from nowhere");
    }
    uint32_t word = 0;
    uint16_t half = 0;
    if (size == 4)
        memcpy(&word, from, 4);
    else if (size == 2)
        memcpy(&half, from, 2);
    machine->reg[insn->dst_reg] = size == 4 ? word : size == 2 ? half : *from;
    machine->has[insn->dst_reg] = true;
    return true;
}

static bool store(struct machine *machine, const struct bpf_insn *insn)
{
    uint64_t at = machine->reg[insn->dst_reg] + (uint64_t)(int64_t)insn->off;
    if (!machine->has[insn->src_reg] || width(insn) != 4 || at >= STACK || STACK - at > 512 ||
        STACK - at < 4)
        return fail(machine, "a store to nowhere");
    size_t place = 512 - (size_t)(STACK - at);
    uint32_t word = (uint32_t)machine->reg[insn->src_reg];
    memcpy(machine->stack + place, &word, 4);
    memset(machine->written + place, 1, 4);
    return true;
}

static uint64_t swapped(uint64_t value, int32_t bits)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return bits == 16 ? __builtin_bswap16((uint16_t)value) : __builtin_bswap32((uint32_t)value);
#else
    return bits == 16 ? (uint16_t)value : (uint32_t)value;
#endif
}

static bool calculate(struct machine *machine, const struct bpf_insn *insn)
{
    bool wide = BPF_CLASS(insn->code) == BPF_ALU64;
    unsigned op = BPF_OP(insn->code);
    uint64_t *to = &machine->reg[insn->dst_reg];
    uint64_t by = BPF_SRC(insn->code) == BPF_X && op != BPF_END ? machine->reg[insn->src_reg]
                                                                : (uint64_t)(int64_t)insn->imm;
    if (op != BPF_MOV && !machine->has[insn->dst_reg])
        return fail(machine, "a register was not written");
    if (BPF_SRC(insn->code) == BPF_X && op != BPF_END && !machine->has[insn->src_reg])
        return fail(machine, "a register was not written");
    uint64_t a = wide ? *to : (uint32_t)*to;
    if (!wide)
        by = (uint32_t)by;
    if ((op == BPF_DIV || op == BPF_MOD) && by == 0)
        return fail(machine, "a division by 0");
    if ((op == BPF_LSH || op == BPF_RSH) && by >= (wide ? 64 : 32))
        return fail(machine, "a shift by too much");
    switch (op) {
    case BPF_MOV:
        a = by;
        break;
    case BPF_ADD:
        a += by;
        break;
    case BPF_SUB:
        a -= by;
        break;
    case BPF_MUL:
        a *= by;
        break;
    case BPF_DIV:
        a /= by;
        break;
    case BPF_MOD:
        a %= by;
        break;
    case BPF_AND:
        a &= by;
        break;
    case BPF_OR:
        a |= by;
        break;
    case BPF_XOR:
        a ^= by;
        break;
    case BPF_LSH:
        a <<= by;
        break;
    case BPF_RSH:
        a >>= by;
        break;
    case BPF_NEG:
        a = 0 - a;
        break;
    case BPF_END:
        a = swapped(a, insn->imm);
        break;
    default:
        return fail(machine, "an unknown calculation");
    }
    *to = wide ? a : (uint32_t)a;
    machine->has[insn->dst_reg] = true;
    return true;
}

static bool is_jump(const struct bpf_insn *insn)
{
    return (BPF_CLASS(insn->code) == BPF_JMP || BPF_CLASS(insn->code) == BPF_JMP32) &&
           BPF_OP(insn->code) != BPF_EXIT && BPF_OP(insn->code) != BPF_CALL;
}

static bool compare(struct machine *machine, const struct bpf_insn *insn, bool *ret_taken)
{
    bool wide = BPF_CLASS(insn->code) == BPF_JMP, by_reg = BPF_SRC(insn->code) == BPF_X;
    if (BPF_OP(insn->code) == BPF_JA) {
        *ret_taken = true;
        return true;
    }
    if (!machine->has[insn->dst_reg] || (by_reg && !machine->has[insn->src_reg]))
        return fail(machine, "a register was not written");
    uint64_t a = machine->reg[insn->dst_reg];
    uint64_t b = by_reg ? machine->reg[insn->src_reg] : (uint64_t)(int64_t)insn->imm;
    if (!wide) {
        a = (uint32_t)a;
        b = (uint32_t)b;
    }
    switch (BPF_OP(insn->code)) {
    case BPF_JEQ:
        *ret_taken = a == b;
        break;
    case BPF_JNE:
        *ret_taken = a != b;
        break;
    case BPF_JGT:
        *ret_taken = a > b;
        break;
    case BPF_JGE:
        *ret_taken = a >= b;
        break;
    case BPF_JLT:
        *ret_taken = a < b;
        break;
    case BPF_JLE:
        *ret_taken = a <= b;
        break;
    case BPF_JSET:
        *ret_taken = (a & b) != 0;
        break;
    default:
        return fail(machine, "an unknown comparison");
    }
    return true;
}

bool ebpf_run(const struct bpf_insn *insns, size_t count, const void *data, size_t size,
              uint64_t second, uint64_t third, uint64_t *ret_result, const char **ret_why)
{
    struct machine machine = { .data = data, .size = size };
    const uint64_t arguments[] = { DATA, second, third };
    memcpy(machine.reg + 1, arguments, sizeof arguments);
    machine.reg[10] = STACK;
    machine.has[1] = machine.has[2] = machine.has[3] = machine.has[10] = true;
    bool ok = true;
    for (size_t at = 0; ok; at++) {
        if (at >= count) {
            ok = fail(&machine, "the code ends without an exit");
            break;
        }
        const struct bpf_insn *insn = &insns[at];
        if (insn->code == (BPF_JMP | BPF_EXIT)) {
            ok = machine.has[0] || fail(&machine, "no result");
            break;
        }
        bool taken = false;
        if (is_jump(insn)) {
            ok = compare(&machine, insn, &taken) &&
                 (insn->off >= 0 || fail(&machine, "a jump backwards"));
            if (ok && taken)
                at += (size_t)insn->off;
        } else if (BPF_CLASS(insn->code) == BPF_ALU || BPF_CLASS(insn->code) == BPF_ALU64) {
            ok = calculate(&machine, insn);
        } else if ((insn->code & ~0x18) == (BPF_LDX | BPF_MEM)) {
            ok = load(&machine, insn);
        } else if ((insn->code & ~0x18) == (BPF_STX | BPF_MEM)) {
            ok = store(&machine, insn);
        } else {
            ok = fail(&machine, "an unknown instruction");
        }
    }
    *ret_result = machine.reg[0];
    *ret_why = machine.why;
    return ok;
}

bool ebpf_all_reached(const struct bpf_insn *insns, size_t count)
{
    bool *reached = calloc(count + 1, sizeof *reached), all = reached != NULL;
    if (all)
        reached[0] = true;
    for (size_t i = 0; all && i < count; i++) {
        all = reached[i];
        if (insns[i].code == (BPF_JMP | BPF_EXIT))
            continue;
        if (is_jump(&insns[i]) && insns[i].off >= 0 && i + 1 + (size_t)insns[i].off < count)
            reached[i + 1 + (size_t)insns[i].off] = true;
        if (insns[i].code != (BPF_JMP | BPF_JA))
            reached[i + 1] = true;
    }
    free(reached);
    return all;
}
