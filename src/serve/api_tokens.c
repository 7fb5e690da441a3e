/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/tokens: who may come in over TLS. */
#include <string.h>

#include <sodium.h>

#include "base/alloc.h"
#include "base/json.h"
#include "serve/internal.h"

int pk_api_tokens(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    json_t *list = NULL;
    int r = pk_serve_token_list(arg, &list, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, json_pack("{s:o}", "tokens", list));
}

int pk_api_token_create(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    static const char *const keys[] = { "name", "role", NULL };
    PK_JSON body = NULL;
    const char *name = NULL, *role = NULL;
    int r = pk_serve_body_object(request, keys, &body, err);
    if (r >= 0)
        r = pk_serve_text_member(body, "name", 200, &name, err);
    if (r >= 0)
        r = pk_serve_text_member(body, "role", 200, &role, err);
    if (r < 0)
        return r;
    char user[80];
    pk_serve_user(arg, pk_http_peer(request), user, sizeof(user));
    PK_CLEANUP(pk_free_p) char *token = NULL;
    if (role == NULL)
        role = "read";
    r = pk_serve_token_create(arg, name == NULL ? "" : name, role, user, &token, err);
    if (r < 0)
        return r;
    json_t *answer = json_pack("{s:s,s:s,s:s}", "name", name, "role", role, "token", token);
    sodium_memzero(token, strlen(token));
    return pk_http_reply_json_take(request, 201, answer);
}

int pk_api_token_revoke(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    const char *name = NULL;
    int r = pk_serve_name_param(request, "name", &name, err);
    if (r >= 0)
        r = pk_serve_token_revoke(arg, name, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, json_pack("{s:s}", "revoked", name));
}
