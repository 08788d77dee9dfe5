/*
 * Every number of the text is read with what belongs to it: a moment, a clock, or a duration of one or more units. It
 * counts when the words around it speak of waiting; of several numbers the first counts whose words say so plainly.
 */
#include "deliver/wait.h"

#include "deliver/moment.h"

#include <ctype.h>
#include <time.h>

#define BEFORE 32 /* so many octets before a number are looked at, and BEHIND octets after it */
#define BEHIND 24

struct said {
    size_t n;
    int64_t now_ms;
    char text[HKY_REPLY_TEXT + 1]; /* lower case; full-width digits, colons and blanks as their ASCII ones */
};

/* Three octets of UTF-8 each: digits begin with ef bc 90. */
static size_t narrow(const char *p, size_t left, char *out)
{
    const unsigned char *u = (const unsigned char *)p;

    if (left >= 3 && u[0] == 0xef && u[1] == 0xbc && u[2] >= 0x90 && u[2] <= 0x9a) {
        *out = (char)(u[2] == 0x9a ? ':' : '0' + (u[2] - 0x90));
        return 3;
    }
    if (left >= 3 && u[0] == 0xe3 && u[1] == 0x80 && u[2] == 0x80) {
        *out = ' ';
        return 3;
    }
    *out = hky_lower(*p);
    return 1;
}

static void said_init(struct said *s, const struct hky_reply *r, int64_t now_ms)
{
    size_t n = r->n < HKY_REPLY_TEXT ? r->n : HKY_REPLY_TEXT;

    s->n = 0;
    s->now_ms = now_ms;
    for (size_t at = 0; at < n;)
        at += narrow(r->text + at, n - at, &s->text[s->n++]);
    s->text[s->n] = '\0';
}

/* "3,600": up to three digits, then groups of three. Moves *p behind them, or not at all. */
static bool read_grouped(const char **p, const char *end, uint64_t *n)
{
    const char *at = *p;
    uint64_t sum = read_number(&at, end);

    if (at - *p > 3 || at >= end || *at != ',')
        return false;
    while (end - at >= 4 && *at == ',' && is_digit(at[1]) && is_digit(at[2]) && is_digit(at[3])) {
        const char *group = ++at;

        sum = sum > HKY_WAIT_MAX_SEC ? sum : sum * 1000 + read_number(&at, end);
        if (at - group != 3)
            return false;
    }
    if (at < end && (is_digit(*at) || *at == ','))
        return false;
    *p = at;
    *n = sum;
    return true;
}

/* The seconds until a moment that the text names; 0: the moment is over, or the time now is not known. */
static uint64_t seconds_until(const struct said *s, int64_t moment_sec)
{
    int64_t now_sec = s->now_ms / 1000;

    return moment_sec <= now_sec ? 0 : (uint64_t)(moment_sec - now_sec);
}

/* ---- durations ---- */

/* Reads the unit at *p and moves *p behind it; 0: there is no unit. */
static uint32_t read_unit(const char **at, const char *end)
{
    static const struct {
        const char *begin;
        uint32_t seconds;
        bool is_whole; /* else any word that begins so: "min" "mins" "minutes" */
    } units[] = {
        {"sec", 1, false},   {"s", 1, true},       {"min", 60, false},    {"m", 60, true},    {"hour", 3600, false},
        {"hr", 3600, false}, {"h", 3600, true},    {"day", 86400, false}, {"d", 86400, true}, {"秒", 1, true},
        {"分", 60, true},    {"時間", 3600, true}, {"日", 86400, true},
    };
    const char *p = *at;

    while (p < end && (*p == ' ' || *p == '-'))
        p++;
    if (p >= end)
        return 0;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const char *behind = p + strlen(units[i].begin);

        if (!begins(p, end, units[i].begin) ||
            (units[i].is_whole && is_letter(*p) && behind < end && is_letter(*behind)))
            continue;
        while (!units[i].is_whole && behind < end && is_letter(*behind))
            behind++;
        *at = behind;
        return units[i].seconds;
    }
    return 0;
}

/* "an hour", "five minutes": reads a number written as a word, with the blank behind it; 0: there is none. */
static unsigned read_word(const char **at, const char *end)
{
    static const struct {
        const char *word;
        unsigned n;
    } words[] = {{"a ", 1},        {"an ", 1},      {"one ", 1},     {"two ", 2},   {"three ", 3}, {"four ", 4},
                 {"five ", 5},     {"six ", 6},     {"seven ", 7},   {"eight ", 8}, {"nine ", 9},  {"ten ", 10},
                 {"fifteen ", 15}, {"twenty ", 20}, {"thirty ", 30}, {"sixty ", 60}};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (begins(*at, end, words[i].word)) {
            *at += strlen(words[i].word);
            return words[i].n;
        }
    return 0;
}

