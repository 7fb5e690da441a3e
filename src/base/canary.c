/* SPDX-License-Identifier: Apache-2.0 */
#include "base/canary.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

#define NUMBER_MAX ((uint64_t)INT64_MAX)
/* Ports that systems give to clients (RFC 6335). */
#define PORT_FIRST 49152u
#define PORT_COUNT 16384u

void pk_canary_token_make(const uint8_t key[PK_CANARY_KEY_SIZE], const char *fleet,
                          const char *group, uint64_t lane, struct pk_canary_token *ret_token)
{
    char text[160]; /* names have no '/' in them, so no two lanes are written alike */
    int len = snprintf(text, sizeof(text), "%.63s/%.63s/%" PRIu64, fleet, group, lane);
    (void)crypto_generichash(ret_token->bytes, sizeof(ret_token->bytes),
                             (const unsigned char *)text, (size_t)len, key, PK_CANARY_KEY_SIZE);
}

void pk_canary_token_print(const struct pk_canary_token *token, char out[PK_CANARY_TOKEN_TEXT])
{
    (void)sodium_bin2hex(out, PK_CANARY_TOKEN_TEXT, token->bytes, sizeof(token->bytes));
}

bool pk_canary_token_parse(const char *text, struct pk_canary_token *ret_token)
{
    struct pk_canary_token token;
    size_t len = 0;
    if (strlen(text) != PK_CANARY_TOKEN_TEXT - 1 ||
        sodium_hex2bin(token.bytes, sizeof(token.bytes), text, PK_CANARY_TOKEN_TEXT - 1, NULL, &len,
                       NULL) != 0 ||
        len != sizeof(token.bytes))
        return false;
    *ret_token = token;
    return true;
}

/* What says is for keeps the uses apart. */
static void digest(const struct pk_canary_token *token, char what, uint64_t number, uint8_t out[16])
{
    uint8_t text[9] = { (uint8_t)what };
    for (size_t i = 0; i < 8; i++)
        text[1 + i] = (uint8_t)(number >> (8 * i));
    (void)crypto_generichash(out, 16, text, sizeof(text), token->bytes, sizeof(token->bytes));
}

/* The addresses follow from the port, so that a flow shows whose it is without its number. None
 * ends in 0 or 255. */
static void addresses(const struct pk_canary_token *token, uint16_t port, uint8_t client[4],
                      uint8_t server[4])
{
    uint8_t bytes[16];
    digest(token, 'a', port, bytes);
    memcpy(client, (uint8_t[]){ 192, 0, 2, (uint8_t)(1 + bytes[0] % 254) }, 4);
    memcpy(server, (uint8_t[]){ 198, 51, 100, (uint8_t)(1 + bytes[1] % 254) }, 4);
}

void pk_canary_make(const struct pk_canary_token *token, const char *group, uint64_t lane,
                    uint64_t number, struct pk_canary *ret_canary)
{
    uint8_t bytes[16];
    char hex[33];
    digest(token, 'n', number, bytes);
    (void)sodium_bin2hex(hex, sizeof(hex), bytes, sizeof(bytes));
    *ret_canary = (struct pk_canary){ .number = number };
    (void)snprintf(ret_canary->name, sizeof(ret_canary->name),
                   "pk-%s-%" PRIu64 "-%" PRIu64 ".%.63s.invalid", hex, lane, number, group);
    digest(token, 'p', number, bytes);
    ret_canary->port = (uint16_t)(PORT_FIRST + (bytes[0] | bytes[1] << 8) % PORT_COUNT);
    ret_canary->id = (uint16_t)(bytes[2] | bytes[3] << 8);
    addresses(token, ret_canary->port, ret_canary->client, ret_canary->server);
}

bool pk_canary_is_flow(const struct pk_canary_token *token, const struct pk_canary_flow *flow)
{
    uint8_t client[4], server[4];
    bool forth = flow->target_port == PK_CANARY_PORT && flow->source[0] == 192;
    uint64_t port = forth ? flow->source_port : flow->target_port;
    uint64_t other = forth ? flow->target_port : flow->source_port;
    if (!pk_canary_may_be(flow->source, flow->target) || other != PK_CANARY_PORT ||
        port < PORT_FIRST || port >= PORT_FIRST + PORT_COUNT)
        return false;
    addresses(token, (uint16_t)port, client, server);
    return memcmp(client, forth ? flow->source : flow->target, 4) == 0 &&
           memcmp(server, forth ? flow->target : flow->source, 4) == 0;
}

bool pk_canary_is_name(const struct pk_canary_token *token, const char *group, uint64_t lane,
                       const char *name, size_t len, uint64_t *ret_number)
{
    static const char start[] = "pk-";
    struct pk_canary canary;
    char copy[PK_CANARY_NAME_MAX], digits[24];
    if (len < sizeof(start) || len >= sizeof(copy) || memcmp(name, start, sizeof(start) - 1) != 0)
        return false;
    memcpy(copy, name, len);
    copy[len] = '\0';
    /* The number ends the first label; all the rest follows from it. */
    copy[strcspn(copy, ".")] = '\0';
    const char *dash = strrchr(copy, '-');
    uint64_t number = 0;
    size_t digit_count = dash != NULL ? strlen(dash + 1) : 0;
    if (digit_count == 0 || digit_count >= sizeof(digits))
        return false;
    memcpy(digits, dash + 1, digit_count + 1);
    if (pk_parse_u64(digits, &number, NULL) < 0 || number > NUMBER_MAX)
        return false;
    pk_canary_make(token, group, lane, number, &canary);
    if (strlen(canary.name) != len || memcmp(canary.name, name, len) != 0)
        return false;
    *ret_number = number;
    return true;
}
