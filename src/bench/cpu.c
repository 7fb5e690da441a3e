/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU time. Work that the kernel does for a packet (softirq) runs within whatever task is there:
 * this program's threads or ksoftirqd, and is in their time; unless the kernel accounts interrupts
 * apart: then it is found in /proc/stat, which has other programs' too.
 */
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/time.h"
#include "bench/internal.h"

void bench_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

static bool interrupts_apart(void)
{
    const char *argv[] = { "zcat", "-f", "/proc/config.gz", NULL };
    struct pk_buf config = PK_BUF_INIT(1 << 20);
    int status = 1;
    bool apart = false;
    if (pk_proc_run(&(struct pk_proc_options){ .argv = argv, .timeout_ms = 10000 }, &config, NULL,
                    &status, NULL) >= 0 &&
        status == 0 && config.data != NULL)
        apart = strstr(config.data, "CONFIG_IRQ_TIME_ACCOUNTING=y\n") != NULL ||
                strstr(config.data, "CONFIG_VIRT_CPU_ACCOUNTING_GEN=y\n") != NULL;
    else
        apart = true; /* distributions' kernels have it; the worse for all ways alike */
    pk_buf_done(&config);
    return apart;
}

static bool is_worker(const char *pid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%.20s/comm", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool is = fgets(name, sizeof name, file) != NULL && pk_str_starts(name, "ksoftirqd/");
    (void)fclose(file);
    return is;
}

void bench_cpus_find(struct bench_cpus *cpus)
{
    cpu_set_t set;
    *cpus = (struct bench_cpus){ .generator = -1 };
    CPU_ZERO(&set);
    (void)sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set))
            continue;
        if (cpus->generator < 0)
            cpus->generator = cpu;
        else if (cpus->reader_count < PK_ARRAY_SIZE(cpus->readers))
            cpus->readers[cpus->reader_count++] = cpu;
    }
    if (cpus->generator < 0)
        cpus->generator = 0;
    if (cpus->reader_count == 0)
        cpus->readers[cpus->reader_count++] = cpus->generator;
    cpus->interrupts_apart = interrupts_apart();
    DIR *dir = opendir("/proc");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        uint64_t pid;
        if (pk_parse_u64(entry->d_name, &pid, NULL) >= 0 && is_worker(entry->d_name) &&
            cpus->worker_count < PK_ARRAY_SIZE(cpus->workers))
            cpus->workers[cpus->worker_count++] = (pid_t)pid;
    }
    if (dir != NULL)
        (void)closedir(dir);
}

/* A number of the first line of a file of the kernel's; words count from 0. */
static uint64_t read_number(const char *path, unsigned word)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len = 0;
    uint64_t number = 0;
    if (pk_file_read(path, 1 << 20, &text, &len, NULL) < 0)
        return 0;
    char *at = text + strspn(text, " ");
    for (; word > 0; word--) {
        at += strcspn(at, " \n");
        at += strspn(at, " ");
    }
    at[strcspn(at, " \n")] = '\0';
    return pk_parse_u64(at, &number, NULL) >= 0 ? number : 0;
}

/* ns on a CPU, of a schedstat file. */
static uint64_t on_cpu(const char *path)
{
    return read_number(path, 0);
}

static uint64_t threads_of(pid_t pid)
{
    char path[300];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, entry->d_name);
        sum += on_cpu(path);
    }
    if (dir != NULL)
        (void)closedir(dir);
    return sum;
}

static uint64_t interrupt_time(void)
{
    /* cpu user nice system idle iowait irq softirq */
    return read_number("/proc/stat", 7) * (PK_NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t of_timeval(struct timeval time)
{
    return (uint64_t)time.tv_sec * PK_NSEC_PER_SEC + (uint64_t)time.tv_usec * 1000;
}

uint64_t bench_cpu_time(const struct bench_cpus *cpus, pid_t helper)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    uint64_t sum = of_timeval(usage.ru_utime) + of_timeval(usage.ru_stime);
    for (unsigned i = 0; i < cpus->worker_count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/schedstat", cpus->workers[i]);
        sum += on_cpu(path);
    }
    if (helper > 0)
        sum += threads_of(helper);
    if (cpus->interrupts_apart)
        sum += interrupt_time();
    return sum;
}
