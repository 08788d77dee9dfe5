#include "intake/facts.h"

#include "base/duration.h"
#include "base/hash.h"
#include "base/nearest.h"
#include "mail/dsn.h"
#include "mail/header.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define SUBJECT_MAX  200
#define NAME_MAX     200
#define ID_MAX       900 /* Message-ID */
#define SCENARIO_MAX 128
#define REF_MAX      200
#define TAG_MAX      64
#define UNKNOWN_MAX  400 /* names of fields that mean nothing, each cut at UNKNOWN_NAME */
#define UNKNOWN_NAME 60

/* One header section while it is read. */
struct reading {
    struct intake_facts *facts;
    const struct intake_facts_params *p;
    struct hky_refusal *why;
};

/* The first reason counts. */
static void __attribute__((format(printf, 4, 5)))
refuse(struct reading *r, int code, const char *enhanced, const char *fmt, ...)
{
    va_list ap;

    if (r->why->code != 0)
        return;
    va_start(ap, fmt);
    vsnprintf(r->why->text, sizeof r->why->text, fmt, ap);
    va_end(ap);
    r->why->code = code;
    r->why->enhanced = enhanced;
}

void intake_facts_init(struct intake_facts *f, uint32_t header_octets)
{
    hky_buf_init(&f->text, header_octets + 4096);
    hky_buf_init(&f->tags, 4096);
    hky_buf_init(&f->vars, 16384);
    hky_buf_init(&f->unknown, UNKNOWN_MAX);
}

void intake_facts_fini(struct intake_facts *f)
{
    hky_buf_fini(&f->text);
    hky_buf_fini(&f->tags);
    hky_buf_fini(&f->vars);
    hky_buf_fini(&f->unknown);
}

struct hky_str intake_facts_get(const struct intake_facts *f, enum hky_fact which)
{
    struct intake_span s = f->span[which];

    return s.n > 0 ? hky_str_of(f->text.p + s.at, s.n) : hky_str_of("", 0);
}

