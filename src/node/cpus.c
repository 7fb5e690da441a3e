/* SPDX-License-Identifier: Apache-2.0 */
/* How busy the processors are, and how long a process waits for them. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/str.h"
#include "node/overload.h"

#define THREADS_MAX 4096u

/* The number at *at, which moves behind it. False: there is none. */
static bool take(const char **at, uint64_t *ret_value)
{
    char word[24];
    const char *start = *at + strspn(*at, " ");
    size_t len = strspn(start, "0123456789");
    if (len == 0 || len >= sizeof word)
        return false;
    memcpy(word, start, len);
    word[len] = '\0';
    *at = start + len;
    return pk_parse_u64(word, ret_value, NULL) == 0;
}

static void update_one(struct pk_cpus *cpus, const char *line)
{
    /* "cpu0 user nice system idle iowait irq softirq steal guest guest_nice": proc(5) */
    enum { IDLE = 3, IOWAIT = 4, IRQ = 5, SOFTIRQ = 6, FIELDS = 8 };
    uint64_t values[FIELDS] = { 0 }, cpu = 0, all = 0;
    const char *at = line + strlen("cpu");
    if (!take(&at, &cpu) || cpu >= PK_CPUS_MAX)
        return;
    for (size_t i = 0; i < FIELDS && take(&at, &values[i]); i++)
        all += values[i];
    uint64_t idle = values[IDLE] + values[IOWAIT], soft = values[IRQ] + values[SOFTIRQ];
    bool first = cpus->all[cpu] == 0;
    double passed = (double)all - (double)cpus->all[cpu];
    double unused = (double)idle - (double)cpus->idle[cpu];
    double receiving = (double)soft - (double)cpus->softirq[cpu];
    cpus->there[cpu] = true;
    cpus->busy[cpu] = cpus->soft[cpu] = 0;
    if (!first && passed > 0) { /* idle time may go back: proc(5) */
        cpus->busy[cpu] = PK_MIN(PK_MAX(1 - unused / passed, 0), 1);
        cpus->soft[cpu] = PK_MIN(PK_MAX(receiving / passed, 0), 1);
    }
    cpus->all[cpu] = all;
    cpus->idle[cpu] = idle;
    cpus->softirq[cpu] = soft;
}

void pk_cpus_update(struct pk_cpus *cpus, const char *text)
{
    memset(cpus->there, 0, sizeof cpus->there);
    for (const char *line = text; pk_str_starts(line, "cpu"); line++) {
        if (line[3] >= '0' && line[3] <= '9')
            update_one(cpus, line);
        line += strcspn(line, "\n");
        if (*line == '\0')
            return;
    }
}

uint64_t pk_process_waited(pid_t pid)
{
    char path[64];
    uint64_t sum = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return 0;
    const struct dirent *entry;
    for (unsigned seen = 0; seen < THREADS_MAX && (entry = readdir(dir)) != NULL; seen++) {
        char text[96];
        uint64_t ran = 0, waited = 0;
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "%.20s/schedstat", entry->d_name);
        PK_CLEANUP(pk_close_p) int fd = openat(dirfd(dir), path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        if (n <= 0)
            continue;
        text[n] = '\0';
        const char *at = text; /* nanoseconds run and waited, and time slices */
        if (take(&at, &ran) && take(&at, &waited))
            sum += waited;
    }
    (void)closedir(dir);
    return sum;
}
