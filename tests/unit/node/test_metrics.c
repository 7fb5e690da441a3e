/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's metrics: the text's form (OpenMetrics 1.0), checked line by line, and its contents.
 */
#include "pk_test.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "node/metrics.h"

static const struct pk_metrics_agent agent = { .start_time = 1700000000.5,
                                               .sweep_seconds = 0.25,
                                               .sweeps = 100 };

static const char plane_text[] =
    "{\"taps\":[{\"fleet\":\"f\",\"name\":\"up\",\"state\":\"up\",\"packets\":10,\"bytes\":1000,"
    "\"dropped\":3,\"reasons\":{\"non-ip\":2,\"too-deep\":1},\"nic\":{\"lost\":{\"ring\":4}},"
    "\"tenants\":[{\"name\":\"\",\"packets\":1,\"bytes\":60},"
    "{\"name\":\"lab\",\"packets\":9,\"bytes\":940}]}],"
    "\"groups\":[{\"fleet\":\"f\",\"name\":\"g\",\"tenant\":\"lab\",\"packets\":9,\"filtered\":2,"
    "\"noLane\":1,\"sent\":6}],"
    "\"lanes\":[{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"state\":\"ready\",\"slots\":65537,"
    "\"canary\":{\"state\":\"silent\",\"sent\":9,\"seen\":4},"
    "\"sent\":6,\"packets\":5,\"bytes\":500,\"unread\":1,\"blocked\":0}]}";

static char *write_text(const json_t *plane)
{
    struct pk_buf buf = PK_BUF_INIT(PK_METRICS_MAX);
    assert_int_equal(pk_metrics_write(plane, &agent, &buf), 0);
    return pk_buf_take(&buf);
}

static json_t *parse(const char *text)
{
    json_t *json = NULL;
    assert_int_equal(pk_json_parse("plane", text, strlen(text), &json, NULL), 0);
    return json;
}

/* ---- a strict reader of the format ---- */

struct reader {
    char family[128], type[32];
    struct pk_strv families, samples;
    bool help, unit, ended;
};

static size_t name_len(const char *text)
{
    size_t len = 0;
    while (isalnum((unsigned char)text[len]) || text[len] == '_' || text[len] == ':')
        len++;
    assert_true(len > 0 && !isdigit((unsigned char)text[0]));
    return len;
}

/* {name="value",...}: the end of it */
static const char *read_labels(const char *at)
{
    struct pk_strv names = { 0 };
    do {
        at++;
        size_t len = name_len(at);
        char name[64];
        assert_true(len < sizeof(name));
        memcpy(name, at, len);
        name[len] = '\0';
        assert_false(pk_strv_contains(&names, name));
        assert_int_equal(pk_strv_add(&names, name), 0);
        at += len;
        assert_int_equal(*at++, '=');
        assert_int_equal(*at++, '"');
        for (; *at != '"'; at++) {
            assert_true((unsigned char)*at >= 0x20);
            if (*at == '\\') {
                at++;
                assert_true(*at == '\\' || *at == '"' || *at == 'n');
            }
        }
        at++;
    } while (*at == ',');
    assert_int_equal(*at, '}');
    pk_strv_done(&names);
    return at + 1;
}

static void read_meta(struct reader *reader, const char *line)
{
    char what[16], name[128], rest[256] = "";
    assert_true(sscanf(line, "# %15s %127s %255[^\n]", what, name, rest) >= 2);
    assert_int_equal(name_len(name), strlen(name));
    if (strcmp(what, "TYPE") == 0) {
        assert_false(pk_strv_contains(&reader->families, name)); /* a family is in one piece */
        assert_int_equal(pk_strv_add(&reader->families, name), 0);
        (void)snprintf(reader->family, sizeof(reader->family), "%s", name);
        (void)snprintf(reader->type, sizeof(reader->type), "%.31s", rest);
        reader->help = reader->unit = false;
        assert_true(strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 ||
                    strcmp(rest, "summary") == 0 || strcmp(rest, "info") == 0);
        return;
    }
    assert_string_equal(name, reader->family);
    if (strcmp(what, "UNIT") == 0) {
        assert_false(reader->unit || reader->help);
        assert_true(pk_str_ends(name, rest) && name[strlen(name) - strlen(rest) - 1] == '_');
        reader->unit = true;
    } else {
        assert_string_equal(what, "HELP");
        assert_false(reader->help);
        assert_true(strlen(rest) > 5 && rest[strlen(rest) - 1] == '.');
        reader->help = true;
    }
}