static bool is_inside_character(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* At most `max` octets, never half a character; octets that are no UTF-8 are cut at `max`. */
static size_t cut_utf8(const char *p, size_t n, size_t max)
{
    size_t at = max;

    if (n <= max)
        return n;
    while (at > 0 && max - at < 3 && is_inside_character(p[at]))
        at--;
    return is_inside_character(p[at]) ? max : at;
}

/* What was appended to text since `at` becomes the fact: trimmed, cut, no control octets. */
static void keep_fact(struct intake_facts *f, enum hky_fact which, size_t at, size_t max)
{
    struct hky_str s;

    if (f->text.is_over || f->text.n <= at)
        return;
    s = hky_str_trim(hky_str_of(f->text.p + at, f->text.n - at));
    s.n = cut_utf8(s.p, s.n, max);
    size_t from = (size_t)(s.p - f->text.p);
    for (size_t i = from; i < from + s.n; i++)
        if ((unsigned char)f->text.p[i] < 0x20 || f->text.p[i] == 0x7f)
            f->text.p[i] = ' ';
    f->span[which] = (struct intake_span){(uint32_t)from, (uint32_t)s.n};
    f->text.n = from + s.n;
}

static void take_decoded(struct intake_facts *f, enum hky_fact which, struct hky_str value, size_t max)
{
    size_t at = f->text.n;

    if (f->span[which].n > 0)
        return; /* the first one counts */
    hky_field_decode(value, &f->text);
    keep_fact(f, which, at, max);
}

static void take_from(struct intake_facts *f, struct hky_str value)
{
    struct hky_mailbox box;
    bool is_bad = false;
    size_t at;

    if (f->n_from++ > 0)
        return;
    f->n_authors = (uint32_t)hky_mailboxes_parse(value, &box, 1, &is_bad);
    if (f->n_authors == 0)
        return;
    at = f->text.n;
    hky_buf_add_str(&f->text, hky_address_str(&box.address));
    keep_fact(f, HKY_FACT_AUTHOR, at, HKY_ADDRESS_MAX);
    at = f->text.n;
    hky_phrase_decode(box.name, &f->text);
    keep_fact(f, HKY_FACT_AUTHOR_NAME, at, NAME_MAX);
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
}

static void take_tags(struct reading *r, struct hky_str value)
{
    while (value.n > 0) {
        const char *comma = memchr(value.p, ',', value.n);
        size_t n = comma != NULL ? (size_t)(comma - value.p) : value.n;
        struct hky_str tag = hky_str_trim(hky_str_of(value.p, n));

        if (tag.n > TAG_MAX)
            refuse(r, 550, "5.6.0", "X-Hikyaku-Tag: a tag has at most %d octets", TAG_MAX);
        if (tag.n > 0) {
            hky_buf_add_str(&r->facts->tags, tag);
            hky_buf_add_c(&r->facts->tags, '\0');
        }
        n += comma != NULL;
        value = hky_str_of(value.p + n, value.n - n);
    }
}

static void take_var(struct reading *r, struct hky_str value)
{
    const char *equals = memchr(value.p, '=', value.n);
    struct hky_str name = hky_str_trim(hky_str_of(value.p, equals != NULL ? (size_t)(equals - value.p) : 0));
    bool is_good = name.n > 0 && name.n <= TAG_MAX;

    for (size_t i = 0; i < name.n; i++)
        is_good = is_good && is_name_char(name.p[i]);
    if (!is_good) {
        refuse(r, 550, "5.6.0", "X-Hikyaku-Var: expected name=value");
        return;
    }
    size_t used = (size_t)(equals - value.p) + 1;
    hky_buf_add_str(&r->facts->vars, name);
    hky_buf_add_c(&r->facts->vars, '\0');
    hky_buf_add_str(&r->facts->vars, hky_str_trim(hky_str_of(value.p + used, value.n - used)));
    hky_buf_add_c(&r->facts->vars, '\0');
}

static bool parse_moment(const char *z, int64_t *at_ms)
{
    struct tm tm = {0};
    int used = 0, hours = 0, minutes = 0;
    char sign[2] = "";

    if (sscanf(z, "%4d-%2d-%2d%*1[T ]%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
               &used) != 5)
        return false;
    z += used;
    if (sscanf(z, ":%2d%n", &tm.tm_sec, &used) == 1)
        z += used;
    if (strcmp(z, "Z") != 0) {
        used = 0;
        if (sscanf(z, "%1[+-]%2d:%2d%n", sign, &hours, &minutes, &used) != 3 &&
            sscanf(z, "%1[+-]%2d%2d%n", sign, &hours, &minutes, &used) != 3)
            return false;
        if (z[used] != '\0')
            return false;
    }
    if (tm.tm_year < 1970 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60 || hours < 0 || hours > 14 || minutes < 0 || minutes > 59 || tm.tm_hour < 0 ||
        tm.tm_min < 0 || tm.tm_sec < 0)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    struct tm day = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = tm.tm_mday};
    (void)timegm(&day);
    if (day.tm_mon != tm.tm_mon) /* 31 February became a day of March */
        return false;
    int64_t offset_sec = (hours * 60 + minutes) * 60;
    *at_ms = ((int64_t)timegm(&tm) - (sign[0] == '-' ? -offset_sec : offset_sec)) * 1000;
    return true;
}

static bool parse_deadline(struct hky_str s, int64_t now_ms, int64_t *at_ms)
{
    uint64_t unix_sec = 0;
    uint32_t sec = 0;
    char z[40];

    if (s.n == 0 || s.n >= sizeof z)
        return false;
    if (hky_str_u64(s, UINT32_MAX, &unix_sec)) {
        *at_ms = (int64_t)unix_sec * 1000;
        return true;
    }
    if (hky_duration_parse(s, &sec)) {
        *at_ms = now_ms + (int64_t)sec * 1000;
        return true;
    }
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return strlen(z) == s.n && parse_moment(z, at_ms);
}

/* No moment is 0, which would mean "none", or lies before it. */
bool hky_intake_deadline_parse(struct hky_str s, int64_t now_ms, int64_t *at_ms)
{
    return parse_deadline(s, now_ms, at_ms) && *at_ms > 0;
}

/* A name that the policy uses is taken as it is, or the message is refused: a name that was cut, or one of two that
 * differ, would be another name. */
static void take_name(struct reading *r, enum hky_fact which, const char *field, struct hky_str value, size_t max)
{
    struct intake_facts *f = r->facts;
    size_t at = f->text.n;

    hky_field_decode(value, &f->text);
    struct hky_str before = intake_facts_get(f, which); /* only now: the text may have moved when it grew */
    struct hky_str given = hky_str_trim(hky_str_of(f->text.p + at, f->text.n - at));
    if (given.n > max)
        refuse(r, 550, "5.6.0", "X-Hikyaku-%s: at most %zu octets", field, max);
    else if (before.n > 0 && !hky_str_eq(before, given))
        refuse(r, 550, "5.6.0", "X-Hikyaku-%s: given twice, and not the same", field);
    else if (before.n == 0)
        keep_fact(f, which, at, max);
    else
        f->text.n = at;
}

