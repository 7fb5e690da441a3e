/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "base/buf.h"
#include "base/json.h"
#include "spec/schema.h"

static const char *const small =
    "apiVersion: picket.dev/v1alpha1\n"
    "kind: Fleet\n"
    "metadata: {name: f}\n"
    "spec:\n"
    "  taps: [{name: t, replay: }]\n"
    "  groups: [{name: g, taps: [t], tools: [{package: suricata@7}]}]\n";

static const char *const with_tenants =
    "apiVersion: picket.dev/v1alpha1\n"
    "kind: Fleet\n"
    "metadata: {name: f}\n"
    "spec:\n"
    "  taps: [{name: t, replay: }, {name: u, replay: }]\n"
    "  tenants:\n"
    "    - {name: lab, match: {vlans: [0x6e, '111', '100.200'], vnis: [0, 7001], greKeys: "
    "[4294967295],\n       erspanSessions: [1023], prefixes: [10.0.0.0/8, 2001:DB8::1]}}\n"
    "    - {name: hall, match: {taps: [u]}, priority: 7}\n"
    "  groups:\n"
    "    - {name: a, taps: [t, u], tenant: lab, tools: [{package: suricata@7}]}\n"
    "    - {name: b, taps: [t, u], tenant: lab, filter: {ports: [53]}, tools: [{package: suricata@7}]}\n"
    "    - {name: c, taps: [t], tools: [{package: suricata@7}]}\n";

static struct pk_fleet_spec *parse_good(const char *text)
{
    struct pk_errors errors = { 0 };
    struct pk_fleet_spec *fleet = NULL;
    if (pk_spec_parse("good.yaml", text, strlen(text), &fleet, &errors) < 0)
        print_error("%u:%u: %s\n", errors.list[0].line, errors.list[0].col, errors.list[0].msg);
    assert_non_null(fleet);
    assert_int_equal(errors.count, 0);
    return fleet;
}

static void test_defaults_are_filled_in(void **state)
{
    (void)state;
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = parse_good(small);
    assert_string_equal(fleet->name, "f");
    assert_int_equal(fleet->tap_count, 1);
    assert_int_equal(fleet->taps[0].kind, PK_TAP_REPLAY);
    assert_int_equal(fleet->taps[0].mtu, 9216);
    assert_null(fleet->taps[0].interface);
    assert_int_equal(fleet->group_count, 1);
    assert_int_equal(fleet->groups[0].lanes, 0);
    assert_int_equal(fleet->groups[0].cpu, PK_CPU_SHARED);
    assert_int_equal(fleet->groups[0].taps.count, 1);
    assert_string_equal(fleet->groups[0].taps.list[0], "t");
    const struct pk_tool_spec *tool = &fleet->groups[0].tools[0];
    assert_string_equal(tool->name, "suricata");
    assert_string_equal(tool->package, "suricata");
    assert_string_equal(tool->version, "7");
    assert_true(tool->memory_bytes == 2ull << 30);
    assert_true(json_is_object(tool->values));
    assert_null(tool->values_node);
    assert_int_equal(tool->package_pos.line, 6);
    assert_int_equal(tool->package_pos.col, 51);
    assert_true(fleet->store.retain == 30 * 86400 * PK_NSEC_PER_SEC);
    assert_true(fleet->store.max_bytes == 50ull << 30);
    assert_true(fleet->store.seal_after == 5 * PK_NSEC_PER_SEC);
}

