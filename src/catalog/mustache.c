/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mustache in two steps: the text becomes a list of tokens (where lines that hold only a tag
 * vanish, as the specification wants), then the tokens are walked with a stack of contexts.
 * Templates come with packages and values from users, so depth, work and output are bounded.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "catalog/catalog.h"
#include "spec/fields.h"

#define OUTPUT_MAX  (16u << 20)
#define DEPTH_MAX   64u /* of sections and partials together */
#define STEPS_MAX   5000000u
#define DELIMIT_MAX 15u

enum token_kind {
    TOKEN_TEXT,
    TOKEN_VALUE,
    TOKEN_RAW,
    TOKEN_SECTION,
    TOKEN_INVERTED,
    TOKEN_END,
    TOKEN_PARTIAL
};

struct token {
    enum token_kind kind;
    const char *text; /* literal text, or the tag's name */
    size_t len;
    const char *indent; /* TOKEN_PARTIAL alone on its line: the white space before it */
    size_t indent_len;
    size_t end; /* TOKEN_SECTION, TOKEN_INVERTED: the matching TOKEN_END */
};

struct parsed {
    struct token *tokens;
    size_t count, capacity;
};

struct template
{
    const char *name, *text, *end;
};

struct renderer {
    const json_t *stack[DEPTH_MAX];
    unsigned depth;
    unsigned long steps;
    bool escape;
    struct pk_buf out;
    int out_code; /* of the first append that failed */
    int (*partial)(void *arg, const char *name, const char **ret_text, size_t *ret_len);
    void *partial_arg;
    struct pk_error *err;
};

static int fail_at(const struct template *template, const char *at, struct pk_error *err,
                   const char *hint, const char *what, const char *name, size_t name_len)
{
    unsigned line = 1, col = 1;
    for (const char *p = template->text; p < at; p++) {
        col = *p == '\n' ? 1 : col + 1;
        line += *p == '\n';
    }
    char shown[64], quoted[100];
    (void)snprintf(shown, sizeof(shown), "%.*s", (int)PK_MIN(name_len, sizeof(shown) - 1), name);
    pk_fail(err, PK_E_INVALID, "%s%s%s", what, name_len > 0 ? " " : "",
            name_len > 0 ? pk_quote(shown, quoted, sizeof(quoted)) : "");
    pk_error_at(err, template->name, line, col);
    (void)pk_hint(err, "%s", hint);
    return PK_E_INVALID;
}

static int add_token(struct parsed *parsed, struct token token, struct pk_error *err)
{
    if (token.kind == TOKEN_TEXT && token.len == 0)
        return 0;
    if (parsed->count == parsed->capacity) {
        size_t capacity = PK_MAX(parsed->capacity * 2, (size_t)32);
        struct token *grown = pk_realloc_array(parsed->tokens, capacity, sizeof(*grown));
        if (grown == NULL)
            return pk_fail(err, PK_E_NOMEM, "template: out of memory");
        parsed->tokens = grown;
        parsed->capacity = capacity;
    }
    parsed->tokens[parsed->count++] = token;
    return 0;
}

static const char *find(const char *at, const char *end, const char *what)
{
    return memmem(at, (size_t)(end - at), what, strlen(what));
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && (is_blank(**text) || **text == '\n' || **text == '\r')) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 &&
           (is_blank((*text)[*len - 1]) || (*text)[*len - 1] == '\n' || (*text)[*len - 1] == '\r'))
        (*len)--;
}

/* Whether [tag, after) is alone on its line; then *ret_line is the line's start and *ret_next the
 * next line's. */
static bool alone(const struct template *template, const char *tag, const char *after,
                  const char **ret_line, const char **ret_next)
{
    const char *line = tag, *next = after;
    while (line > template->text && is_blank(line[-1]))
        line--;
    if (line > template->text && line[-1] != '\n')
        return false;
    while (next < template->end && is_blank(*next))
        next++;
    if (next + 1 < template->end && next[0] == '\r' && next[1] == '\n')
        next++;
    if (next < template->end && *next != '\n')
        return false;
    *ret_line = line;
    *ret_next = next < template->end ? next + 1 : next;
    return true;
}