static void take_deadline(struct reading *r, struct hky_str value)
{
    int64_t at_ms = 0;

    if (!hky_intake_deadline_parse(value, r->p->now_ms, &at_ms))
        refuse(r, 550, "5.6.0", "X-Hikyaku-Deadline: expected 2026-12-01T10:00:00+09:00, seconds since 1970, or 2h");
    else if (r->facts->deadline_ms != 0 && r->facts->deadline_ms != at_ms)
        refuse(r, 550, "5.6.0", "X-Hikyaku-Deadline: given twice, and not the same");
    r->facts->deadline_ms = at_ms;
}

/* Whoever mistyped a name learns it from the log; the field is removed like the others. */
static void take_unknown(struct intake_facts *f, struct hky_str name)
{
    static const char *const known[] = {"Scenario", "Tag", "Var", "Deadline", "Ref"};
    struct hky_nearest_name near = hky_nearest_to(name);

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        hky_nearest_consider(&near, known[i]);
    name.n = name.n < UNKNOWN_NAME ? name.n : UNKNOWN_NAME;
    hky_buf_printf(&f->unknown, "%sX-Hikyaku-" HKY_STR_FMT, f->unknown.n > 0 ? ", " : "", HKY_STR_ARG(name));
    if (near.name != NULL)
        hky_buf_printf(&f->unknown, " (did you mean X-Hikyaku-%s?)", near.name);
}

/* One of our own fields from a client that is trusted. */
static void take_own(struct reading *r, struct hky_str name, struct hky_str value)
{
    struct intake_facts *f = r->facts;
    size_t at = f->text.n;
    bool is_source = false; /* the decoded text is a fact now, and stays */

    if (hky_str_ieq(name, HKY_STR("Scenario"))) {
        take_name(r, HKY_FACT_SCENARIO, "Scenario", value, SCENARIO_MAX);
        return;
    }
    if (hky_str_ieq(name, HKY_STR("Ref"))) {
        take_name(r, HKY_FACT_REF, "Ref", value, REF_MAX);
        return;
    }
    hky_field_decode(value, &f->text);
    struct hky_str decoded = hky_str_trim(hky_str_of(f->text.p + at, f->text.n - at));
    if (hky_str_ieq(name, HKY_STR("Tag")))
        take_tags(r, decoded);
    else if (hky_str_ieq(name, HKY_STR("Var")))
        take_var(r, decoded);
    else if (hky_str_ieq(name, HKY_STR("Source")))
        is_source = hky_str_eq(decoded, HKY_STR("sendmail"));
    else if (hky_str_ieq(name, HKY_STR("Deadline")))
        take_deadline(r, decoded);
    else
        take_unknown(f, name);
    if (is_source)
        f->span[HKY_FACT_SOURCE] = (struct intake_span){(uint32_t)(decoded.p - f->text.p), (uint32_t)decoded.n};
    if (f->tags.is_over || f->vars.is_over || f->text.is_over)
        refuse(r, 552, "5.3.4", "the X-Hikyaku fields hold too much");
    if (!is_source)
        f->text.n = at;
}

/* An empty field says nothing. It is removed, because ours would be a second one beside it. */
static bool take_message_id(struct intake_facts *f, struct hky_str value)
{
    size_t at = f->text.n;

    if (hky_str_trim(value).n == 0)
        return false;
    if (f->span[HKY_FACT_MESSAGE_ID].n == 0) {
        hky_buf_add_str(&f->text, value);
        keep_fact(f, HKY_FACT_MESSAGE_ID, at, ID_MAX);
    }
    return true;
}

static bool take_date(struct intake_facts *f, struct hky_str value)
{
    if (hky_str_trim(value).n == 0)
        return false;
    f->has_date = true;
    return true;
}

/* false: the field is removed. */
static bool take_field(struct reading *r, const struct hky_field *field)
{
    static const struct hky_str own = {"X-Hikyaku-", 10};
    struct intake_facts *f = r->facts;

    switch (hky_lower(field->name.p[0])) {
    case 'f':
        if (hky_str_ieq(field->name, HKY_STR("From")))
            take_from(f, field->value);
        break;
    case 's':
        if (hky_str_ieq(field->name, HKY_STR("Subject")))
            take_decoded(f, HKY_FACT_SUBJECT, field->value, SUBJECT_MAX);
        break;
    case 'm':
        if (hky_str_ieq(field->name, HKY_STR("Message-ID")))
            return take_message_id(f, field->value);
        break;
    case 'd':
        if (hky_str_ieq(field->name, HKY_STR("Date")))
            return take_date(f, field->value);
        break;
    case 'r':
        f->n_received += hky_str_ieq(field->name, HKY_STR("Received"));
        break;
    case 'x':
        if (hky_str_istarts(field->name, own)) {
            if (r->p->is_trusted)
                take_own(r, hky_str_of(field->name.p + own.n, field->name.n - own.n), field->value);
            return false;
        }
        break;
    default:
        break;
    }
    return true;
}

