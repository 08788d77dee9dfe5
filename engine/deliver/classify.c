#include "hikyaku/outcome.h"

#include "base/error.h"

#include <ctype.h>
#include <stdio.h>
#include <time.h>

/*
 * Rules first, then what stage and code say by themselves. A failing reply is looked at by some two hundred rules with
 * a thousand phrases; the pairs of neighbouring octets that occur in the text are kept as a small set, so that nearly
 * every phrase is refused after one or two look-ups and never searched for.
 */
#define PAIRS 4096
struct view {
    const struct hky_classify_query *q;
    const struct hky_reply *reply;
    size_t n;
    bool has_enhanced;
    char enhanced[16];               /* "5.7.515" */
    char text[HKY_REPLY_TEXT + 1];   /* lower case */
    char spoken[HKY_REPLY_TEXT + 1]; /* the same, with blanks for addresses: others choose their words */
    uint64_t pairs[PAIRS / 64];
};

#define RETRY_AFTER_MAX (3 * 24 * 3600U)

static unsigned pair_hash(char a, char b)
{
    return (((unsigned)(unsigned char)a * 67U) ^ ((unsigned)(unsigned char)b * 1021U)) & (PAIRS - 1);
}

static bool has_pair(const struct view *v, char a, char b)
{
    unsigned h = pair_hash(a, b);

    return (v->pairs[h / 64] >> (h % 64) & 1) != 0;
}

static bool is_in_word(char c)
{
    return c != ' ' && c != '<' && c != '>' && c != ',' && c != ';';
}

static void leave_addresses_out(struct view *v)
{
    memcpy(v->spoken, v->text, v->n + 1);
    for (size_t i = 0; i < v->n; i++) {
        if (v->text[i] != '@')
            continue;
        for (size_t k = i; k > 0 && is_in_word(v->spoken[k - 1]); k--)
            v->spoken[k - 1] = ' ';
        for (; i < v->n && is_in_word(v->text[i]); i++)
            v->spoken[i] = ' ';
    }
}

static void view_init(struct view *v, const struct hky_classify_query *q)
{
    const struct hky_reply *r = q->reply;

    v->q = q;
    v->reply = r;
    v->n = r->n < HKY_REPLY_TEXT ? r->n : HKY_REPLY_TEXT;
    memset(v->pairs, 0, sizeof v->pairs);
    for (size_t i = 0; i < v->n; i++)
        v->text[i] = hky_lower(r->text[i]);
    v->text[v->n] = '\0';
    leave_addresses_out(v);
    for (size_t i = 0; i + 1 < v->n; i++) {
        unsigned h = pair_hash(v->text[i], v->text[i + 1]);

        v->pairs[h / 64] |= UINT64_C(1) << (h % 64);
    }
    /* One whose first digit contradicts the code is noise: the code is what RFC 5321 makes us obey. */
    v->has_enhanced = r->enhanced[0] != 0 && (r->code == 0 || r->code / 100 == r->enhanced[0]);
    v->enhanced[0] = '\0';
    if (v->has_enhanced)
        snprintf(v->enhanced, sizeof v->enhanced, "%u.%u.%u", r->enhanced[0] % 10U, r->enhanced[1] % 1000U,
                 (unsigned)r->enhanced_detail);
}

/* First place of a piece (no '*') at or after `at`; '?' stands for one octet. SIZE_MAX: none. */
static size_t find_piece(const struct view *v, const char *text, const char *piece, size_t n, size_t at)
{
    char first = hky_lower(piece[0]);

    if (n > v->n)
        return SIZE_MAX;
    for (size_t i = 0; i + 1 < n; i++)
        if (piece[i] != '?' && piece[i + 1] != '?' && !has_pair(v, hky_lower(piece[i]), hky_lower(piece[i + 1])))
            return SIZE_MAX;
    while (at <= v->n - n) {
        size_t i = 0;

        if (first != '?') {
            const char *hit = memchr(text + at, first, v->n - n - at + 1);

            if (hit == NULL)
                return SIZE_MAX;
            at = (size_t)(hit - text);
        }
        while (i < n && (piece[i] == '?' || hky_lower(piece[i]) == text[at + i]))
            i++;
        if (i == n)
            return at;
        at++;
    }
    return SIZE_MAX;
}

