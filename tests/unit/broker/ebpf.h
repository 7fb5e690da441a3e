/* SPDX-License-Identifier: Apache-2.0 */
/* The instructions that broker/filter.c emits, interpreted, each access and jump checked. */
#ifndef PICKET_TESTS_BROKER_EBPF_H
#define PICKET_TESTS_BROKER_EBPF_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a function returns whose first argument is data (read only), and the others numbers. False,
 * with the reason, if the kernel would not have let it: an access beyond data or the stack, a
 * register or stack word that was not written, a jump out of the code or backwards. */
bool ebpf_run(const struct bpf_insn *insns, size_t count, const void *data, size_t size,
              uint64_t second, uint64_t third, uint64_t *ret_result, const char **ret_why);

/* Is each instruction reached by some way, if all branches are possible? */
bool ebpf_all_reached(const struct bpf_insn *insns, size_t count);

#endif
