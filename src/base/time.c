/* SPDX-License-Identifier: Apache-2.0 */
#include "base/time.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/str.h"

static pk_nsec read_clock(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) < 0)
        return 0; /* cannot happen with the two clocks below */
    return (pk_nsec)now.tv_sec * PK_NSEC_PER_SEC + now.tv_nsec;
}

pk_nsec pk_time_now(void)
{
    return read_clock(CLOCK_REALTIME);
}

pk_nsec pk_time_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

void pk_sleep_ms(unsigned ms)
{
    struct timespec left = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * PK_NSEC_PER_MS };
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

char *pk_time_format(pk_nsec when, int decimals, char *out, size_t size)
{
    int64_t second = when / PK_NSEC_PER_SEC, fraction = when % PK_NSEC_PER_SEC;
    if (fraction < 0) {
        fraction += PK_NSEC_PER_SEC;
        second--;
    }
    time_t clock = (time_t)second;
    struct tm tm = { 0 };
    (void)gmtime_r(&clock, &tm);
    char digits[12];
    (void)snprintf(digits, sizeof(digits), ".%09lld", (long long)fraction);
    digits[decimals <= 0 ? 0 : 1 + PK_MIN(decimals, 9)] = '\0';
    (void)snprintf(out, size, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", tm.tm_year + 1900, tm.tm_mon + 1,
                   tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, digits);
    return out;
}

struct cursor {
    const char *at, *end;
};

static bool take_char(struct cursor *in, const char *accepted)
{
    if (in->at == in->end || *in->at == '\0' || strchr(accepted, *in->at) == NULL)
        return false;
    in->at++;
    return true;
}

/* Exactly count digits, at most max. */
static bool take_number(struct cursor *in, unsigned count, unsigned max, unsigned *ret_value)
{
    unsigned value = 0;
    if ((size_t)(in->end - in->at) < count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        unsigned digit = (unsigned)(unsigned char)in->at[i] - '0';
        if (digit > 9)
            return false;
        value = value * 10 + digit;
    }
    if (value > max)
        return false;
    in->at += count;
    *ret_value = value;
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Days from 1970-01-01 in the Gregorian calendar; years are counted from March so that the leap day
 * comes last. */
static int64_t days_since_epoch(unsigned year, unsigned month, unsigned day)
{
    int64_t y = (int64_t)year - (month <= 2 ? 1 : 0);
    int64_t m = month > 2 ? month - 3 : month + 9;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + (int64_t)day - 1 - 719468;
}

static bool take_date(struct cursor *in, int64_t *ret_days)
{
    unsigned year, month, day;
    if (!take_number(in, 4, 9999, &year) || !take_char(in, "-") ||
        !take_number(in, 2, 12, &month) || !take_char(in, "-") || !take_number(in, 2, 31, &day))
        return false;
    if (year == 0 || month == 0 || day == 0 || day > days_in_month(year, month))
        return false;
    *ret_days = days_since_epoch(year, month, day);
    return true;
}

/* Digits after the point beyond the ninth are dropped. */
static bool take_fraction(struct cursor *in, pk_nsec *ret_fraction)
{
    pk_nsec value = 0, unit = PK_NSEC_PER_SEC / 10;
    const char *start = in->at;
    for (; in->at < in->end && *in->at >= '0' && *in->at <= '9'; in->at++, unit /= 10)
        value += unit * (*in->at - '0');
    *ret_fraction = value;
    return in->at > start;
}

/* Seconds east of UTC. */
static bool take_offset(struct cursor *in, int64_t *ret_offset)
{
    *ret_offset = 0;
    if (take_char(in, "Zz"))
        return true;
    bool west = in->at < in->end && *in->at == '-';
    unsigned hours, minutes;
    if (!take_char(in, "+-") || !take_number(in, 2, 23, &hours))
        return false;
    (void)take_char(in, ":");
    if (!take_number(in, 2, 59, &minutes))
        return false;
    *ret_offset = (int64_t)hours * 3600 + (int64_t)minutes * 60;
    if (west)
        *ret_offset = -*ret_offset;
    return true;
}

static bool take_time(struct cursor *in, pk_nsec *ret_when)
{
    int64_t days, offset;
    unsigned hour, minute, second;
    pk_nsec fraction = 0;
    if (!take_date(in, &days) || !take_char(in, "Tt ") || !take_number(in, 2, 23, &hour) ||
        !take_char(in, ":") || !take_number(in, 2, 59, &minute) || !take_char(in, ":") ||
        !take_number(in, 2, 60, &second)) /* 60: a leap second is the next minute's first */
        return false;
    if (take_char(in, ".,") && !take_fraction(in, &fraction))
        return false;
    if (!take_offset(in, &offset))
        return false;
    int64_t seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset;
    return !__builtin_mul_overflow(seconds, PK_NSEC_PER_SEC, ret_when) &&
           !__builtin_add_overflow(*ret_when, fraction, ret_when);
}

int pk_time_parse(const char *text, size_t len, pk_nsec *ret_when, struct pk_error *err)
{
    struct cursor in = { text, text + len };
    pk_nsec when;
    if (!take_time(&in, &when) || in.at != in.end) {
        pk_fail(err, PK_E_INVALID, "'%.*s' is not a time", (int)PK_MIN(len, (size_t)60), text);
        pk_hint(err, "write a time as 2026-11-23T04:05:06Z");
        return PK_E_INVALID;
    }
    *ret_when = when;
    return 0;
}

int pk_time_parse_user(const char *text, pk_nsec now, pk_nsec *ret_when, struct pk_error *err)
{
    const pk_nsec day = 86400 * PK_NSEC_PER_SEC;
    pk_nsec midnight = now - now % day;
    if (now % day < 0)
        midnight -= day;
    pk_nsec value;
    int64_t days;
    struct cursor in = { text, text + strlen(text) };
    if (strcmp(text, "now") == 0)
        *ret_when = now;
    else if (strcmp(text, "today") == 0)
        *ret_when = midnight;
    else if (strcmp(text, "yesterday") == 0)
        *ret_when = midnight - day;
    else if (pk_parse_duration(text, &value, NULL) == 0 &&
             !__builtin_sub_overflow(now, value, &value))
        *ret_when = value;
    else if (pk_time_parse(text, strlen(text), &value, NULL) == 0)
        *ret_when = value;
    else if (take_date(&in, &days) && in.at == in.end && !__builtin_mul_overflow(days, day, &value))
        *ret_when = value;
    else {
        pk_fail(err, PK_E_INVALID, "'%.60s' is not a time", text);
        pk_hint(err, "write a span ago (1h, 2d), now, today, yesterday, 2026-11-23 or "
                     "2026-11-23T04:05:06Z");
        return PK_E_INVALID;
    }
    return 0;
}