/* "=<% %>=": the part between the equal signs. */
static bool set_delimiters(const char *text, size_t len, char *open, char *close)
{
    trim(&text, &len);
    size_t first = 0, last = len;
    while (first < len && !is_blank(text[first]) && text[first] != '\n')
        first++;
    while (last > first && !is_blank(text[last - 1]) && text[last - 1] != '\n')
        last--;
    size_t close_len = len - last;
    if (first == 0 || first == len || close_len == 0 || first > DELIMIT_MAX ||
        close_len > DELIMIT_MAX)
        return false;
    for (size_t i = first; i < last; i++)
        if (!is_blank(text[i]) && text[i] != '\n')
            return false;
    if (memchr(text, '=', len) != NULL)
        return false;
    (void)snprintf(open, DELIMIT_MAX + 1, "%.*s", (int)first, text);
    (void)snprintf(close, DELIMIT_MAX + 1, "%.*s", (int)close_len, text + last);
    return true;
}

/* A tag as it is written: its name has no white space around it, except in a comment or a change of
 * the delimiters. */
struct tag {
    const char *start, *after, *name;
    size_t len;
    char sigil; /* '\0': none */
};

static int read_tag(const struct template *template, const char *start, const char *open,
                    const char *close, struct tag *ret_tag, struct pk_error *err)
{
    const char *inside = start + strlen(open);
    struct tag tag = { .start = start, .name = inside };
    if (inside < template->end && *inside != '\0' && strchr("{&#^/>!=<$", *inside) != NULL) {
        tag.sigil = *inside;
        tag.name++;
    }
    char whole[DELIMIT_MAX + 2];
    (void)snprintf(whole, sizeof(whole), "%s%s",
                   tag.sigil == '{'   ? "}"
                   : tag.sigil == '=' ? "="
                                      : "",
                   close);
    const char *stop = find(tag.name, template->end, whole);
    if (stop == NULL) {
        (void)fail_at(template, start, err, "close it, or write the braces another way",
                      "tag without end", inside,
                      PK_MIN((size_t)(template->end - inside), (size_t)20));
        return PK_E_INVALID;
    }
    tag.after = stop + strlen(whole);
    tag.len = (size_t)(stop - tag.name);
    if (tag.sigil != '=' && tag.sigil != '!')
        trim(&tag.name, &tag.len);
    *ret_tag = tag;
    return 0;
}

static enum token_kind kind_of(char sigil)
{
    switch (sigil) {
    case '{':
    case '&':
        return TOKEN_RAW;
    case '#':
        return TOKEN_SECTION;
    case '^':
        return TOKEN_INVERTED;
    case '/':
        return TOKEN_END;
    case '>':
        return TOKEN_PARTIAL;
    default:
        return TOKEN_VALUE;
    }
}

/* The sections that are open, as indexes of their tokens. */
struct open_sections {
    size_t tokens[DEPTH_MAX], depth;
};

/* indent: what stands before the tag when it has the line for itself, else "". */
static int take_tag(const struct template *template, const struct tag *tag, const char *indent,
                    size_t indent_len, struct parsed *parsed, struct open_sections *sections,
                    struct pk_error *err)
{
    if (tag->sigil == '<' || tag->sigil == '$')
        return fail_at(template, tag->start, err, "use a partial: {{> name}}",
                       "template inheritance is not supported:", tag->name, tag->len);
    if (tag->len == 0 || memchr(tag->name, '\n', tag->len) != NULL)
        return fail_at(template, tag->start, err, "write a name, such as {{values.threads}}",
                       "tag without a name", "", 0);
    struct token token = { .kind = kind_of(tag->sigil), .text = tag->name, .len = tag->len };
    if (token.kind == TOKEN_PARTIAL) {
        token.indent = indent;
        token.indent_len = indent_len;
    } else if (token.kind == TOKEN_SECTION || token.kind == TOKEN_INVERTED) {
        if (sections->depth == DEPTH_MAX)
            return fail_at(template, tag->start, err, "split the template into partials",
                           "sections are nested too deeply at", tag->name, tag->len);
        sections->tokens[sections->depth++] = parsed->count;
    } else if (token.kind == TOKEN_END) {
        struct token *begin =
            sections->depth > 0 ? &parsed->tokens[sections->tokens[sections->depth - 1]] : NULL;
        if (begin == NULL || begin->len != tag->len ||
            memcmp(begin->text, tag->name, tag->len) != 0)
            return fail_at(template, tag->start, err,
                           "sections end in the order in which they began, innermost first",
                           "no such section is open:", tag->name, tag->len);
        begin->end = parsed->count;
        sections->depth--;
    }
    return add_token(parsed, token, err);
}

