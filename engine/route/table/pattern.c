#include "route/table/pattern.h"

#include <ctype.h>

static const char *match(struct hky_pattern *m, const char *s, const char *p);

static const char *fail(struct hky_pattern *m, const char *fault)
{
    if (m->fault == NULL)
        m->fault = fault;
    return NULL;
}

static const char *pattern_end(const struct hky_pattern *m)
{
    return m->pattern.p + m->pattern.n;
}

static const char *subject_end(const struct hky_pattern *m)
{
    return m->subject.p + m->subject.n;
}

/* Looking through a set takes time by its length. */
static bool set_steps(struct hky_pattern *m, const char *p, const char *end)
{
    m->steps += (uint64_t)(end - p) / 8;
    if (m->steps > m->steps_max)
        fail(m, "pattern takes too many steps");
    return m->fault == NULL;
}

/* The position after the single item at p, which is a character, %x or [set]. */
static const char *item_end(struct hky_pattern *m, const char *p)
{
    const char *end = pattern_end(m), *start = p;

    if (*p == '%') {
        if (p + 1 == end)
            return fail(m, "malformed pattern (ends with '%')");
        return p + 2;
    }
    if (*p != '[')
        return p + 1;
    p++;
    if (p < end && *p == '^')
        p++;
    do {
        if (p == end)
            return fail(m, "malformed pattern (missing ']')");
        if (*p++ == '%') {
            if (p == end)
                return fail(m, "malformed pattern (missing ']')");
            p++;
        }
    } while (p == end || *p != ']');
    return set_steps(m, start, p + 1) ? p + 1 : NULL;
}

static bool class_has(int c, int class)
{
    bool has;

    switch (tolower(class)) {
    case 'a':
        has = isalpha(c);
        break;
    case 'c':
        has = iscntrl(c);
        break;
    case 'd':
        has = isdigit(c);
        break;
    case 'g':
        has = isgraph(c);
        break;
    case 'l':
        has = islower(c);
        break;
    case 'p':
        has = ispunct(c);
        break;
    case 's':
        has = isspace(c);
        break;
    case 'u':
        has = isupper(c);
        break;
    case 'w':
        has = isalnum(c);
        break;
    case 'x':
        has = isxdigit(c);
        break;
    case 'z': /* Lua's older name of %0 */
        has = c == 0;
        break;
    default:
        return class == c;
    }
    return isupper(class) ? !has : has;
}

/* p at '[', last at its ']' */
static bool set_has(int c, const char *p, const char *last)
{
    bool wanted = true;

    if (p[1] == '^') {
        wanted = false;
        p++;
    }
    while (++p < last) {
        if (*p == '%') {
            p++;
            if (class_has(c, (unsigned char)*p))
                return wanted;
        } else if (p + 2 < last && p[1] == '-') {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
                return wanted;
            p += 2;
        } else if ((unsigned char)*p == c) {
            return wanted;
        }
    }
    return !wanted;
}

