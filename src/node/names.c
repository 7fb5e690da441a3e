/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "node/internal.h"
#include "node/node.h"

#define NETNS_NAME_MAX 64u
#define HASH_DIGITS    12u

char *pk_lane_netns_name(const char *tag, const char *fleet, const char *group, unsigned index)
{
    char *name = pk_asprintf("%s-%s-%s-%u", tag, fleet, group, index);
    if (name == NULL || strlen(name) <= NETNS_NAME_MAX)
        return name;
    /* Cut names stay apart by the hash of the whole; a slash keeps "a-b"/"c" and "a"/"b-c" apart.
     */
    char *whole = pk_asprintf("%s/%s/%s/%u", tag, fleet, group, index);
    if (whole == NULL) {
        pk_free(name);
        return NULL;
    }
    char hash[65];
    pk_sha256_hex(whole, strlen(whole), hash);
    pk_free(whole);
    char *end = name + NETNS_NAME_MAX - HASH_DIGITS - 1;
    *end++ = '-';
    memcpy(end, hash, HASH_DIGITS);
    end[HASH_DIGITS] = '\0';
    return name;
}

char *pk_lane_netns_path(const char *tag, const char *fleet, const char *group, unsigned index)
{
    char *name = pk_lane_netns_name(tag, fleet, group, index);
    if (name == NULL)
        return NULL;
    char *path = pk_asprintf("/run/netns/%s", name);
    pk_free(name);
    return path;
}

void pk_node_link_name(const char *tag, char kind, const char *key, char out[16])
{
    char hash[65];
    pk_sha256_hex(key, strlen(key), hash);
    (void)snprintf(out, 16, "%.6s%c%.8s", tag, kind, hash);
}

bool pk_node_is_interface_name(const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len >= 16 || pk_str_equal(text, ".") || pk_str_equal(text, ".."))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c >= 127 || c == '/' || c == ':' || c == '%')
            return false;
    }
    return true;
}