static int parse(const struct template *template, struct parsed *parsed, struct pk_error *err)
{
    char open[DELIMIT_MAX + 1] = "{{", close[DELIMIT_MAX + 1] = "}}";
    struct open_sections sections = { .depth = 0 };
    const char *at = template->text, *start;
    while ((start = find(at, template->end, open)) != NULL) {
        struct tag tag;
        int r = read_tag(template, start, open, close, &tag, err);
        if (r < 0)
            return r;
        /* A tag that is no value and alone on its line takes the line with it. */
        const char *line = start, *next = tag.after;
        if (kind_of(tag.sigil) != TOKEN_RAW && tag.sigil != '\0')
            (void)alone(template, start, tag.after, &line, &next);
        size_t before = line > at ? (size_t)(line - at) : 0;
        r = add_token(parsed, (struct token){ .kind = TOKEN_TEXT, .text = at, .len = before }, err);
        at = next;
        if (r == 0 && tag.sigil == '=' && !set_delimiters(tag.name, tag.len, open, close))
            return fail_at(template, start, err, "write for example {{=<% %>=}}", "bad delimiters",
                           tag.name, tag.len);
        if (r == 0 && tag.sigil != '=' && tag.sigil != '!')
            r = take_tag(template, &tag, line, (size_t)(start - line), parsed, &sections, err);
        if (r < 0)
            return r;
    }
    if (sections.depth > 0) {
        const struct token *begin = &parsed->tokens[sections.tokens[sections.depth - 1]];
        return fail_at(template, begin->text, err, "add the tag that ends it: {{/name}}",
                       "section without end:", begin->text, begin->len);
    }
    return add_token(
        parsed,
        (struct token){ .kind = TOKEN_TEXT, .text = at, .len = (size_t)(template->end - at) }, err);
}

/* ---- rendering ---- */

static const json_t *member(const json_t *json, const char *key, size_t len)
{
    return json_is_object(json) ? json_object_getn(json, key, len) : NULL;
}

/* The first part of a dotted name is looked for in all contexts, the others only below it. */
static const json_t *look_up(const struct renderer *renderer, const char *name, size_t len)
{
    if (len == 1 && name[0] == '.')
        return renderer->stack[renderer->depth - 1];
    const char *dot = memchr(name, '.', len);
    size_t first = dot != NULL ? (size_t)(dot - name) : len;
    const json_t *found = NULL;
    for (unsigned i = renderer->depth; i > 0 && found == NULL; i--)
        found = member(renderer->stack[i - 1], name, first);
    while (dot != NULL && found != NULL) {
        const char *part = dot + 1;
        size_t left = len - (size_t)(part - name);
        dot = memchr(part, '.', left);
        found = member(found, part, dot != NULL ? (size_t)(dot - part) : left);
    }
    return found;
}

static bool is_truthy(const json_t *json)
{
    switch (json != NULL ? json_typeof(json) : JSON_NULL) {
    case JSON_NULL:
    case JSON_FALSE:
        return false;
    case JSON_ARRAY:
        return json_array_size(json) > 0;
    case JSON_STRING:
        return json_string_length(json) > 0;
    case JSON_INTEGER:
        return json_integer_value(json) != 0;
    case JSON_REAL:
        return fpclassify(json_real_value(json)) != FP_ZERO;
    default:
        return true;
    }
}

