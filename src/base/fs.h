/* SPDX-License-Identifier: Apache-2.0 */
/* Files. All descriptors are O_CLOEXEC. Any thread. */
#ifndef PICKET_BASE_FS_H
#define PICKET_BASE_FS_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"

void pk_close_p(int *fd); /* PK_CLEANUP(pk_close_p) int fd = -1 */

/* The whole file, at most max bytes (PK_E_NOSPACE beyond). "-" is standard input. Release
 * *ret_data with pk_free(); it is NUL-terminated. */
int pk_file_read(const char *path, size_t max, char **ret_data, size_t *ret_len,
                 struct pk_error *err);
/* Replaces path at once: temporary file, fsync, rename, fsync of the folder. */
int pk_file_write(const char *path, const void *data, size_t len, mode_t mode,
                  struct pk_error *err);
bool pk_file_exists(const char *path);
int pk_mkdir_p(const char *path, mode_t mode, struct pk_error *err);
/* Removes a tree without following links or crossing file systems. Absent is success. */
int pk_rm_rf(const char *path, struct pk_error *err);
/* "a/b" joined into a new string, NULL when out of memory. A printf form covers the rest. */
char *pk_path_join(const char *dir, const char *name);
/* Takes an exclusive lock on path (created). PK_E_CONFLICT when another process holds it. The lock
 * goes with the descriptor. */
int pk_lock_file(const char *path, int *ret_fd, struct pk_error *err);
/* Free bytes for unprivileged writers on the file system that holds path. */
int pk_disk_free(const char *path, uint64_t *ret_bytes, struct pk_error *err);

#endif
