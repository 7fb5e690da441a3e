/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions of JSON Schema (ECMA-262) in time linear in the text: a simulated automaton
 * without backtracking, because patterns and texts both come from outside. Supported: literals,
 * '.', classes, \d \w \s \D \W \S \b \B, \t \n \r \f \v \0 \cX \xHH \uHHHH, groups, alternatives,
 * anchors,
 * * + ? {m,n} (lazy ones too: they match the same). Not: look-around, back references, \p{...}.
 */
#ifndef PICKET_SPEC_PATTERN_H
#define PICKET_SPEC_PATTERN_H

#include "base/common.h"
#include "base/error.h"

/* PK_E_INVALID (with the offset in the message) or PK_E_UNSUPPORTED. */
int pk_pattern_check(const char *pattern, struct pk_error *err);
/* Whether the pattern matches somewhere in the text, which is UTF-8. */
int pk_pattern_match(const char *pattern, const char *text, size_t len, bool *ret_match,
                     struct pk_error *err);

#endif