/* "三十" and the like: reads a number below a hundred; 0: there is none. */
static unsigned read_kanji(const char **at, const char *end)
{
    static const char *const digits[] = {"一", "二", "三", "四", "五", "六", "七", "八", "九"};
    unsigned tens = 0, ones = 0;
    const char *p = *at;

    for (;;) {
        unsigned digit = 0;

        while (digit < 9 && !begins(p, end, digits[digit]))
            digit++;
        if (digit < 9 && ones == 0) {
            ones = digit + 1;
        } else if (begins(p, end, "十") && tens == 0) {
            tens = ones > 0 ? ones : 1;
            ones = 0;
        } else {
            break;
        }
        p += strlen("十");
    }
    *at = p;
    return tens * 10 + ones;
}

/* ".5" or ",5" behind a number: in thousandths. */
static unsigned read_fraction(const char **at, const char *end)
{
    const char *p = *at;
    unsigned n = 0, scale = 100;

    if (end - p < 2 || (*p != '.' && *p != ',') || !is_digit(p[1]))
        return 0;
    for (p++; p < end && is_digit(*p); p++, scale /= 10)
        n += (unsigned)(*p - '0') * scale;
    *at = p;
    return n;
}

/* "5-10 minutes" means the longer one; *at is behind the first. */
static uint64_t read_range(uint64_t first, const char **at, const char *end)
{
    const char *p = *at;
    uint64_t second;

    if (end - p < 2 || (*p != '-' && *p != '~') || !is_digit(p[1]))
        return first;
    p++;
    second = read_number(&p, end);
    *at = p;
    return second > first ? second : first;
}

/* "half an hour", "a quarter of an hour": reads up to the unit, in thousandths. */
static bool read_half(const char **at, const char *end, unsigned *thousandths)
{
    static const struct {
        const char *words;
        unsigned thousandths;
    } parts[] = {{"half an ", 500}, {"half a ", 500}, {"quarter of an ", 250}, {"quarter of a ", 250}};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (begins(*at, end, parts[i].words)) {
            *at += strlen(parts[i].words);
            *thousandths = parts[i].thousandths;
            return true;
        }
    return false;
}

/* "30 seconds", "1.5 h", "ten minutes"; 0 without a unit, and then *at does not move. */
static uint64_t read_part(const char **at, const char *end, uint32_t *unit)
{
    const char *p = *at;
    uint64_t n;
    unsigned thousandths = 0;

    if (read_half(&p, end, &thousandths)) {
        n = 0;
    } else if (read_grouped(&p, end, &n)) {
        thousandths = 0;
    } else if (is_digit(*p)) {
        n = read_number(&p, end);
        thousandths = read_fraction(&p, end);
        n = thousandths > 0 ? n : read_range(n, &p, end);
    } else {
        n = is_letter(*p) ? read_word(&p, end) : read_kanji(&p, end);
    }
    if (p == *at || (*unit = read_unit(&p, end)) == 0)
        return 0;
    *at = p;
    return n * *unit + (uint64_t)thousandths * *unit / 1000;
}

static const char *skip_joint(const char *p, const char *end)
{
    static const char *const joints[] = {",", "and ", "& ", "、", "と"};

    p = skip_blanks(p, end);
    for (size_t i = 0; i < sizeof joints / sizeof *joints; i++)
        if (begins(p, end, joints[i]))
            p = skip_blanks(p + strlen(joints[i]), end);
    return p;
}

/* "1 hour 20 minutes", "1h20m", "1 hour, 20 minutes and 5 seconds": each unit smaller than the one before. */
static uint64_t read_duration(const char **at, const char *end)
{
    uint32_t unit = 0, next_unit = 0;
    uint64_t sum = read_part(at, end, &unit);

    while (sum > 0) {
        const char *p = skip_joint(*at, end);
        uint64_t part = p < end && is_digit(*p) ? read_part(&p, end, &next_unit) : 0;

        if (part == 0 || next_unit >= unit)
            break;
        sum += part;
        unit = next_unit;
        *at = p;
    }
    return *at < end && is_digit(**at) ? 0 : sum; /* "12h34" is no time */
}

