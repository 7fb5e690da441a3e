/* SPDX-License-Identifier: Apache-2.0 */
/* The flow of a frame in user space: the same parser, fragment memory and hash as the BPF programs
 * (packet/parse.h, packet/decide.h). One thread at a time per memory. */
#ifndef PICKET_PACKET_FLOW_H
#define PICKET_PACKET_FLOW_H

#include "base/common.h"
#include "packet/hash.h"
#include "packet/reason.h"

struct pk_flow;
struct pk_fragment_memory;

struct pk_fragment_memory *pk_fragment_memory_new(void); /* NULL when out of memory */
void pk_fragment_memory_free(struct pk_fragment_memory *memory);
PK_DEFINE_CLEANUP(struct pk_fragment_memory, pk_fragment_memory_free);

/* The flow that all of the parser sees, without fragment memory. */
void pk_flow_parse(const void *frame, size_t len, enum pk_hash_mode mode, struct pk_flow *ret_flow);
/* Returns enum pk_reason. *ret_hash counts unless the reason sends to the first lane. */
unsigned pk_flow_decide(struct pk_fragment_memory *memory, const void *frame, size_t len,
                        enum pk_hash_mode mode, uint64_t seed, uint32_t *ret_hash);
/* Tests: as pk_flow_decide(), but never by the fast path. */
unsigned pk_flow_decide_slow(struct pk_fragment_memory *memory, const void *frame, size_t len,
                             enum pk_hash_mode mode, uint64_t seed, uint32_t *ret_hash);

/* "outer", "flow", "addresses" */
const char *pk_hash_mode_name(enum pk_hash_mode mode);
bool pk_hash_mode_parse(const char *name, enum pk_hash_mode *ret_mode);

const char *pk_reason_name(unsigned reason); /* "" for PK_REASON_NONE and beyond the table */
const char *pk_reason_text(unsigned reason); /* for documentation */

#endif