static bool item_has(struct hky_pattern *m, const char *s, const char *p, const char *end)
{
    int c;

    if (s >= subject_end(m))
        return false;
    if (++m->steps > m->steps_max) {
        fail(m, "pattern takes too many steps");
        return false;
    }
    c = (unsigned char)*s;
    switch (*p) {
    case '.':
        return true;
    case '%':
        return class_has(c, (unsigned char)p[1]);
    case '[':
        return set_steps(m, p, end) && set_has(c, p, end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

static const char *match_balance(struct hky_pattern *m, const char *s, const char *p)
{
    int open, close, level = 1;

    if (pattern_end(m) - p < 2)
        return fail(m, "malformed pattern (%b needs two characters)");
    open = p[0];
    close = p[1];
    if (s >= subject_end(m) || *s != open)
        return NULL;
    while (++s < subject_end(m)) {
        if (++m->steps > m->steps_max)
            return fail(m, "pattern takes too many steps");
        if (*s == close) {
            if (--level == 0)
                return s + 1;
        } else if (*s == open) {
            level++;
        }
    }
    return NULL;
}

static const char *match_most(struct hky_pattern *m, const char *s, const char *p, const char *end)
{
    ptrdiff_t i = 0;

    while (item_has(m, s + i, p, end))
        i++;
    for (; i >= 0 && m->fault == NULL; i--) {
        const char *r = match(m, s + i, end + 1);
        if (r != NULL)
            return r;
    }
    return NULL;
}

static const char *match_least(struct hky_pattern *m, const char *s, const char *p, const char *end)
{
    for (;;) {
        const char *r = match(m, s, end + 1);
        if (r != NULL || m->fault != NULL)
            return r;
        if (!item_has(m, s, p, end))
            return NULL;
        s++;
    }
}

static const char *match_open(struct hky_pattern *m, const char *s, const char *p, ptrdiff_t what)
{
    const char *r;

    if (m->n >= HKY_PATTERN_CAPTURES)
        return fail(m, "too many captures");
    m->capture[m->n++] = (struct hky_capture){s, what};
    if ((r = match(m, s, p)) == NULL)
        m->n--;
    return r;
}

static const char *match_close(struct hky_pattern *m, const char *s, const char *p)
{
    unsigned i = m->n;
    const char *r;

    while (i > 0 && m->capture[i - 1].n != HKY_CAPTURE_OPEN)
        i--;
    if (i == 0)
        return fail(m, "invalid pattern capture");
    m->capture[i - 1].n = s - m->capture[i - 1].p;
    if ((r = match(m, s, p)) == NULL)
        m->capture[i - 1].n = HKY_CAPTURE_OPEN;
    return r;
}

static const char *match_again(struct hky_pattern *m, const char *s, int digit)
{
    unsigned i = (unsigned)(digit - '1');
    size_t n;

    if (digit < '1' || i >= m->n || m->capture[i].n < 0)
        return fail(m, "invalid capture index");
    n = (size_t)m->capture[i].n;
    m->steps += n / 8;
    return (size_t)(subject_end(m) - s) >= n && memcmp(m->capture[i].p, s, n) == 0 ? s + n : NULL;
}

static bool is_frontier(struct hky_pattern *m, const char *s, const char *p, const char *end)
{
    int before = s == m->subject.p ? 0 : (unsigned char)s[-1];
    int here = s == subject_end(m) ? 0 : (unsigned char)*s;

    if (!set_steps(m, p, end) || set_has(before, p, end - 1))
        return false;
    return set_steps(m, p, end) && set_has(here, p, end - 1);
}

static const char *match_body(struct hky_pattern *m, const char *s, const char *p)
{
    const char *last = pattern_end(m), *end;

    while (p != last) {
        if (m->fault != NULL)
            return NULL;
        if (++m->steps > m->steps_max)
            return fail(m, "pattern takes too many steps");
        if (*p == '(')
            return p + 1 < last && p[1] == ')' ? match_open(m, s, p + 2, HKY_CAPTURE_POSITION)
                                               : match_open(m, s, p + 1, HKY_CAPTURE_OPEN);
        if (*p == ')')
            return match_close(m, s, p + 1);
        if (*p == '$' && p + 1 == last)
            return s == subject_end(m) ? s : NULL;
        if (*p == '%' && p + 1 < last) {
            if (p[1] == 'b') {
                if ((s = match_balance(m, s, p + 2)) == NULL)
                    return NULL;
                p += 4;
                continue;
            }
            if (p[1] == 'f') {
                p += 2;
                if (p == last || *p != '[')
                    return fail(m, "missing '[' after '%f' in pattern");
                if ((end = item_end(m, p)) == NULL || !is_frontier(m, s, p, end))
                    return NULL;
                p = end;
                continue;
            }
            if (isdigit((unsigned char)p[1])) {
                if ((s = match_again(m, s, (unsigned char)p[1])) == NULL)
                    return NULL;
                p += 2;
                continue;
            }
        }
        if ((end = item_end(m, p)) == NULL)
            return NULL;
        if (end < last && *end == '*')
            return match_most(m, s, p, end);
        if (end < last && *end == '+')
            return item_has(m, s, p, end) ? match_most(m, s + 1, p, end) : NULL;
        if (end < last && *end == '-')
            return match_least(m, s, p, end);
        if (end < last && *end == '?') {
            const char *r = item_has(m, s, p, end) ? match(m, s + 1, end + 1) : NULL;
            if (r != NULL || m->fault != NULL)
                return r;
            p = end + 1;
            continue;
        }
        if (!item_has(m, s, p, end))
            return NULL;
        s++;
        p = end;
    }
    return s;
}

static const char *match(struct hky_pattern *m, const char *s, const char *p)
{
    const char *r;

    if (m->depth >= HKY_PATTERN_DEPTH)
        return fail(m, "pattern too complex");
    m->depth++;
    r = match_body(m, s, p);
    m->depth--;
    return m->fault != NULL ? NULL : r;
}

const char *hky_pattern_at(struct hky_pattern *m, const char *from, const char *pattern)
{
    m->n = 0;
    m->depth = 0;
    return match(m, from, pattern);
}