static uint32_t count_lines(struct hky_str s)
{
    uint32_t n = 0;
    const char *p = s.p, *end = s.p + s.n;

    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        n++;
        p++;
    }
    return n;
}

static bool is_8bit(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

/* The fields that the section must have and lacks, and the empty line. */
static void missing_fields(struct reading *r, bool is_open_line, struct hky_buf *out)
{
    char id[HKY_ID_TEXT], date[40];

    if (is_open_line)
        hky_buf_add_z(out, "\r\n");
    if (!r->facts->has_date) {
        hky_date_format(r->p->now_ms, 0, date);
        hky_buf_printf(out, "Date: %s\r\n", date);
    }
    if (r->facts->span[HKY_FACT_MESSAGE_ID].n == 0) {
        size_t at = r->facts->text.n;
        hky_id_format(r->p->id, id);
        hky_buf_printf(&r->facts->text, "<%s@%s>", id, r->p->hostname);
        keep_fact(r->facts, HKY_FACT_MESSAGE_ID, at, ID_MAX);
        struct hky_str value = intake_facts_get(r->facts, HKY_FACT_MESSAGE_ID);
        hky_buf_printf(out, "Message-ID: " HKY_STR_FMT "\r\n", HKY_STR_ARG(value));
    }
    hky_buf_add_z(out, "\r\n");
}

/* Reads every field; the fields that stay are moved together behind `at`. Returns where the section ends now. */
static size_t read_fields(struct reading *r, struct hky_buf *buf, size_t at, size_t section_n, size_t *rest)
{
    struct hky_str section = hky_str_of(buf->p + at, section_n);
    struct intake_facts *f = r->facts;
    struct hky_field field;
    size_t next = hky_mbox_line_octets(section), kept = at;

    while (r->why->code == 0 && hky_field_next(section, &next, &field)) {
        if (field.name.n == 0) { /* no field: the body begins here, as if the empty line had been sent */
            if (next < section_n || section_n <= r->p->header_octets)
                *rest = (size_t)(field.whole.p - buf->p);
            break; /* the line that was cut at the bound may be a field: too long */
        }
        f->n_lines += count_lines(field.whole);
        f->has_8bit = f->has_8bit || is_8bit(field.whole);
        if (!take_field(r, &field) || r->why->code != 0)
            continue;
        memmove(buf->p + kept, field.whole.p, field.whole.n);
        kept += field.whole.n;
        if (f->n_lines > r->p->header_lines)
            refuse(r, 552, "5.3.4", "header too long, at most %u lines", r->p->header_lines);
    }
    return kept;
}

size_t intake_facts_read(struct intake_facts *f, const struct intake_facts_params *p, struct hky_buf *buf, size_t at,
                         size_t section_n, struct hky_refusal *why)
{
    struct reading r = {f, p, why};
    struct hky_buf add;
    char space[400];
    size_t rest = at + section_n;

    if (hky_buf_reserve(&f->text, 512) == NULL)
        f->text.is_over = true;
    size_t kept = read_fields(&r, buf, at, section_n, &rest);
    if (rest - at > p->header_octets)
        refuse(&r, 552, "5.3.4", "header too long, at most %u octets", p->header_octets);
    if (f->n_received > p->received)
        refuse(&r, 554, "5.4.6", "mail loop: more than %u Received fields", p->received);
    if (f->text.is_over)
        refuse(&r, 552, "5.3.4", "header too long");
    if (why->code != 0)
        return 0;
    if (rest == at + section_n && buf->n - rest >= 2 && memcmp(buf->p + rest, "\r\n", 2) == 0)
        rest += 2;

    hky_buf_init_in(&add, space, sizeof space, 2048);
    missing_fields(&r, kept > at && buf->p[kept - 1] != '\n', &add);
    size_t tail = buf->n - rest, to = kept + add.n;
    if (to > rest)
        HKY_ASSERT(hky_buf_reserve(buf, to - rest) != NULL);
    memmove(buf->p + to, buf->p + rest, tail);
    memcpy(buf->p + kept, add.p, add.n);
    buf->n = to + tail;
    hky_buf_fini(&add);
    return to;
}
