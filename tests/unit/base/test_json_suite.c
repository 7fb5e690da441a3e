/* SPDX-License-Identifier: Apache-2.0 */
/* JSONTestSuite, where it is present: y_ files must be read, n_ files must not, i_ files may. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

static char folder[4096];

/* By contract of pk_json_parse(), and a limit of jansson: a key cannot hold a NUL. */
static const char *const refused[] = { "y_object_duplicated_key.json",
                                       "y_object_duplicated_key_and_value.json",
                                       "y_object_escaped_null_in_key.json" };

static bool is_refused(const char *name)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(refused); i++)
        if (strcmp(refused[i], name) == 0)
            return true;
    return false;
}

static void test_the_suite(void **state)
{
    (void)state;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    unsigned count = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        if (!pk_str_ends(name, ".json"))
            continue;
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(folder, name);
        PK_JSON json = NULL;
        int r = pk_json_load(path, &json, NULL);
        count++;
        bool must = pk_str_starts(name, "y_") && !is_refused(name);
        bool must_not = pk_str_starts(name, "n_") || is_refused(name);
        if ((must && r < 0) || (must_not && r >= 0))
            fail_msg("%s: %d", name, r);
    }
    (void)closedir(dir);
    assert_true(count > 100);
}

int main(void)
{
    const char *data = getenv("PICKET_SHARED_DATA"), *source = getenv("PICKET_SOURCE");
    if (data != NULL)
        (void)snprintf(folder, sizeof(folder), "%s/json/test_parsing", data);
    else
        (void)snprintf(folder, sizeof(folder), "%s/../shared/data/json/test_parsing",
                       source == NULL ? "." : source);
    if (access(folder, R_OK) != 0) {
        printf("1..0 # SKIP no %s\n", folder);
        return 0;
    }
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_the_suite) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