/* The pieces between '*' in their order: without anchors the leftmost place of each is the best one. */
static bool phrase_occurs(const struct view *v, const char *text, struct hky_str phrase)
{
    size_t at = 0;

    while (phrase.n > 0) {
        const char *star = memchr(phrase.p, '*', phrase.n);
        size_t n = star != NULL ? (size_t)(star - phrase.p) : phrase.n;

        if (n > 0) {
            at = find_piece(v, text, phrase.p, n, at);
            if (at == SIZE_MAX)
                return false;
            at += n;
        }
        phrase.p += n;
        phrase.n -= n;
        if (phrase.n > 0) {
            phrase.p++;
            phrase.n--;
        }
    }
    return true;
}

/* Next of the alternatives joined by '|'; false at the end. */
static bool next_alternative(const char **list, struct hky_str *out)
{
    const char *end;

    if (*list == NULL)
        return false;
    end = strchr(*list, '|');
    *out = (struct hky_str){*list, end != NULL ? (size_t)(end - *list) : strlen(*list)};
    *list = end != NULL ? end + 1 : NULL;
    return true;
}

static bool text_fits(const struct view *v, const char *text, const char *list)
{
    struct hky_str phrase;

    while (next_alternative(&list, &phrase))
        if (phrase.n > 0 && phrase_occurs(v, text, phrase))
            return true;
    return false;
}

static bool mx_fits(const char *mx, const char *globs)
{
    struct hky_str glob, host = hky_str_z(mx);

    if (host.n > 0 && host.p[host.n - 1] == '.')
        host.n--;
    while (next_alternative(&globs, &glob))
        if (hky_str_glob(glob, host))
            return true;
    return false;
}

static bool status_fits(const struct view *v, struct hky_str glob)
{
    struct hky_str status = hky_str_z(v->enhanced);

    if (!v->has_enhanced)
        return false;
    if (glob.n > 1 && glob.p[0] == 'x' && glob.p[1] == '.') { /* any class: compare from the dot */
        status.p++;
        status.n--;
        glob.p++;
        glob.n--;
    }
    return hky_str_glob(glob, status);
}

static bool enhanced_fits(const struct view *v, const char *pattern)
{
    bool is_not = pattern[0] == '!';
    const char *list = pattern + is_not;
    struct hky_str glob;

    while (next_alternative(&list, &glob))
        if (status_fits(v, glob))
            return !is_not;
    return is_not;
}

static bool is_stated(const char *s)
{
    return s != NULL && s[0] != '\0';
}

static bool rule_fits(const struct hky_class_rule *rule, const struct view *v)
{
    const struct hky_classify_query *q = v->q;

    /* From cheap to dear. */
    if (rule->stages != 0 && (rule->stages >> q->stage & 1) == 0)
        return false;
    if (rule->code_max != 0 && (v->reply->code < rule->code_min || v->reply->code > rule->code_max))
        return false;
    if (is_stated(rule->provider)) {
        bool is_own_rule = strcmp(rule->provider, "own") == 0;

        if (is_own_rule != q->is_own || (!is_own_rule && strcmp(rule->provider, q->provider) != 0))
            return false;
    }
    if (is_stated(rule->enhanced) && !enhanced_fits(v, rule->enhanced))
        return false;
    if (is_stated(rule->mx) && !mx_fits(q->mx, rule->mx))
        return false;
    /* A quota stops an account: that must not be in the hands of whoever chooses an address. */
    return !is_stated(rule->text) ||
           text_fits(v, rule->class == HKY_CLASS_QUOTA_EXHAUSTED ? v->spoken : v->text, rule->text);
}

/* ---- how long the text asks to wait ---- */

static uint32_t unit_seconds(const char *p, const char *end)
{
    char word[8] = "";
    size_t n = 0;

    while (p < end && n < sizeof word - 1 && *p >= 'a' && *p <= 'z')
        word[n++] = *p++;
    if (strncmp(word, "sec", 3) == 0 || strcmp(word, "s") == 0)
        return 1;
    if (strncmp(word, "min", 3) == 0 || strcmp(word, "m") == 0)
        return 60;
    if (strncmp(word, "hour", 4) == 0 || strcmp(word, "h") == 0 || strncmp(word, "hr", 2) == 0)
        return 3600;
    if (strncmp(word, "day", 3) == 0)
        return 86400;
    return 0;
}

