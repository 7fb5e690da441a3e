/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which of a tenant's targets want a packet. What the function does is written when a tap's
 * instance is loaded: broker/filter.c puts its own instructions in the place of all of it. It finds
 * it by the number in the first of these, and needs as many as there are, since with another number
 * of instructions all that the kernel is told of the program's lines and functions were wrong.
 */
#ifndef PICKET_BROKER_BPF_FILTER_H
#define PICKET_BROKER_BPF_FILTER_H

#define PK_FILTER_MARK 0x706b6673 /* "pkfs" */
#define PK_FILTER_ROOM 16384      /* instructions; a jump reaches 32,767 */

#ifdef __bpf__
#    include "packet/step.h"

#    define PK_FILTER_STRING_(x) #    x
#    define PK_FILTER_STRING(x)  PK_FILTER_STRING_(x)

/*
 * Returns a bit for each target of the tap. Of the channel's targets, those whose filter the packet
 * does not pass have a 0; all others, those of other channels too, have a 1. parser: as pk_parse()
 * leaves it in PK_HASH_FLOW (window alone where no filter has fields); size: of the frame.
 */
__attribute__((noinline)) __u64 pk_filter_mask(struct pk_parser *parser, __u32 size, __u32 channel)
{
    __u64 targets;
    asm volatile(
        "%[targets] = " PK_FILTER_STRING(
            PK_FILTER_MARK) "\n"
                            "if %[targets] == " PK_FILTER_STRING(PK_FILTER_MARK) " goto +" PK_FILTER_STRING(
                                PK_FILTER_ROOM) "\n"
                                                ".rept " PK_FILTER_STRING(
                                                    PK_FILTER_ROOM) "\n"
                                                                    "goto +0\n"
                                                                    ".endr\n"
                                                                    "%[targets] = -1\n"
        : [targets] "=&r"(targets)
        : "r"(parser), "r"(size), "r"(channel)
        : "memory");
    return targets;
}
#endif

#endif
