/* SPDX-License-Identifier: Apache-2.0 */
/* Package manifests: a package in which everything is there, or faults with places. */
#include "base/alloc.h"
#include "catalog/internal.h"
#include "fuzz.h"

static void check_version(const struct pk_package_version *version)
{
    FUZZ_CHECK(version->argv.count > 0 && version->version[0] != '\0' && version->image[0] != '\0');
    FUZZ_CHECK(version->config_dir[0] == '/' && version->log_dir[0] == '/' &&
               version->run_dir[0] == '/');
    FUZZ_CHECK(version->pids_max > 0 && version->nofile > 0 && version->stop_timeout_ms > 0);
    FUZZ_CHECK(version->probe != PK_PROBE_SURICATA || version->probe_socket[0] != '\0');
    for (size_t i = 0; i < version->log_count; i++)
        FUZZ_CHECK(version->logs[i].glob[0] != '\0' && version->logs[i].format[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pk_package *package = NULL;
    struct pk_errors errors = { 0 };
    int r = pk_package_parse("input", (const char *)data, size, &package, &errors);
    FUZZ_CHECK((r == 0) == (package != NULL) && (r == 0) == (errors.count == 0));
    for (size_t i = 0; i < errors.count; i++) {
        FUZZ_CHECK(errors.list[i].code == PK_E_INVALID && errors.list[i].line > 0);
        FUZZ_CHECK(errors.list[i].msg[0] != '\0' && errors.list[i].hint[0] != '\0');
    }
    if (package != NULL) {
        size_t count;
        const struct pk_package_version *versions = pk_package_versions(package, &count);
        FUZZ_CHECK(count > 0);
        for (size_t i = 0; i < count; i++)
            check_version(&versions[i]);
    }
    pk_package_free(package);
    pk_errors_done(&errors);

    package = NULL;
    pk_alloc_fail_nth(size % 64 + 1);
    r = pk_package_parse("input", (const char *)data, size, &package, &errors);
    pk_alloc_fail_nth(0);
    FUZZ_CHECK((r == 0) == (package != NULL));
    pk_package_free(package);
    pk_errors_done(&errors);
    return 0;
}