static bool holds_one(struct hky_str text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (hky_str_ifind(text, hky_str_z(words[i])) != NULL)
            return true;
    return false;
}

/* Does the text around [at, end) speak of waiting, so that the number is no size, port or count, nor the time in which
 * something happened ("30 messages in 1 day")? */
static bool speaks_of_waiting(const struct view *v, size_t at, size_t end)
{
    static const char *const before[] = {"again",        "retry",      "retries",     "wait",       "after ",
                                         "come back",    "back in",    "later",       "delay",      "deferred",
                                         "greylist",     "graylist",   "blocked for", "paused for", "resume",
                                         "for the next", "for another"};
    static const char *const behind[] = {"later", "before", "and try", "then try", "and retry", "then retry"};
    size_t from = at > 32 ? at - 32 : 0, to = v->n - end < 24 ? v->n : end + 24;

    return holds_one((struct hky_str){v->text + from, at - from}, before, sizeof before / sizeof *before) ||
           holds_one((struct hky_str){v->text + end, to - end}, behind, sizeof behind / sizeof *behind);
}

static uint64_t read_number(const char **p, const char *end)
{
    uint64_t n = 0;

    for (; *p < end && **p >= '0' && **p <= '9'; ++*p)
        n = n > RETRY_AFTER_MAX ? n : n * 10 + (uint64_t)(**p - '0');
    return n;
}

/* "00:05:00", as grey-listing says it: hours, minutes, seconds. `p` is behind the hours. */
static uint64_t read_clock(uint64_t hours, const char **p, const char *end)
{
    uint64_t parts[2];

    for (int i = 0; i < 2; i++) {
        if (*p + 1 >= end || **p != ':' || (*p)[1] < '0' || (*p)[1] > '9')
            return 0;
        ++*p;
        parts[i] = read_number(p, end);
        if (parts[i] > 59)
            return 0;
    }
    return hours > RETRY_AFTER_MAX / 3600 ? 0 : hours * 3600 + parts[0] * 60 + parts[1];
}

static int month_of(const char *p, const char *end)
{
    static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";

    for (int i = 0; end - p >= 3 && i < 12; i++)
        if (memcmp(p, names + (ptrdiff_t)3 * i, 3) == 0)
            return i;
    return -1;
}

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && *p == ' ')
        p++;
    return p;
}

/* "+0900" "-07:00" "utc" "gmt" "z"; seconds east of Greenwich, 0 where nothing is said. */
static int read_zone(const char **at, const char *end)
{
    const char *p = skip_blanks(*at, end);
    int sign = p < end && *p == '-' ? -1 : 1, digits = 0, n = 0;

    if (p >= end || (*p != '+' && *p != '-')) {
        if (p < end && (*p == 'u' || *p == 'g' || *p == 'z'))
            *at = p + (*p == 'z' || end - p < 3 ? 1 : 3);
        return 0;
    }
    for (p++; p < end && digits < 4 && ((*p >= '0' && *p <= '9') || *p == ':'); p++)
        if (*p != ':') {
            n = n * 10 + (*p - '0');
            digits++;
        }
    *at = p;
    return digits == 4 ? sign * (n / 100 * 3600 + n % 100 * 60) : 0;
}

/* "23:50" or "23:50:00" behind a date. */
static bool read_time_of_day(const char **at, const char *end, struct tm *tm)
{
    const char *p = *at;
    uint64_t part[3] = {0};
    int n = 0;

    while (n < 3) {
        const char *start = p;
        part[n] = read_number(&p, end);
        if (p == start)
            return false;
        n++;
        if (p >= end || *p != ':')
            break;
        p++;
    }
    if (n < 2 || part[0] > 23 || part[1] > 59 || part[2] > 60)
        return false;
    tm->tm_hour = (int)part[0];
    tm->tm_min = (int)part[1];
    tm->tm_sec = (int)part[2];
    *at = p;
    return true;
}