static void read_sample(struct reader *reader, const char *line)
{
    static const struct {
        const char *type, *suffix;
    } suffixes[] = { { "counter", "_total" },
                     { "gauge", "" },
                     { "summary", "_count" },
                     { "summary", "_sum" },
                     { "info", "_info" } };
    size_t len = name_len(line);
    char name[128], expected[192];
    assert_true(len < sizeof(name));
    memcpy(name, line, len);
    name[len] = '\0';
    bool fits = false;
    for (size_t i = 0; i < PK_ARRAY_SIZE(suffixes); i++) {
        (void)snprintf(expected, sizeof(expected), "%s%s", reader->family, suffixes[i].suffix);
        fits |= strcmp(suffixes[i].type, reader->type) == 0 && strcmp(expected, name) == 0;
    }
    if (!fits)
        fail_msg("'%s' is in family %s (%s)", name, reader->family, reader->type);
    const char *at = line + len;
    if (*at == '{')
        at = read_labels(at);
    PK_CLEANUP(pk_free_p) char *series = pk_strndup(line, (size_t)(at - line));
    if (pk_strv_contains(&reader->samples, series))
        fail_msg("%s is there twice", series);
    assert_int_equal(pk_strv_add(&reader->samples, series), 0);
    assert_int_equal(*at++, ' ');
    double value = 0;
    assert_int_equal(pk_parse_double(at, &value, NULL), 0);
    assert_true(value >= 0);
}

/* The whole text; every line ends, "# EOF" is last. */
static void check_format(char *text)
{
    struct reader reader = { 0 };
    char *line = text;
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        assert_false(reader.ended);
        if (strcmp(line, "# EOF") == 0)
            reader.ended = true;
        else if (line[0] == '#')
            read_meta(&reader, line);
        else
            read_sample(&reader, line);
        *end = '\n';
    }
    assert_int_equal(*line, '\0');
    assert_true(reader.ended);
    pk_strv_done(&reader.families);
    pk_strv_done(&reader.samples);
}

static void test_form(void **state)
{
    (void)state;
    PK_JSON plane = parse(plane_text);
    PK_CLEANUP(pk_free_p) char *text = write_text(plane);
    check_format(text);
    static const char *const lines[] = {
        "\npicket_tap_packets_total{fleet=\"f\",tap=\"up\"} 10\n",
        "\npicket_tap_reason_packets_total{fleet=\"f\",tap=\"up\",reason=\"too-deep\"} 1\n",
        "\npicket_tap_interface_lost_packets_total{fleet=\"f\",tap=\"up\",reason=\"ring\"} 4\n",
        "\npicket_tenant_packets_total{fleet=\"f\",tap=\"up\"} 1\n",
        "\npicket_tenant_bytes_total{fleet=\"f\",tap=\"up\",tenant=\"lab\"} 940\n",
        "\npicket_group_unsent_packets_total{fleet=\"f\",tenant=\"lab\",group=\"g\","
        "reason=\"filtered\"} 2\n",
        "\npicket_lane_ready{fleet=\"f\",group=\"g\",lane=\"0\"} 1\n",
        "\npicket_lane_canaries_sent_total{fleet=\"f\",group=\"g\",lane=\"0\"} 9\n",
        "\npicket_lane_canaries_seen_total{fleet=\"f\",group=\"g\",lane=\"0\"} 4\n",
        "\npicket_lane_silent{fleet=\"f\",group=\"g\",lane=\"0\"} 1\n",
        "\npicket_lane_slots{fleet=\"f\",group=\"g\",lane=\"0\"} 65537\n",
        "\npicket_agent_sweep_seconds_count 100\npicket_agent_sweep_seconds_sum 0.250000000\n",
        "\npicket_agent_start_time_seconds 1700000000.500\n",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(lines); i++)
        if (strstr(text, lines[i]) == NULL)
            fail_msg("no%sin\n%s", lines[i], text);
}

static void test_empty(void **state)
{
    (void)state;
    PK_JSON plane = parse("{\"taps\":[],\"groups\":[],\"lanes\":[]}");
    PK_CLEANUP(pk_free_p) char *text = write_text(plane);
    check_format(text);
}

