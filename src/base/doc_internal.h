/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the reader (doc.c) and the printer (doc_print.c): how a plain scalar is understood. */
#ifndef PICKET_BASE_DOC_INTERNAL_H
#define PICKET_BASE_DOC_INTERNAL_H

#include "base/doc.h"

/* Gives an unquoted scalar's node, whose text is set, its kind and value by the core schema of YAML
 * 1.2.2 (section 10.3.2). False if it is a number that int64_t or double cannot hold: infinities
 * and NaN are of that sort, as JSON has none. */
bool pk_doc_resolve_plain(struct pk_node *node);

#endif
