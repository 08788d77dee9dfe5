#include "hikyaku/outcome.h"

#include <stdarg.h>
#include <stdio.h>

const char *const hky_class_names[HKY_CLASS_N + 1] = {
#define X(id, name, set, temporary) name,
    HKY_CLASSES(X)
#undef X
};

static const struct {
    char set;
    bool is_temporary;
} classes[] = {
#define X(id, name, set, temporary) {set, temporary},
    HKY_CLASSES(X)
#undef X
};

static const char *const scope_names[] = {"recipient", "domain", "message", "sender", "relay", "path"};
static const char *const stage_names[] = {"",     "connect", "greeting", "hello", "tls", "auth",
                                          "mail", "rcpt",    "data",     "dot",   "dsn"};

const char *hky_class_name(enum hky_class c)
{
    return (unsigned)c < HKY_CLASS_N ? hky_class_names[c] : "?";
}

char hky_class_set(enum hky_class c)
{
    return classes[c].set;
}

bool hky_class_is_temporary(enum hky_class c)
{
    return classes[c].is_temporary;
}

bool hky_class_parse(struct hky_str name, enum hky_class *c)
{
    for (int i = 0; i < HKY_CLASS_N; i++) {
        if (hky_str_eq(name, hky_str_z(hky_class_names[i]))) {
            *c = (enum hky_class)i;
            return true;
        }
    }
    return false;
}

bool hky_class_is_reason(enum hky_class c)
{
    return hky_class_set(c) == 'R';
}

bool hky_class_set_mask(struct hky_str set, uint64_t *mask)
{
    static const struct {
        const char *name;
        char set;
    } sets[] = {{"ours", 'O'}, {"theirs", 'T'}, {"content", 'C'}, {"temporary", 't'}};

    for (size_t k = 0; k < sizeof sets / sizeof sets[0]; k++) {
        if (!hky_str_eq(set, hky_str_z(sets[k].name)))
            continue;
        *mask = 0;
        for (int i = 0; i < HKY_CLASS_N; i++)
            if (sets[k].set == 't' ? classes[i].is_temporary : classes[i].set == sets[k].set)
                *mask |= HKY_CLASS_BIT(i);
        return true;
    }
    return false;
}

const char *hky_scope_name(enum hky_scope s)
{
    return (unsigned)s < HKY_SCOPE_N ? scope_names[s] : "?";
}

const char *hky_stage_name(enum hky_stage s)
{
    return (unsigned)s < HKY_STAGE_N ? stage_names[s] : "?";
}

bool hky_stage_parse(struct hky_str name, enum hky_stage *s)
{
    for (int i = HKY_STAGE_CONNECT; i < HKY_STAGE_N; i++) {
        if (hky_str_ieq(name, hky_str_z(stage_names[i]))) {
            *s = (enum hky_stage)i;
            return true;
        }
    }
    return false;
}

const char *hky_reply_format(const struct hky_reply *r, char *out, size_t n)
{
    if (r->code == 0)
        snprintf(out, n, "%s", r->text);
    else if (r->enhanced[0] != 0)
        snprintf(out, n, "%u %u.%u.%u%s%s", r->code, r->enhanced[0], r->enhanced[1], r->enhanced_detail,
                 r->n > 0 ? " " : "", r->text);
    else
        snprintf(out, n, "%u%s%s", r->code, r->n > 0 ? " " : "", r->text);
    return out;
}

void hky_reply_local(struct hky_reply *r, enum hky_origin origin, const char *fmt, ...)
{
    va_list ap;
    int n;

    r->code = 0;
    r->enhanced[0] = r->enhanced[1] = r->enhanced[2] = 0;
    r->enhanced_detail = 0;
    r->origin = origin;
    va_start(ap, fmt);
    n = vsnprintf(r->text, sizeof r->text, fmt, ap);
    va_end(ap);
    r->n = (uint16_t)(n < 0 ? 0 : (size_t)n < sizeof r->text ? (size_t)n : sizeof r->text - 1);
}

/* "5.7.515" or "#5.7.515" at the start of s, its class equal to `klass`; returns its length or 0. */
static size_t parse_enhanced(struct hky_str s, unsigned klass, struct hky_reply *r)
{
    unsigned part[3] = {0, 0, 0};
    size_t i = s.n > 0 && s.p[0] == '#';

    for (int k = 0; k < 3; k++) {
        size_t digits = 0;
        for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9' && digits < 3; i++, digits++)
            part[k] = part[k] * 10 + (unsigned)(s.p[i] - '0');
        if (digits == 0)
            return 0;
        if (k < 2 && (i >= s.n || s.p[i++] != '.'))
            return 0;
    }
    if (part[0] != klass || part[1] > 255 || (i < s.n && s.p[i] != ' ' && s.p[i] != '\t'))
        return 0;
    r->enhanced[0] = (uint8_t)part[0];
    r->enhanced[1] = (uint8_t)part[1];
    r->enhanced[2] = (uint8_t)(part[2] <= 255 ? part[2] : 255);
    r->enhanced_detail = (uint16_t)part[2];
    return i;
}

void hky_reply_from_text(struct hky_reply *r, struct hky_str text)
{
    uint64_t code = 0;
    size_t used;

    text = hky_str_trim(text);
    if (text.n < 3 || !hky_str_u64(hky_str_of(text.p, 3), 599, &code) || code < 200 ||
        (text.n > 3 && text.p[3] != ' ' && text.p[3] != '-')) {
        enum hky_origin origin =
            hky_str_ifind(text, HKY_STR("time")) != NULL ? HKY_ORIGIN_TIMEOUT
            : hky_str_ifind(text, HKY_STR("tls")) != NULL || hky_str_ifind(text, HKY_STR("certificate")) != NULL
                ? HKY_ORIGIN_TLS
            : hky_str_ifind(text, HKY_STR("dns")) != NULL || hky_str_ifind(text, HKY_STR("nxdomain")) != NULL
                ? HKY_ORIGIN_DNS
            : hky_str_ifind(text, HKY_STR("lost")) != NULL ? HKY_ORIGIN_LOST
                                                           : HKY_ORIGIN_CONNECT;
        hky_reply_local(r, origin, "%.*s", HKY_STR_ARG(text));
        return;
    }
    text = hky_str_trim(hky_str_of(text.p + (text.n > 3 ? 4 : 3), text.n - (text.n > 3 ? 4 : 3)));
    hky_reply_local(r, HKY_ORIGIN_REMOTE, "%s", "");
    r->code = (uint16_t)code;
    used = parse_enhanced(text, (unsigned)code / 100, r);
    text = hky_str_trim(hky_str_of(text.p + used, text.n - used));
    if (text.n >= sizeof r->text)
        text.n = sizeof r->text - 1;
    memcpy(r->text, text.p, text.n);
    r->text[text.n] = '\0';
    r->n = (uint16_t)text.n;
}
