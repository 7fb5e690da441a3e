/* SPDX-License-Identifier: Apache-2.0 */
/* The route table and docs/api/openapi.json say the same, both ways. */
#include "pk_test.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "serve/serve.h"

static json_t *load(void)
{
    const char *source = getenv("PICKET_SOURCE");
    assert_non_null(source);
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/docs/api/openapi.json", source);
    json_t *document = NULL;
    struct pk_error err = { 0 };
    if (pk_json_load(path, &document, &err) < 0)
        fail_msg("%s", err.msg);
    return document;
}

static void lower(const char *text, char *out, size_t size)
{
    size_t i = 0;
    for (; text[i] != '\0' && i + 1 < size; i++)
        out[i] = (char)tolower((unsigned char)text[i]);
    out[i] = '\0';
}

static void test_each_route_is_described(void **state)
{
    (void)state;
    PK_JSON document = load();
    size_t count = 0;
    const struct pk_http_route *routes = pk_serve_routes(&count);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        char method[16];
        lower(routes[i].method, method, sizeof(method));
        const json_t *path = json_object_get(json_object_get(document, "paths"), routes[i].path);
        const json_t *operation = json_object_get(path, method);
        if (operation == NULL)
            fail_msg("%s %s is not in openapi.json", routes[i].method, routes[i].path);
        /* "security": [] says that no authorisation is asked. */
        const json_t *security = json_object_get(operation, "security");
        bool described_public = json_is_array(security) && json_array_size(security) == 0;
        bool is_public = (routes[i].flags & PK_ROUTE_PUBLIC) != 0;
        if (described_public != is_public)
            fail_msg("%s %s: public in one place only", routes[i].method, routes[i].path);
        /* Each {parameter} is described. */
        const json_t *parameters = json_object_get(operation, "parameters");
        for (const char *p = strchr(routes[i].path, '{'); p != NULL; p = strchr(p + 1, '{')) {
            size_t len = strcspn(p + 1, "}"), j;
            json_t *parameter;
            bool found = false;
            json_array_foreach(parameters, j, parameter)
            {
                const char *name = pk_json_string_or(parameter, "name", "");
                found = found || (strlen(name) == len && strncmp(name, p + 1, len) == 0);
            }
            if (!found)
                fail_msg("%s: parameter %.*s is not described", routes[i].path, (int)len, p + 1);
        }
    }
}

static void test_each_description_has_a_route(void **state)
{
    (void)state;
    PK_JSON document = load();
    size_t count = 0;
    const struct pk_http_route *routes = pk_serve_routes(&count);
    const char *path, *method;
    json_t *operations, *operation;
    json_object_foreach(json_object_get(document, "paths"), path, operations)
        json_object_foreach(operations, method, operation)
    {
        bool found = false;
        for (size_t i = 0; i < count; i++)
            found = found || (strcmp(routes[i].path, path) == 0 &&
                              strcasecmp(routes[i].method, method) == 0);
        if (!found)
            fail_msg("%s %s is in openapi.json only", method, path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_route_is_described),
        cmocka_unit_test(test_each_description_has_a_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
