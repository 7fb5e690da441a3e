/* SPDX-License-Identifier: Apache-2.0 */
/* 'picket doctor': one table of checks, none of which changes anything. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/doctor.h"

static const struct check {
    const char *group, *name;
    void (*run)(struct pk_doctor *doctor);
    bool before_install; /* also makes sense on a machine that has nothing of picket yet: --pre */
} checks[] = {
    { "kernel", "version", pk_doctor_kernel_version, true },
    { "kernel", "capabilities", pk_doctor_capabilities, true },
    { "kernel", "cgroups", pk_doctor_cgroups, true },
    { "bpf", "load", pk_doctor_bpf_load, true },
    { "bpf", "maps", pk_doctor_bpf_features, true },
    { "bpf", "compiler", pk_doctor_bpf_jit, true },
    { "bpf", "file-system", pk_doctor_bpf_fs, true },
    { "bpf", "veth", pk_doctor_xdp_veth, true },
    { "podman", "api", pk_doctor_podman, false },
    { "podman", "runtime", pk_doctor_runtime, false },
    { "podman", "limits", pk_doctor_limits, true },
    { "tools", "programs", pk_doctor_programs, false },
    { "tools", "duckdb", pk_doctor_duckdb, false },
    { "storage", "space", pk_doctor_space, true },
    { "storage", "file-system", pk_doctor_filesystem, true },
    { "nic", "interfaces", pk_doctor_interfaces, true },
    { "host", "memory", pk_doctor_memory, true },
    { "time", "clock", pk_doctor_clock, true },
};

static const struct {
    const char *word, *mark, *color;
} verdicts[] = {
    [PK_VERDICT_OK] = { "ok", "ok", "\033[32m" },
    [PK_VERDICT_NOTE] = { "note", "note", "\033[36m" },
    [PK_VERDICT_WARN] = { "warn", "WARN", "\033[33m" },
    [PK_VERDICT_FAIL] = { "fail", "FAIL", "\033[31m" },
    [PK_VERDICT_SKIPPED] = { "skipped", "skip", "\033[2m" },
};

void pk_doctor_report(struct pk_doctor *doctor, enum pk_verdict verdict, const char *fix,
                      const char *evidence, ...)
{
    char text[400];
    va_list args;
    va_start(args, evidence);
    (void)vsnprintf(text, sizeof(text), evidence, args);
    va_end(args);
    doctor->worst[verdict]++;
    (void)json_array_append_new(doctor->findings,
                                json_pack("{s:s, s:s, s:s, s:s, s:s}", "group", doctor->group,
                                          "check", doctor->check, "result", verdicts[verdict].word,
                                          "evidence", text, "fix", fix != NULL ? fix : ""));
}

struct args {
    const char *only;
    bool pre, exit_code;
};

static const struct pk_opt options[] = {
    { "only", 0, PK_OPT_STRING, "GROUPS", offsetof(struct args, only),
      "only these groups, with commas: kernel,bpf,podman,tools,storage,nic,host,time", NULL },
    { "pre", 0, PK_OPT_FLAG, NULL, offsetof(struct args, pre),
      "only what matters before anything is installed", NULL },
    { "exit-code", 0, PK_OPT_FLAG, NULL, offsetof(struct args, exit_code),
      "exit with 10 when there are warnings", NULL },
};