static void put(struct renderer *renderer, const char *text, size_t len)
{
    bool was_good = !renderer->out.failed;
    int r = pk_buf_add(&renderer->out, text, len);
    if (r < 0 && was_good)
        renderer->out_code = r;
}

static void put_text(struct renderer *renderer, const char *text)
{
    put(renderer, text, strlen(text));
}

static void put_escaped(struct renderer *renderer, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        switch (text[i]) {
        case '&':
            put_text(renderer, "&amp;");
            break;
        case '<':
            put_text(renderer, "&lt;");
            break;
        case '>':
            put_text(renderer, "&gt;");
            break;
        case '"':
            put_text(renderer, "&quot;");
            break;
        default:
            put(renderer, &text[i], 1);
            break;
        }
    }
}

static int render_value(struct renderer *renderer, const struct template *template,
                        const struct token *token)
{
    const json_t *json = look_up(renderer, token->text, token->len);
    char number[40];
    switch (json != NULL ? json_typeof(json) : JSON_NULL) {
    case JSON_NULL:
        break;
    case JSON_STRING:
        if (renderer->escape && token->kind == TOKEN_VALUE)
            put_escaped(renderer, json_string_value(json), json_string_length(json));
        else
            put(renderer, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        (void)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(json));
        put_text(renderer, number);
        break;
    case JSON_REAL: {
        double value = json_real_value(json);
        double again;
        int digits = 15; /* the fewest that read back as the same number */
        do
            (void)snprintf(number, sizeof(number), "%.*g", digits, value);
        while (digits++ < 17 &&
               (pk_parse_double(number, &again, NULL) < 0 || again < value || again > value));
        put_text(renderer, number);
        break;
    }
    case JSON_TRUE:
    case JSON_FALSE:
        put_text(renderer, json_is_true(json) ? "true" : "false");
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        return fail_at(template, token->text, renderer->err,
                       "open it as a section: {{#name}}...{{/name}}",
                       "a list or map cannot be written as text:", token->text, token->len);
    }
    return 0;
}

static int render_template(struct renderer *renderer, const struct template *template);

static int render_partial(struct renderer *renderer, const struct template *template,
                          const struct token *token)
{
    const char *text;
    size_t len;
    PK_CLEANUP(pk_free_p) char *name = pk_strndup(token->text, token->len);
    if (name == NULL)
        return pk_fail(renderer->err, PK_E_NOMEM, "template: out of memory");
    int r = renderer->partial != NULL ? renderer->partial(renderer->partial_arg, name, &text, &len)
                                      : PK_E_NOTFOUND;
    if (r == PK_E_NOTFOUND)
        return 0; /* the specification's rule */
    if (r < 0)
        return fail_at(template, token->text, renderer->err,
                       "a partial is a file templates/NAME.mustache of the package",
                       "no such partial:", token->text, token->len);
    if (renderer->depth == DEPTH_MAX)
        return fail_at(template, token->text, renderer->err, "does it contain itself?",
                       "partials are nested too deeply at", token->text, token->len);
    /* Each of its lines is indented as the tag is. */
    struct pk_buf indented = PK_BUF_INIT(OUTPUT_MAX);
    for (size_t i = 0; i < len; i++) {
        if ((i == 0 || text[i - 1] == '\n') && token->indent_len > 0)
            pk_buf_add(&indented, token->indent, token->indent_len);
        pk_buf_putc(&indented, text[i]);
    }
    r = indented.failed ? pk_fail(renderer->err, PK_E_NOMEM, "template: out of memory") : 0;
    if (r == 0) {
        struct template inner = { .name = name,
                                  .text = indented.data != NULL ? indented.data : "",
                                  .end =
                                      (indented.data != NULL ? indented.data : "") + indented.len };
        renderer->stack[renderer->depth] = renderer->stack[renderer->depth - 1];
        renderer->depth++;
        r = render_template(renderer, &inner);
        renderer->depth--;
    }
    pk_buf_done(&indented);
    return r;
}

