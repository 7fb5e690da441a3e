/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/plans: what a change would do, and doing it. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "serve/internal.h"
#include "spec/spec.h"

#define MAX_REASON 1000u

static void done_errors(struct pk_errors *errors)
{
    pk_errors_done(errors);
}

/* Exactly one of the three forms, see struct pk_plan_request. */
static int read_request(const json_t *body, struct pk_plan_request *ret_request,
                        struct pk_error *err)
{
    struct pk_plan_request plan = { 0 };
    int r = pk_serve_text_member(body, "document", PK_DOC_MAX_BYTES, &plan.document, err);
    if (r >= 0)
        r = pk_serve_text_member(body, "name", 4096, &plan.document_name, err);
    if (r >= 0)
        r = pk_serve_text_member(body, "fleet", PK_NAME_MAX, &plan.fleet, err);
    if (r < 0)
        return r;
    const json_t *revision = json_object_get(body, "revision");
    const json_t *remove = json_object_get(body, "remove");
    if (revision != NULL && (!json_is_integer(revision) || json_integer_value(revision) < 1)) {
        (void)pk_fail(err, PK_E_USAGE, "'revision' must be a whole number from 1");
        return pk_hint(err, "'picket history' shows the revisions");
    }
    if (remove != NULL && !json_is_boolean(remove)) {
        (void)pk_fail(err, PK_E_USAGE, "'remove' must be true or false");
        return pk_hint(err, "send {\"fleet\": \"NAME\", \"remove\": true}");
    }
    plan.revision = revision == NULL ? 0 : (uint64_t)json_integer_value(revision);
    plan.remove = json_is_true(remove);
    if (plan.fleet != NULL && !pk_str_is_name(plan.fleet, PK_NAME_MAX)) {
        (void)pk_fail(err, PK_E_USAGE, "'%.60s' is not the name of a fleet", plan.fleet);
        return pk_hint(err, "'picket status' shows the fleets");
    }
    int forms = (plan.document != NULL) + (plan.fleet != NULL && plan.revision != 0) +
                (plan.fleet != NULL && plan.remove);
    if (forms != 1 || (plan.document != NULL && plan.fleet != NULL)) {
        (void)pk_fail(err, PK_E_USAGE, "the body must say what is wanted in exactly one way");
        return pk_hint(err, "send document and name, or fleet and revision, or fleet and remove");
    }
    if (plan.document != NULL && plan.document_name == NULL)
        plan.document_name = "fleet";
    *ret_request = plan;
    return 0;
}

int pk_api_plan_create(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    static const char *const keys[] = { "document", "name", "fleet", "revision", "remove", NULL };
    struct pk_serve *serve = arg;
    PK_JSON body = NULL;
    struct pk_plan_request wanted;
    int r = pk_serve_body_object(request, keys, &body, err);
    if (r >= 0)
        r = read_request(body, &wanted, err);
    if (r < 0)
        return r;
    PK_CLEANUP(done_errors) struct pk_errors errors = { 0 };
    json_t *plan = NULL;
    r = pk_manager_plan(serve->manager, &wanted, &plan, &errors, err);
    if (r < 0 && errors.count > 0)
        return pk_serve_reply_errors(request, &errors);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, plan);
}

static int id_param(struct pk_http_request *request, const char **ret_id, struct pk_error *err)
{
    const char *id = pk_http_param(request, "id");
    size_t len = id == NULL ? 0 : strlen(id);
    if (len < 4 || len > 12 || strspn(id, "0123456789abcdef") != len) {
        (void)pk_fail(err, PK_E_USAGE, "'%.40s' is not the id of a plan", id == NULL ? "" : id);
        return pk_hint(err, "'picket plan FLEET' prints the id of the plan that it saves");
    }
    *ret_id = id;
    return 0;
}

int pk_api_plan_get(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *id = NULL;
    json_t *plan = NULL;
    int r = id_param(request, &id, err);
    if (r >= 0)
        r = pk_manager_plan_get(serve->manager, id, &plan, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, plan);
}

int pk_api_plan_apply(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    static const char *const keys[] = { "reason", NULL };
    struct pk_serve *serve = arg;
    const char *id = NULL, *reason = NULL;
    PK_JSON body = NULL;
    PK_JSON plan = NULL;
    int r = id_param(request, &id, err);
    if (r >= 0)
        r = pk_serve_body_object(request, keys, &body, err);
    if (r >= 0)
        r = pk_serve_text_member(body, "reason", MAX_REASON, &reason, err);
    if (r >= 0)
        r = pk_manager_plan_get(serve->manager, id, &plan, err);
    if (r < 0)
        return r;
    char user[80];
    pk_serve_user(serve, pk_http_peer(request), user, sizeof(user));
    uint64_t revision = 0;
    r = pk_manager_apply(serve->manager, pk_json_string_or(plan, "id", id), user,
                         reason == NULL ? "" : reason, &revision, err);
    if (r < 0)
        return r;
    return pk_http_reply_json_take(request, 202,
                                   json_pack("{s:s,s:I}", "fleet",
                                             pk_json_string_or(plan, "fleet", ""), "revision",
                                             (json_int_t)revision));
}