/* "00:05:00", as greylisting says it, or "05:00 minutes". *at is behind the first number. */
static uint64_t read_clock(uint64_t first, const char **at, const char *end)
{
    uint64_t parts[3] = {first, 0, 0};
    uint32_t unit;
    int n = 1;

    while (n < 3 && end - *at >= 2 && **at == ':' && is_digit((*at)[1])) {
        ++*at;
        parts[n] = read_number(at, end);
        if (parts[n++] > 59)
            return 0;
    }
    if (parts[0] > HKY_WAIT_MAX_SEC / 60)
        return 0;
    if (n == 3)
        return parts[0] * 3600 + parts[1] * 60 + parts[2];
    unit = n == 2 ? read_unit(at, end) : 0;
    return unit >= 60 ? parts[0] * unit + parts[1] * (unit / 60) : 0;
}

/* "p1dt2h", "pt5m" (ISO 8601); *at is at the p. */
static uint64_t read_iso(const char **at, const char *end)
{
    static const struct {
        char letter;
        bool is_time;
        uint32_t seconds;
    } units[] = {{'d', false, 86400}, {'h', true, 3600}, {'m', true, 60}, {'s', true, 1}};
    const char *p = *at + 1;
    bool is_time = false;
    uint64_t sum = 0;

    while (p < end) {
        const char *start = p;
        size_t i = 0;
        uint64_t n;

        if (*p == 't' && !is_time) {
            is_time = true;
            p++;
            continue;
        }
        n = read_number(&p, end);
        if (p == start)
            break;
        while (p < end && i < 4 && (units[i].letter != *p || units[i].is_time != is_time))
            i++;
        if (p == end || i == 4 || n > HKY_WAIT_MAX_SEC)
            return 0;
        sum += n * units[i].seconds;
        p++;
    }
    if (p < end && (is_letter(*p) || *p == '-'))
        return 0;
    *at = p;
    return sum;
}

/* ---- what the words around a number say ---- */

static bool holds_one(struct hky_str text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (hky_str_ifind(text, hky_str_z(*words)) != NULL)
            return true;
    return false;
}

static bool begins_with_one(struct hky_str text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (hky_str_istarts(text, hky_str_z(*words)))
            return true;
    return false;
}

static bool ends_with_one(struct hky_str text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (hky_str_iends(text, hky_str_z(*words)))
            return true;
    return false;
}

/* "30 messages in", "5 per": what follows is the time in which so many are counted. */
static bool is_rate(struct hky_str before)
{
    static const char *const joints[] = {" in", " within", " per", " every", " each", NULL};
    static const char *const waiting[] = {"again", "retr", "wait", "back", "resume", NULL};
    struct hky_str s = hky_str_trim(before);
    size_t n = s.n;

    if (!ends_with_one(s, joints))
        return false;
    while (n > 0 && (is_letter(s.p[n - 1]) || s.p[n - 1] == ' '))
        n--;
    return n > 0 && is_digit(s.p[n - 1]) && !holds_one(hky_str_of(s.p + n, s.n - n), waiting);
}

/* Do the words behind a Japanese time speak of waiting, as in "5分後", "5分間お待ち", "5分ほどあけて"? "1分間に100通"
 * and "1時間あたり" do not. */
static bool waits_in_japanese(struct hky_str behind)
{
    static const char *const counted[] = {"に", "間に", "あたり", "間あたり", "当", "毎", "ごと", NULL};
    static const char *const waited[] = {"後", "待", "あけ", "空け", "おいて", "置いて", "経って", "経過して", NULL};

    return !begins_with_one(behind, counted) && holds_one(behind, waited);
}

enum sense { NO_WAIT, MAY_BE_WAIT, IS_WAIT };

/* Does the text around [at, to) speak of waiting, so that the number is no size, port or count, nor the time in which
 * something happened ("30 messages in 1 day", "10 seconds ago")? `from` is the place behind the number before it. */
static enum sense sense_of(const struct said *s, size_t from, size_t at, size_t to)
{
    static const char *const past_behind[] = {"ago",         "elapsed", "have elapsed", "passed",
                                              "have passed", "old",     "前",           NULL};
    static const char *const past_before[] = {"waited", "waited for", "elapsed", "elapsed:", "since",
                                              "last",   "past",       "過去",    "過去の",   NULL};
    static const char *const plain_before[] = {"again",   "retry",      "retries",     "wait",         "come back",
                                               "back in", "resume",     "for another", "for the next", "remaining",
                                               "until",   "not before", "time left",   "erneut",       "warten",
                                               "essayer", "essayez",    "riprova",     "reintent",     NULL};

