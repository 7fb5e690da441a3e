/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target on the files of folders, each whole and cut at up to 64 places. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "fuzz.h"

#define INPUT_MAX ((size_t)16 << 20)
#define CUTS      64u

/* A copy of exactly this size, so that a sanitizer sees each read beyond it. */
static void run_one(const char *data, size_t size)
{
    uint8_t *copy = pk_memdup(data, size);
    FUZZ_CHECK(copy != NULL);
    (void)LLVMFuzzerTestOneInput(copy, size);
    pk_free(copy);
}

static void run_file(const char *path)
{
    char *data = NULL;
    size_t len = 0;
    struct pk_error err = { 0 };
    if (pk_file_read(path, INPUT_MAX, &data, &len, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    run_one(data, len);
    size_t step = len / CUTS + 1;
    for (size_t cut = 0; cut < len; cut += step)
        run_one(data, cut);
    pk_free(data);
}

int main(int argc, char **argv)
{
    unsigned files = 0;
    for (int i = 1; i < argc; i++) {
        struct dirent **entries = NULL;
        int count = scandir(argv[i], &entries, NULL, alphasort);
        for (int n = 0; n < count; n++) {
            char *path = pk_path_join(argv[i], entries[n]->d_name);
            FUZZ_CHECK(path != NULL);
            if (entries[n]->d_name[0] != '.') {
                run_file(path);
                files++;
            }
            pk_free(path);
            free(entries[n]); /* of scandir(3) */
        }
        free(entries);
    }
    printf("%u inputs\n", files);
    return files == 0;
}