/* Whatever a name holds, it stays within its quotes. */
static void test_labels_are_escaped(void **state)
{
    (void)state;
    PK_JSON plane = parse("{\"taps\":[{\"fleet\":\"a\\\"} 1\\n\\\\b\",\"name\":\"t\\u0001\\t\","
                          "\"packets\":1,\"reasons\":{\"x\\\"\\n\":7}}]}");
    PK_CLEANUP(pk_free_p) char *text = write_text(plane);
    check_format(text);
    assert_non_null(
        strstr(text, "picket_tap_packets_total{fleet=\"a\\\"} 1\\n\\\\b\",tap=\"t??\"} 1\n"));
}

static void test_bounded(void **state)
{
    (void)state;
    PK_JSON plane = parse(plane_text);
    struct pk_buf buf = PK_BUF_INIT(512);
    assert_int_equal(pk_metrics_write(plane, &agent, &buf), PK_E_NOSPACE);
    pk_buf_done(&buf);
}

/* ---- the manual's page ---- */

static const char *labels_of(const struct pk_metric *metric)
{
    static const struct {
        const char *list, *labels;
    } known[] = { { "taps", "`fleet`, `tap`" },
                  { "tenants", "`fleet`, `tap`, `tenant`" },
                  { "groups", "`fleet`, `tenant`, `group`" },
                  { "lanes", "`fleet`, `group`, `lane`" } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(known); i++)
        if (strcmp(known[i].list, metric->list) == 0)
            return known[i].labels;
    return metric->type == PK_METRIC_INFO ? "`version`" : "";
}

static bool has_reason(const struct pk_metric *metric)
{
    return metric->reason != NULL || strcmp(metric->path, "reasons") == 0 ||
           strcmp(metric->path, "nic.lost") == 0;
}

static void test_page(void **state)
{
    (void)state;
    struct pk_buf page = PK_BUF_INIT(1 << 20);
    (void)pk_buf_puts(
        &page,
        "# Metrics\n\nThe agent answers `GET /metrics` on its socket `<run>/node.sock`, and with "
        "`picket node --metrics 127.0.0.1:9433` (or\n`PICKET_METRICS`) on that address, in clear "
        "and to everybody who reaches it: put it on the loopback, or where only Prometheus is.\n"
        "The text is OpenMetrics 1.0. Counters begin with their tap, group or lane and go on when the agent is "
        "restarted; those of an interface are its own.\nLabels that are empty are left "
        "out. [The ledger](../ledger.md) says what each loss means.\n\n"
        "```yaml\nscrape_configs:\n  - job_name: picket\n    static_configs: "
        "[{targets: ['127.0.0.1:9433']}]\n```\n\n"
        "What a lane's receive ring has lost is the difference of two counters:\n\n"
        "```\nrate(picket_lane_sent_packets_total[5m]) - rate(picket_lane_packets_total[5m])\n```\n\n"
        "This page is written from the table in `src/node/metrics.c`.\n\n"
        "| metric | type | labels | meaning |\n|---|---|---|---|\n");
    size_t count = 0;
    const struct pk_metric *rows = pk_metrics_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(rows[i - 1].name, rows[i].name) == 0)
            continue;
        const char *labels = labels_of(&rows[i]);
        (void)pk_buf_printf(&page, "| `%s%s` | %s | %s%s | %s |\n", rows[i].name,
                            rows[i].type == PK_METRIC_COUNTER   ? "_total"
                            : rows[i].type == PK_METRIC_INFO    ? "_info"
                            : rows[i].type == PK_METRIC_SUMMARY ? "_sum`, `_count"
                                                                : "",
                            pk_metric_type_name(rows[i].type), labels,
                            has_reason(&rows[i]) ? ", `reason`" : "", rows[i].help);
    }
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/docs/reference/metrics.md", getenv("PICKET_SOURCE"));
    if (getenv("PK_UPDATE") != NULL)
        assert_int_equal(pk_file_write(path, page.data, page.len, 0644, NULL), 0);
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(pk_file_read(path, 1 << 20, &text, &len, NULL), 0);
    assert_string_equal(text, page.data);
    pk_free(text);
    pk_buf_done(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_page),
    };
    return cmocka_run_group_tests_name("node/metrics", tests, NULL, NULL);
}