    static const char *const plain_behind[] = {"erneut",  "later",    "remaining", "left",       "to go", "before",
                                               "and try", "then try", "and retry", "then retry", NULL};
    static const char *const other_before[] = {"after ",        "later",      "delay",        "deferred",
                                               "greylist",      "graylist",   "locked for",   "paused for",
                                               "suspended for", "banned for", "disabled for", NULL};
    static const char *const other_behind[] = {"later",     "before",     "and try", "then try",
                                               "and retry", "then retry", NULL};
    size_t start = at > from + BEFORE ? at - BEFORE : from, n = s->n - to < BEHIND ? s->n - to : BEHIND;
    struct hky_str before = hky_str_of(s->text + start, at - start), behind = hky_str_of(s->text + to, n);
    struct hky_str next = hky_str_trim(behind);

    if (begins_with_one(next, past_behind) || ends_with_one(hky_str_trim(before), past_before) || is_rate(before))
        return NO_WAIT;
    if (holds_one(before, plain_before) || begins_with_one(next, plain_behind) || waits_in_japanese(next))
        return IS_WAIT;
    return holds_one(before, other_before) || holds_one(behind, other_behind) ? MAY_BE_WAIT : NO_WAIT;
}

/* Is it as in "Retry-After: 120", seconds without a unit? When there is no colon, only the end of a sentence may follow
 * the number. */
static bool is_retry_after(const struct said *s, size_t at, size_t to)
{
    static const char *const names[] = {"retry-after", "retry after", "retry_after", "retryafter", NULL};
    size_t n = at;
    bool has_colon = false;
    char next = to < s->n ? s->text[to] : '\0';

    while (n > 0 && strchr(" :=\"", s->text[n - 1]) != NULL) {
        has_colon |= s->text[n - 1] == ':' || s->text[n - 1] == '=';
        n--;
    }
    if (is_letter(next) || next == ':' || next == '-' || (next == '.' && to + 1 < s->n && is_digit(s->text[to + 1])))
        return false;
    if (!has_colon && next == ' ' && to + 1 < s->n && isalnum((unsigned char)s->text[to + 1]))
        return false;
    for (const char *const *name = names; *name != NULL; name++)
        if (n >= strlen(*name) && memcmp(s->text + n - strlen(*name), *name, strlen(*name)) == 0)
            return true;
    return false;
}

/* ---- the text ---- */

static bool is_at_word(const struct said *s, const char *p)
{
    return p == s->text || (!isalnum((unsigned char)p[-1]) && p[-1] != '.' && p[-1] != ':' && p[-1] != '-');
}

/* "2026 23:50:00" is a time of day. */
static bool is_behind_number(const struct said *s, const char *p)
{
    while (p > s->text && p[-1] == ' ')
        p--;
    return p > s->text && is_digit(p[-1]);
}

/* Reads the time that begins at *at and moves *at behind it, or by one octet. 0: no time begins there. */
static uint64_t read_time(const struct said *s, const char **at)
{
    const char *p = *at, *end = s->text + s->n, *behind;
    uint64_t seconds;
    int64_t moment;

    *at = p + 1;
    if (!is_at_word(s, p) && !((unsigned char)*p >= 0x80 || (unsigned char)p[-1] >= 0x80))
        return 0;
    if (hky_moment_read(&p, end, &moment)) {
        *at = p;
        return seconds_until(s, moment);
    }
    if (*p == 'p') {
        seconds = read_iso(&p, end);
    } else if (!is_digit(*p)) {
        seconds = read_duration(&p, end);
    } else {
        behind = p;
        seconds = read_number(&behind, end);
        if (behind < end && *behind == ':')
            seconds = read_clock(seconds, &behind, end) * !is_behind_number(s, p);
        else if (!is_retry_after(s, (size_t)(p - s->text), (size_t)(behind - s->text)))
            seconds = 0;
        uint64_t duration = read_duration(&p, end);
        if (duration > 0)
            seconds = duration;
        else
            p = behind; /* skips the whole number */
    }
    if (p > *at)
        *at = p;
    return seconds;
}

uint32_t hky_wait_asked_sec(const struct hky_reply *r, int64_t now_ms)
{
    struct said s;
    uint32_t maybe = 0;
    size_t from = 0;

    said_init(&s, r, now_ms);
    for (const char *p = s.text; p < s.text + s.n;) {
        size_t at = (size_t)(p - s.text), to;
        uint64_t seconds = read_time(&s, &p);
        enum sense sense;

        if (seconds == 0)
            continue;
        to = (size_t)(p - s.text);
        sense = seconds <= HKY_WAIT_MAX_SEC ? sense_of(&s, from, at, to) : NO_WAIT;
        if (sense == IS_WAIT)
            return (uint32_t)seconds;
        if (sense == MAY_BE_WAIT && maybe == 0)
            maybe = (uint32_t)seconds;
        from = to;
    }
    return maybe;
}