/* A date with a time of day that begins at *at: "28 nov 2026 23:50:00 utc" (RFC 5322 3.3) or "2026-11-28t23:50:00z"
 * (RFC 3339). Moves *at behind it. */
static bool read_moment(const char **at, const char *end, int64_t *sec)
{
    const char *p = *at;
    struct tm tm = {0};
    uint64_t first = read_number(&p, end), year = first, day = first;
    int month;

    if (p - *at == 4 && end - p >= 6 && p[0] == '-' && p[3] == '-') {
        p++;
        month = (int)read_number(&p, end) - 1;
        if (p >= end || *p++ != '-')
            return false;
        day = read_number(&p, end);
        if (p < end && (*p == 't' || *p == ' '))
            p++;
    } else {
        p = skip_blanks(p, end);
        month = month_of(p, end);
        while (p < end && *p >= 'a' && *p <= 'z')
            p++;
        p = skip_blanks(p, end);
        year = read_number(&p, end);
        p = skip_blanks(p, end);
    }
    if (month < 0 || month > 11 || day < 1 || day > 31 || year < 2000 || year > 9999 || !read_time_of_day(&p, end, &tm))
        return false;
    tm.tm_year = (int)year - 1900;
    tm.tm_mon = month;
    tm.tm_mday = (int)day;
    *sec = timegm(&tm) - read_zone(&p, end);
    *at = p;
    return true;
}

/* Until a moment that the text names; 0: it is over, or nobody knows what time it is now. */
static uint64_t seconds_until(const struct view *v, int64_t moment_sec)
{
    int64_t now_sec = v->q->now_ms / 1000;

    return v->q->now_ms == 0 || moment_sec <= now_sec ? 0 : (uint64_t)(moment_sec - now_sec);
}

static bool begins_number(const struct view *v, const char *p)
{
    return *p >= '0' && *p <= '9' &&
           (p == v->text || (!isalnum((unsigned char)p[-1]) && p[-1] != '.' && p[-1] != ':' && p[-1] != '-'));
}

static uint32_t retry_after_of(const struct view *v)
{
    const char *p = v->text, *end = v->text + v->n;

    while (p < end) {
        const char *start = p;
        uint64_t n, seconds;
        int64_t moment;

        if (!begins_number(v, p)) {
            p++;
            continue;
        }
        if (read_moment(&p, end, &moment)) {
            seconds = seconds_until(v, moment);
        } else if (n = read_number(&p, end), p < end && *p == ':') {
            seconds = read_clock(n, &p, end);
        } else {
            const char *unit = p;

            while (unit < end && (*unit == ' ' || *unit == '-'))
                unit++;
            seconds = n > RETRY_AFTER_MAX ? 0 : n * unit_seconds(unit, end);
            while (seconds > 0 && unit < end && *unit >= 'a' && *unit <= 'z')
                unit++;
            p = seconds > 0 ? unit : p;
        }
        if (seconds > 0 && seconds <= RETRY_AFTER_MAX &&
            speaks_of_waiting(v, (size_t)(start - v->text), (size_t)(p - v->text)))
            return (uint32_t)seconds;
    }
    return 0;
}

/* The longest wait that is believed: a text that names more speaks of something else, or of nothing that we can wait
 * for. */
static uint32_t believable_wait(enum hky_class class)
{
    switch (class) {
    case HKY_CLASS_RATE_LIMITED:
    case HKY_CLASS_QUOTA_EXHAUSTED:
    case HKY_CLASS_BLOCKED_IP:
    case HKY_CLASS_RELAY_AUTH:
    case HKY_CLASS_RELAY_DENIED:
        return 24 * 3600;
    default:
        return 4 * 3600;
    }
}

/* ---- what stage and code say when no rule fits ---- */

struct verdict {
    enum hky_class class;
    enum hky_scope scope;
};

static struct verdict verdict_of(enum hky_class class, enum hky_scope scope)
{
    return (struct verdict){class, scope};
}

/* The way to a recipient's MX is a path of its own; the way to a relay is the relay. */
static enum hky_scope way(const struct view *v)
{
    return v->q->is_own ? HKY_SCOPE_PATH : HKY_SCOPE_RELAY;
}