static int render_tokens(struct renderer *renderer, const struct template *template,
                         const struct parsed *parsed, size_t from, size_t to);

static int render_section(struct renderer *renderer, const struct template *template,
                          const struct parsed *parsed, size_t index)
{
    const struct token *token = &parsed->tokens[index];
    const json_t *json = look_up(renderer, token->text, token->len);
    bool list = json_is_array(json);
    size_t count = list ? json_array_size(json) : is_truthy(json);
    int r = 0;
    if (token->kind == TOKEN_INVERTED)
        return count == 0 ? render_tokens(renderer, template, parsed, index + 1, token->end) : 0;
    if (renderer->depth == DEPTH_MAX)
        return fail_at(template, token->text, renderer->err, "make the template flatter",
                       "sections are nested too deeply at", token->text, token->len);
    for (size_t i = 0; i < count && r == 0; i++) {
        renderer->stack[renderer->depth++] = list ? json_array_get(json, i) : json;
        r = render_tokens(renderer, template, parsed, index + 1, token->end);
        renderer->depth--;
    }
    return r;
}

static int render_tokens(struct renderer *renderer, const struct template *template,
                         const struct parsed *parsed, size_t from, size_t to)
{
    int r = 0;
    for (size_t i = from; i < to && r == 0; i++) {
        const struct token *token = &parsed->tokens[i];
        if (renderer->out.failed)
            return 0; /* reported at the end */
        if (++renderer->steps > STEPS_MAX)
            return fail_at(template, token->text, renderer->err, "make the lists shorter",
                           "the template takes too long at", token->text,
                           PK_MIN(token->len, (size_t)20));
        switch (token->kind) {
        case TOKEN_TEXT:
            put(renderer, token->text, token->len);
            break;
        case TOKEN_VALUE:
        case TOKEN_RAW:
            r = render_value(renderer, template, token);
            break;
        case TOKEN_SECTION:
        case TOKEN_INVERTED:
            r = render_section(renderer, template, parsed, i);
            i = token->end;
            break;
        case TOKEN_PARTIAL:
            r = render_partial(renderer, template, token);
            break;
        case TOKEN_END:
            break;
        }
    }
    return r;
}

static int render_template(struct renderer *renderer, const struct template *template)
{
    struct parsed parsed = { 0 };
    renderer->steps +=
        (unsigned long)(template->end - template->text) / 64; /* parsing is work too */
    int r = parse(template, &parsed, renderer->err);
    if (r == 0)
        r = render_tokens(renderer, template, &parsed, 0, parsed.count);
    pk_free(parsed.tokens);
    return r;
}

int pk_mustache_render(
    const char *name, const char *template_text, size_t len, const json_t *context,
    int (*partial)(void *arg, const char *name, const char **ret_text, size_t *ret_len),
    void *partial_arg, bool escape_html, char **ret_text, size_t *ret_len, struct pk_error *err)
{
    struct template template = { .name = name, .text = template_text, .end = template_text + len };
    struct pk_error local;
    struct renderer *renderer = pk_zalloc(sizeof(*renderer));
    if (renderer == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    renderer->stack[renderer->depth++] = context;
    renderer->escape = escape_html;
    renderer->out = PK_BUF_INIT(OUTPUT_MAX);
    renderer->partial = partial;
    renderer->partial_arg = partial_arg;
    renderer->err = err != NULL ? err : &local;
    int r = render_template(renderer, &template);
    if (r == 0 && renderer->out.failed) {
        bool full = renderer->out_code == PK_E_NOSPACE;
        r = pk_fail(err, full ? PK_E_NOSPACE : PK_E_NOMEM, "%s: %s", name,
                    full ? "the output has more than 16 MiB" : "out of memory");
        pk_hint(err, "make the lists shorter");
    }
    if (r == 0) {
        size_t out_len = renderer->out.len;
        char *text = pk_buf_take(&renderer->out);
        if (text == NULL) {
            r = pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
        } else {
            *ret_text = text;
            *ret_len = out_len;
        }
    }
    pk_buf_done(&renderer->out);
    pk_free(renderer);
    return r;
}
