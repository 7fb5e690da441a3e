/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static atomic_int log_level = PK_LOG_INFO;
static atomic_bool log_json;

void pk_log_setup(enum pk_log_level level, bool json)
{
    atomic_store(&log_level, (int)level);
    atomic_store(&log_json, json);
}

/* A line under construction. Fixed size: logging must work when memory is gone. Room for the end is
 * kept back, so a line that is cut is still whole. */
struct line {
    char text[2048];
    size_t len;
};
#define LINE_END_ROOM 8

static void put(struct line *line, const char *text, size_t len)
{
    if (len > sizeof(line->text) - LINE_END_ROOM - line->len)
        return;
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

static void puts_raw(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* What comes from outside may hold line feeds and terminal codes: none gets through. */
static void puts_escaped(struct line *line, const char *text, bool json)
{
    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        char code[8];
        if (json && (c == '"' || c == '\\'))
            (void)snprintf(code, sizeof(code), "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            (void)snprintf(code, sizeof(code), json ? "\\u%04x" : "\\x%02x", c);
        else
            (void)snprintf(code, sizeof(code), "%c", c);
        puts_raw(line, code);
    }
}

static void emit(enum pk_log_level level, const char *area, const char *message)
{
    struct line line = { .len = 0 };
    bool json = atomic_load(&log_json);
    char when[40];
    (void)pk_time_format(pk_time_now(), 3, when, sizeof(when));
    if (json) {
        puts_raw(&line, "{\"time\":\"");
        puts_raw(&line, when);
        puts_raw(&line, "\",\"level\":\"");
        puts_raw(&line, level_names[level]);
        puts_raw(&line, "\",\"area\":\"");
        puts_escaped(&line, area, true);
        puts_raw(&line, "\",\"message\":\"");
        puts_escaped(&line, message, true);
        memcpy(line.text + line.len, "\"}\n", 3);
        line.len += 3;
    } else {
        puts_raw(&line, when);
        puts_raw(&line, " ");
        puts_raw(&line, level_names[level]);
        puts_raw(&line, " ");
        puts_escaped(&line, area, false);
        puts_raw(&line, ": ");
        puts_escaped(&line, message, false);
        line.text[line.len++] = '\n';
    }
    int saved = errno;
    while (write(STDERR_FILENO, line.text, line.len) < 0 && errno == EINTR)
        ;
    errno = saved;
}

static bool wanted(enum pk_log_level level)
{
    return (int)level <= atomic_load(&log_level);
}

void pk_log(enum pk_log_level level, const char *area, const char *fmt, ...)
{
    if (!wanted(level))
        return;
    char message[1536];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    emit(level, area, message);
}

void pk_log_error(enum pk_log_level level, const char *area, const struct pk_error *err,
                  const char *fmt, ...)
{
    if (!wanted(level))
        return;
    char what[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    char where[224] = "";
    if (err->file[0] != '\0')
        (void)snprintf(where, sizeof(where), " at %s:%u:%u", err->file, err->line, err->col);
    bool hint = err->hint[0] != '\0';
    char message[1536];
    (void)snprintf(message, sizeof(message), "%s: %s [%s]%s%s%s%s", what, err->msg,
                   pk_code_info(err->code)->name, where, hint ? " (" : "", hint ? err->hint : "",
                   hint ? ")" : "");
    emit(level, area, message);
}
