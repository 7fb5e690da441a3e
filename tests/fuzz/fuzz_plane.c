/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's plane.json, whose parts are the bodies of its API's calls: what is read is written
 * back as the same; what is refused leaves nothing half read. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "fuzz.h"
#include "node/internal.h"

static int parse(const char *text, size_t len, struct pk_plane *plane, struct pk_error *err)
{
    return pk_node_plane_parse("pk0000", "input", text, len, plane, err);
}

static void check_good(const struct pk_plane *plane)
{
    json_t *once = pk_node_plane_to_json(plane);
    FUZZ_CHECK(once != NULL);
    char *text = pk_json_pretty(once);
    FUZZ_CHECK(text != NULL);
    struct pk_plane again = { 0 };
    struct pk_error err = { 0 };
    if (parse(text, strlen(text), &again, &err) < 0) {
        (void)fprintf(stderr, "%s\n%s\n", err.msg, text);
        FUZZ_CHECK(err.code == 0);
    }
    json_t *twice = pk_node_plane_to_json(&again);
    FUZZ_CHECK(json_equal(once, twice));
    for (size_t i = 0; i < plane->tap_count; i++)
        FUZZ_CHECK(pk_targets_equal(&plane->taps[i]->targets, &again.taps[i]->targets));
    pk_node_plane_done(&again);
    json_decref(once);
    json_decref(twice);
    pk_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pk_plane plane = { 0 };
    struct pk_error err = { 0 };
    int r = parse((const char *)data, size, &plane, &err);
    FUZZ_CHECK((r < 0) == (err.msg[0] != '\0'));
    if (r == 0)
        check_good(&plane);
    else
        FUZZ_CHECK(plane.lane_count + plane.group_count + plane.tap_count == 0);
    pk_node_plane_done(&plane);

    plane = (struct pk_plane){ 0 };
    pk_alloc_fail_nth(size % 64 + 1);
    (void)parse((const char *)data, size, &plane, NULL);
    pk_alloc_fail_nth(0);
    pk_node_plane_done(&plane);
    return 0;
}
