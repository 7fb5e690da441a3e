/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of DuckDB's C API that the event store calls, declared here because the library comes
 * without a header, and taken from libduckdb.so at run time: everything else of picket works
 * without it. Signatures are those of DuckDB 1.x, whose C API is stable.
 */
#ifndef PICKET_STORE_DUCKDB_API_H
#define PICKET_STORE_DUCKDB_API_H

#include "base/common.h"
#include "base/error.h"

typedef uint64_t duckdb_idx;
typedef struct duckdb_database_s *duckdb_database;
typedef struct duckdb_connection_s *duckdb_connection;
typedef struct duckdb_prepared_s *duckdb_prepared;
typedef struct duckdb_pending_s *duckdb_pending;
typedef struct duckdb_appender_s *duckdb_appender;
typedef struct duckdb_type_s *duckdb_type;
typedef struct duckdb_chunk_s *duckdb_chunk;
typedef struct duckdb_vector_s *duckdb_vector;
typedef struct duckdb_function_s *duckdb_function;
typedef struct duckdb_function_info_s *duckdb_function_info;

struct duckdb_result { /* passed by value in places: the size is part of the ABI */
    duckdb_idx unused_[3];
    void *unused_columns_;
    char *unused_error_;
    void *internal;
};

union duckdb_string { /* 16 bytes: short texts inline, others by pointer */
    struct {
        uint32_t length;
        char prefix[4];
        char *pointer;
    } far;
    struct {
        uint32_t length;
        char text[12];
    } near;
};

enum { DUCKDB_OK = 0 };
enum { DUCKDB_BOOLEAN = 1, DUCKDB_BIGINT = 5, DUCKDB_VARCHAR = 17, DUCKDB_TIMESTAMP_NS = 22 };
#define DUCKDB_VECTOR_ROWS 2048u

/* clang-format off */
#define PK_DUCKDB_FUNCTIONS(F)                                                                     \
    F(const char *, library_version, (void))                                                       \
    F(int, open, (const char *path, duckdb_database *ret_db))                                      \
    F(void, close, (duckdb_database *db))                                                          \
    F(int, connect, (duckdb_database db, duckdb_connection *ret_connection))                       \
    F(void, disconnect, (duckdb_connection *connection))                                           \
    F(void, interrupt, (duckdb_connection connection))                                             \
    F(int, query, (duckdb_connection connection, const char *sql, struct duckdb_result *result))   \
    F(void, destroy_result, (struct duckdb_result *result))                                        \
    F(const char *, result_error, (struct duckdb_result *result))                                  \
    F(duckdb_idx, column_count, (struct duckdb_result *result))                                    \
    F(int, column_type, (struct duckdb_result *result, duckdb_idx column))                         \
    F(duckdb_chunk, fetch_chunk, (struct duckdb_result result))                                    \
    F(int, prepare, (duckdb_connection connection, const char *sql, duckdb_prepared *ret_stmt))    \
    F(const char *, prepare_error, (duckdb_prepared stmt))                                         \
    F(void, destroy_prepare, (duckdb_prepared *stmt))                                              \
    F(int, bind_int64, (duckdb_prepared stmt, duckdb_idx index, int64_t value))                    \
    F(int, bind_varchar_length, (duckdb_prepared stmt, duckdb_idx index, const char *text,         \
                                 duckdb_idx len))                                                  \
    F(int, pending_prepared, (duckdb_prepared stmt, duckdb_pending *ret_pending))                  \
    F(const char *, pending_error, (duckdb_pending pending))                                       \
    F(int, execute_pending, (duckdb_pending pending, struct duckdb_result *result))                \
    F(void, destroy_pending, (duckdb_pending *pending))                                            \
    F(int, appender_create, (duckdb_connection connection, const char *schema, const char *table,  \
                             duckdb_appender *ret_appender))                                       \
    F(const char *, appender_error, (duckdb_appender appender))                                    \
    F(int, appender_flush, (duckdb_appender appender))                                             \
    F(int, appender_destroy, (duckdb_appender *appender))                                          \
    F(int, append_data_chunk, (duckdb_appender appender, duckdb_chunk chunk))                      \
    F(duckdb_type, create_logical_type, (int type))                                                \
    F(void, destroy_logical_type, (duckdb_type *type))                                             \
    F(duckdb_chunk, create_data_chunk, (duckdb_type *types, duckdb_idx count))                     \
    F(void, destroy_data_chunk, (duckdb_chunk *chunk))                                             \
    F(void, data_chunk_reset, (duckdb_chunk chunk))                                                \
    F(duckdb_idx, data_chunk_get_size, (duckdb_chunk chunk))                                       \
    F(void, data_chunk_set_size, (duckdb_chunk chunk, duckdb_idx size))                            \
    F(duckdb_vector, data_chunk_get_vector, (duckdb_chunk chunk, duckdb_idx column))               \
    F(void *, vector_get_data, (duckdb_vector vector))                                             \
    F(uint64_t *, vector_get_validity, (duckdb_vector vector))                                     \
    F(void, vector_ensure_validity_writable, (duckdb_vector vector))                               \
    F(void, vector_assign_string_element_len, (duckdb_vector vector, duckdb_idx row,               \
                                               const char *text, duckdb_idx len))                  \
    F(duckdb_function, create_scalar_function, (void))                                             \
    F(void, destroy_scalar_function, (duckdb_function *function))                                  \
    F(void, scalar_function_set_name, (duckdb_function function, const char *name))                \
    F(void, scalar_function_add_parameter, (duckdb_function function, duckdb_type type))           \
    F(void, scalar_function_set_return_type, (duckdb_function function, duckdb_type type))         \
    F(void, scalar_function_set_function,                                                          \
      (duckdb_function function,                                                                   \
       void (*call)(duckdb_function_info info, duckdb_chunk input, duckdb_vector output)))         \
    F(int, register_scalar_function, (duckdb_connection connection, duckdb_function function))
/* clang-format on */

struct pk_duckdb {
#define PK_DUCKDB_MEMBER(result, name, parameters) result(*name) parameters;
    PK_DUCKDB_FUNCTIONS(PK_DUCKDB_MEMBER)
#undef PK_DUCKDB_MEMBER
};

/* Loads the library once per process; it stays loaded. Looked up: PICKET_DUCKDB (a file or folder),
 * beside the program, ../lib/picket from there, the folder given at build time. PK_E_NOTFOUND with
 * a hint. Any thread. */
int pk_duckdb_load(const struct pk_duckdb **ret_api, struct pk_error *err);

/* Runs statements without a result. what is for the error. */
int pk_duckdb_exec(const struct pk_duckdb *duck, duckdb_connection connection, const char *what,
                   const char *sql, struct pk_error *err);
/* An error from DuckDB's message: the code follows from it (disk full, out of memory, ...). */
int pk_duckdb_fail(struct pk_error *err, const char *what, const char *message);

static inline bool pk_duckdb_is_valid(const uint64_t *validity, duckdb_idx row)
{
    return validity == NULL || (validity[row / 64] >> (row % 64) & 1) != 0;
}

static inline const char *pk_duckdb_text(const union duckdb_string *string, size_t *ret_len)
{
    *ret_len = string->near.length;
    return string->near.length <= sizeof(string->near.text) ? string->near.text
                                                            : string->far.pointer;
}

#endif