static void test_tenants(void **state)
{
    (void)state;
    PK_CLEANUP(pk_spec_free_p)
    struct pk_fleet_spec *fleet = parse_good(with_tenants);
    assert_int_equal(fleet->tenant_count, 2);
    const struct pk_tenant_spec *lab = pk_spec_tenant(fleet, "lab");
    const struct pk_tenant_spec *hall = pk_spec_tenant(fleet, "hall");
    assert_null(pk_spec_tenant(fleet, "attic"));
    assert_int_equal(lab->priority, 100);
    assert_int_equal(hall->priority, 7);
    assert_true(pk_tenant_has_tap(lab, "t"));
    assert_true(pk_tenant_has_tap(hall, "u"));
    assert_false(pk_tenant_has_tap(hall, "t"));
    PK_JSON json = pk_tenant_to_json(lab);
    PK_JSON want = json_pack("{s:s,s:[iis],s:[ii],s:[I],s:[i],s:[ss]}", "name", "lab", "vlans", 110,
                             111, "100.200", "vnis", 0, 7001, "greKeys", (json_int_t)4294967295,
                             "erspanSessions", 1023, "prefixes", "10.0.0.0/8", "2001:db8::1/128");
    assert_true(json_equal(json, want));
    PK_JSON all = pk_tenant_to_json(hall);
    assert_int_equal(json_object_size(all), 1);
    assert_string_equal(fleet->groups[0].tenant, "lab");
    assert_null(fleet->groups[0].filter);
    assert_true(json_is_object(fleet->groups[1].filter));
    assert_null(fleet->groups[2].tenant);
}

/* The bound holds before anything is compared with everything. */
static void test_too_many_selectors(void **state)
{
    (void)state;
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT(1 << 20);
    (void)pk_buf_puts(&text, "apiVersion: picket.dev/v1alpha1\nkind: Fleet\nmetadata: {name: f}\n"
                             "spec:\n  taps: [{name: t, replay: }]\n  groups: [{name: g, taps: "
                             "[t], tools: [{package: suricata@7}]}]\n  tenants:\n");
    for (unsigned t = 0; t < 17; t++) {
        (void)pk_buf_printf(&text, "    - {name: t%u, match: {vnis: [", t);
        for (unsigned i = 0; i < 256; i++)
            (void)pk_buf_printf(&text, "%u, ", t * 1000 + i);
        (void)pk_buf_puts(&text, "]}}\n");
    }
    struct pk_errors errors = { 0 };
    struct pk_fleet_spec *fleet = NULL;
    assert_int_equal(pk_spec_parse("many.yaml", text.data, text.len, &fleet, &errors),
                     PK_E_INVALID);
    assert_int_equal(errors.count, 1);
    assert_non_null(strstr(errors.list[0].msg, "4352 selectors"));
    pk_errors_done(&errors);
}

static void test_example_is_valid_and_has_every_key(void **state)
{
    (void)state;
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = parse_good(pk_spec_example());
    for (size_t i = 1; i < pk_fleet_table.count; i++) {
        const char *key = pk_field_key(&pk_fleet_table.fields[i]);
        char with_colon[64];
        (void)snprintf(with_colon, sizeof(with_colon), "%s:", key);
        if (strchr(key, '[') == NULL && strstr(pk_spec_example(), with_colon) == NULL)
            fail_msg("the example lacks %s", pk_fleet_table.fields[i].path);
    }
}

static void test_canonical_print_is_stable(void **state)
{
    (void)state;
    const char *texts[] = { small, pk_spec_example() };
    for (size_t i = 0; i < PK_ARRAY_SIZE(texts); i++)
        for (int defaults = 0; defaults < 2; defaults++) {
            PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = parse_good(texts[i]);
            PK_CLEANUP(pk_free_p) char *once = pk_spec_to_yaml(fleet, defaults != 0);
            assert_non_null(once);
            PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *again = parse_good(once);
            PK_CLEANUP(pk_free_p) char *twice = pk_spec_to_yaml(again, defaults != 0);
            assert_string_equal(once, twice);
        }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    const char *const texts[] = { small, with_tenants };
    for (size_t i = 0; i < PK_ARRAY_SIZE(texts); i++) {
        int r = 0;
        PK_TEST_EACH_ALLOC_FAILS(r, {
            struct pk_errors errors = { 0 };
            struct pk_fleet_spec *fleet = NULL;
            r = pk_spec_parse("good.yaml", texts[i], strlen(texts[i]), &fleet, &errors);
            assert_true((r == 0) == (fleet != NULL));
            pk_spec_free(fleet);
            pk_errors_done(&errors);
        });
        assert_int_equal(r, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_filled_in),
        cmocka_unit_test(test_tenants),
        cmocka_unit_test(test_too_many_selectors),
        cmocka_unit_test(test_example_is_valid_and_has_every_key),
        cmocka_unit_test(test_canonical_print_is_stable),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