/* Is group in the list "a,b,c"? */
static bool listed(const char *list, const char *group)
{
    size_t len = strlen(group);
    for (const char *at = list; at != NULL;
         at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, group, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

static int check_only(const char *only, struct pk_error *err)
{
    const char *groups[PK_ARRAY_SIZE(checks)];
    for (size_t i = 0; i < PK_ARRAY_SIZE(checks); i++)
        groups[i] = checks[i].group;
    PK_CLEANUP(pk_free_p) char *copy = pk_strdup(only);
    char *rest = copy;
    for (char *word = strsep(&rest, ","); word != NULL; word = strsep(&rest, ",")) {
        bool known = false;
        for (size_t i = 0; i < PK_ARRAY_SIZE(checks); i++)
            known = known || strcmp(groups[i], word) == 0;
        if (known)
            continue;
        const char *near = pk_str_closest(word, groups, PK_ARRAY_SIZE(groups));
        (void)pk_fail(err, PK_E_USAGE, "--only: there is no group '%s'", word);
        return near != NULL ? pk_hint(err, "did you mean '%s'?", near)
                            : pk_hint(err, "groups: kernel,bpf,podman,tools,storage,nic,host,time");
    }
    return 0;
}

static void print_text(const struct pk_ctx *ctx, const struct pk_doctor *doctor)
{
    const char *group = "";
    size_t index;
    json_t *row;
    json_array_foreach(doctor->findings, index, row)
    {
        const char *its_group = pk_json_string_or(row, "group", "");
        const char *word = pk_json_string_or(row, "result", "");
        const char *fix = pk_json_string_or(row, "fix", "");
        size_t verdict = 0;
        while (verdict < PK_VERDICT_SKIPPED && strcmp(verdicts[verdict].word, word) != 0)
            verdict++;
        if (strcmp(group, its_group) != 0)
            (void)printf("%s%s\n", index > 0 ? "\n" : "", its_group);
        group = its_group;
        if (ctx->quiet && (verdict == PK_VERDICT_OK || verdict == PK_VERDICT_NOTE))
            continue;
        (void)printf("  %s%-4s%s  %-13s %s\n", ctx->color ? verdicts[verdict].color : "",
                     verdicts[verdict].mark, ctx->color ? "\033[0m" : "",
                     pk_json_string_or(row, "check", ""), pk_json_string_or(row, "evidence", ""));
        if (fix[0] != '\0')
            (void)printf("        %-13s -> %s\n", "", fix);
    }
    unsigned notes = doctor->worst[PK_VERDICT_NOTE], warnings = doctor->worst[PK_VERDICT_WARN];
    (void)printf("\n%u ok, %u note%s, %u warning%s, %u failed, %u skipped\n",
                 doctor->worst[PK_VERDICT_OK], notes, notes == 1 ? "" : "s", warnings,
                 warnings == 1 ? "" : "s", doctor->worst[PK_VERDICT_FAIL],
                 doctor->worst[PK_VERDICT_SKIPPED]);
}

static int run(struct pk_ctx *ctx, const void *raw_args, int argc, char **argv,
               struct pk_error *err)
{
    (void)argc;
    (void)argv;
    const struct args *args = raw_args;
    if (args->only != NULL) {
        int r = check_only(args->only, err);
        if (r < 0)
            return r;
    }
    PK_JSON findings = json_array();
    if (findings == NULL)
        return pk_no_memory(err);
    struct pk_doctor doctor = { .paths = ctx->paths, .findings = findings };
    for (size_t i = 0; i < PK_ARRAY_SIZE(checks); i++) {
        if ((args->only != NULL && !listed(args->only, checks[i].group)) ||
            (args->pre && !checks[i].before_install))
            continue;
        doctor.group = checks[i].group;
        doctor.check = checks[i].name;
        checks[i].run(&doctor);
    }
    if (ctx->output == PK_OUT_TABLE || ctx->output == PK_OUT_WIDE) {
        print_text(ctx, &doctor);
    } else {
        PK_JSON document =
            json_pack("{s:s, s:s, s:{s:i, s:i, s:i, s:i, s:i}, s:O}", "apiVersion",
                      "picket.dev/v1alpha1", "kind", "Doctor", "summary", "ok",
                      doctor.worst[PK_VERDICT_OK], "note", doctor.worst[PK_VERDICT_NOTE], "warn",
                      doctor.worst[PK_VERDICT_WARN], "fail", doctor.worst[PK_VERDICT_FAIL],
                      "skipped", doctor.worst[PK_VERDICT_SKIPPED], "checks", findings);
        int r = pk_out_document(ctx, document, err);
        if (r < 0)
            return r;
    }
    if (doctor.worst[PK_VERDICT_FAIL] > 0)
        return 1;
    return args->exit_code && doctor.worst[PK_VERDICT_WARN] > 0 ? 10 : 0;
}

static const char *const examples[] = { "picket doctor", "picket doctor --only nic,bpf",
                                        "picket doctor -o json", NULL };

const struct pk_cmd pk_cmd_doctor = {
    .name = "doctor",
    .group = "Look",
    .summary = "check whether this machine is fit, and say what to do",
    .details =
        "Looks at the kernel, BPF, capabilities, cgroups, Podman, storage, network interfaces and the clock. Each "
        "finding is ok, note, warn, fail or skipped, with the evidence and a fix. Changes nothing. Exit status 1 "
        "when a check failed.",
    .examples = examples,
    .opts = options,
    .opt_count = PK_ARRAY_SIZE(options),
    .args_size = sizeof(struct args),
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
