/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program that the engine tests run in containers; linked statically, so that its image is this
 * one file.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void leave(int signo)
{
    (void)signo;
    _exit(0);
}

static void show_status(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNewPrivs", 10) == 0 ||
            strncmp(line, "Seccomp:", 8) == 0 || strncmp(line, "Cpus_allowed_list", 17) == 0)
            fputs(line, stdout);
    if (file != NULL)
        fclose(file);
}

static void show(void)
{
    show_status();
    int fd = open("/new-file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    printf("root %s\n", fd < 0 ? "read-only" : "writable");
    fd = open("/tmp/new-file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    printf("tmp %s\n", fd < 0 ? "read-only" : "writable");
    fd = open("/data/new-file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    printf("data %s\n", fd < 0 ? "read-only" : "writable");
    fd = open("/config/new-file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    printf("config %s\n", fd < 0 ? "read-only" : "writable");
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    printf("nofile %lu\n", (unsigned long)limit.rlim_max);
    DIR *dir = opendir("/sys/class/net");
    for (struct dirent *entry = dir != NULL ? readdir(dir) : NULL; entry != NULL;
         entry = readdir(dir))
        if (entry->d_name[0] != '.')
            printf("link %s\n", entry->d_name);
    if (dir != NULL)
        closedir(dir);
    printf("end\n");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "run";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(what, "exit") == 0)
        return argc > 2 ? atoi(argv[2]) : 0;
    if (strcmp(what, "eat") == 0) {
        for (;;) {
            char *more = malloc(1 << 20);
            if (more != NULL)
                memset(more, 1, 1 << 20);
        }
    }
    if (strcmp(what, "show") == 0)
        show();
    /* The first process of a container gets only the signals that it asks for. */
    signal(SIGTERM, strcmp(what, "stubborn") == 0 ? SIG_IGN : leave);
    for (int i = 1; strcmp(what, "run") == 0 && i <= 5; i++)
        printf("line %d\n", i);
    for (;;)
        pause();
}