static struct verdict judge_local(const struct view *v, bool *is_temporary)
{
    *is_temporary = true;
    switch (v->reply->origin) {
    case HKY_ORIGIN_DNS:
        if (v->q->is_own && text_fits(v, v->text,
                                      "nxdomain|null mx|does not exist|no such domain|accepts no mail|not found|"
                                      "no mail is accepted|no mx and no address")) {
            *is_temporary = false;
            return verdict_of(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        }
        return verdict_of(HKY_CLASS_NETWORK, way(v));
    case HKY_ORIGIN_TLS:
        *is_temporary = false;
        return verdict_of(HKY_CLASS_TLS, way(v));
    case HKY_ORIGIN_LOCAL:
        if (text_fits(v, v->text, "not an smtp reply")) /* a broken peer, not a message that is wrong */
            return verdict_of(HKY_CLASS_NETWORK, way(v));
        *is_temporary = false;
        if (v->q->stage == HKY_STAGE_TLS)
            return verdict_of(HKY_CLASS_TLS, way(v));
        if (v->q->stage == HKY_STAGE_AUTH)
            return verdict_of(HKY_CLASS_RELAY_AUTH, HKY_SCOPE_RELAY);
        return verdict_of(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
    case HKY_ORIGIN_POLICY:
        return verdict_of(HKY_CLASS_UNKNOWN, HKY_SCOPE_MESSAGE);
    default:
        return verdict_of(HKY_CLASS_NETWORK, way(v));
    }
}

/* By the enhanced code alone (RFC 3463, RFC 5248, RFC 7372, RFC 7504, RFC 7505). UNKNOWN: it says nothing. */
static struct verdict judge_enhanced(const struct view *v)
{
    const struct hky_reply *r = v->reply;
    bool is_permanent = r->code >= 500;
    unsigned detail = r->enhanced_detail;

    switch (r->enhanced[1]) {
    case 1:
        if (detail == 2 || detail == 10)
            return verdict_of(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        if (detail == 3)
            return verdict_of(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_RECIPIENT);
        if (detail == 7 || detail == 8)
            return verdict_of(HKY_CLASS_AUTH_POLICY, HKY_SCOPE_SENDER);
        if (is_permanent && (detail <= 1 || detail == 4 || detail == 6) && v->q->stage >= HKY_STAGE_RCPT)
            return verdict_of(HKY_CLASS_BAD_MAILBOX, HKY_SCOPE_RECIPIENT);
        break;
    case 2:
        if (detail == 1 && is_permanent)
            return verdict_of(HKY_CLASS_INACTIVE, HKY_SCOPE_RECIPIENT);
        if (detail == 2)
            return verdict_of(HKY_CLASS_MAILBOX_FULL, HKY_SCOPE_RECIPIENT);
        if (detail == 3)
            return verdict_of(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
        break;
    case 3:
        if (detail == 4)
            return verdict_of(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
        if (detail == 2 && is_permanent && v->q->is_own)
            return verdict_of(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        if (!is_permanent || detail == 5)
            return verdict_of(HKY_CLASS_SYSTEM_TEMP, way(v));
        break;
    case 4:
        if (detail == 5)
            return verdict_of(HKY_CLASS_RATE_LIMITED, way(v));
        if (detail == 4 && is_permanent)
            return verdict_of(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        if (is_permanent) /* a refusal for good is no trouble on the way: asking again gets the same answer */
            break;
        return verdict_of(HKY_CLASS_NETWORK, way(v));
    case 5:
        if (detail == 3)
            return verdict_of(HKY_CLASS_RATE_LIMITED, way(v));
        break;
    case 6:
        return verdict_of(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
    case 7:
        if (detail == 8 || detail == 9)
            return v->q->is_own ? verdict_of(HKY_CLASS_AUTH_POLICY, HKY_SCOPE_SENDER)
                                : verdict_of(HKY_CLASS_RELAY_AUTH, HKY_SCOPE_RELAY);
        if (detail == 13)
            return verdict_of(HKY_CLASS_INACTIVE, HKY_SCOPE_RECIPIENT);
        if (is_permanent)
            return verdict_of(HKY_CLASS_AUTH_POLICY, HKY_SCOPE_SENDER);
        break;
    default:
        break;
    }
    return verdict_of(HKY_CLASS_UNKNOWN, HKY_SCOPE_PATH);
}

static struct verdict judge_remote(const struct view *v)
{
    const struct hky_reply *r = v->reply;
    bool is_permanent = r->code >= 500;
    struct verdict by_enhanced;

    switch (v->q->stage) {
    case HKY_STAGE_AUTH:
        return verdict_of(is_permanent ? HKY_CLASS_RELAY_AUTH : HKY_CLASS_SYSTEM_TEMP, HKY_SCOPE_RELAY);
    case HKY_STAGE_TLS:
        return verdict_of(HKY_CLASS_TLS, way(v));
    case HKY_STAGE_CONNECT:
    case HKY_STAGE_GREETING:
    case HKY_STAGE_HELLO:
        /* Nothing was said yet but who we are: a refusal is about our address. */
        return verdict_of(is_permanent ? HKY_CLASS_BLOCKED_IP : HKY_CLASS_SYSTEM_TEMP, way(v));
    default:
        break;
    }
    if (r->code == 421)
        return verdict_of(HKY_CLASS_SYSTEM_TEMP, way(v));
    if (v->has_enhanced) {
        by_enhanced = judge_enhanced(v);
        if (by_enhanced.class != HKY_CLASS_UNKNOWN)
            return by_enhanced;
    }
    if (r->code == 552 || r->code == 555)
        return verdict_of(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
    if (r->code == 556 && v->q->is_own) /* RFC 7504 */
        return verdict_of(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
    if (r->code == 451 || r->code == 452)
        return verdict_of(HKY_CLASS_SYSTEM_TEMP, way(v));
    if (v->q->stage == HKY_STAGE_MAIL)
        return verdict_of(HKY_CLASS_UNKNOWN, v->q->is_own ? HKY_SCOPE_SENDER : HKY_SCOPE_RELAY);
    if (v->q->stage == HKY_STAGE_RCPT)
        return verdict_of(HKY_CLASS_UNKNOWN, v->q->is_own ? HKY_SCOPE_RECIPIENT : HKY_SCOPE_RELAY);
    return verdict_of(HKY_CLASS_UNKNOWN, HKY_SCOPE_MESSAGE);
}

void hky_classify(const struct hky_class_rule *rules, size_t n_rules, const struct hky_classify_query *q,
                  struct hky_outcome *out)
{
    const struct hky_reply *r = q->reply;
    struct view v;
    struct verdict verdict = {HKY_CLASS_UNKNOWN, HKY_SCOPE_PATH};
    bool is_temporary = r->code / 100 == 4 || r->code / 100 == 3;
    uint32_t retry_after = 0;
    size_t i = 0;

    HKY_ASSERT(q->provider != NULL && q->mx != NULL && (unsigned)q->stage < HKY_STAGE_N);
    *out = (struct hky_outcome){.class = HKY_CLASS_OK, .scope = HKY_SCOPE_RECIPIENT, .stage = q->stage, .reply = *r};
    if (r->origin == HKY_ORIGIN_REMOTE && r->code / 100 == 2)
        return;
    view_init(&v, q);
    while (i < n_rules && !rule_fits(&rules[i], &v))
        i++;
    if (r->code == 0)
        verdict = judge_local(&v, &is_temporary);
    else if (i == n_rules)
        verdict = judge_remote(&v);
    if (i < n_rules) {
        verdict = verdict_of(rules[i].class, rules[i].scope);
        retry_after = rules[i].retry_after_sec;
    }
    /* What the server names is what it means; for a refusal for good only where waiting is the cure. Texts of our own
     * ("timed out after 30 s") name nothing to wait for. */
    bool is_curable = is_temporary || verdict.class == HKY_CLASS_RATE_LIMITED ||
                      verdict.class == HKY_CLASS_QUOTA_EXHAUSTED || verdict.class == HKY_CLASS_BLOCKED_IP;
    if (r->code != 0 && is_curable) {
        uint32_t named = retry_after_of(&v);

        if (named != 0 && named <= believable_wait(verdict.class))
            retry_after = named;
    }
    out->class = verdict.class;
    out->scope = verdict.scope == HKY_SCOPE_PATH ? way(&v) : verdict.scope;
    out->is_temporary = is_temporary;
    out->retry_after_sec = retry_after;
}
