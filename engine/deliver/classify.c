#include "deliver/wait.h"
#include "hikyaku/outcome.h"

#include "base/error.h"

#include <stdio.h>

/*
 * Rules come first, then what stage and code say by themselves. A failing reply is compared with some two hundred rules
 * of a thousand phrases. The pairs of neighbouring octets that occur in the text are kept as a small set, so that
 * nearly every phrase is ruled out by one or two look-ups and never searched for.
 */
#define PAIRS 4096
struct view {
    const struct hky_classify_query *q;
    const struct hky_reply *reply;
    size_t n;
    bool has_enhanced;
    char enhanced[16];               /* "5.7.515" */
    char text[HKY_REPLY_TEXT + 1];   /* lower case */
    char spoken[HKY_REPLY_TEXT + 1]; /* the same, with blanks in place of addresses, whose words others choose */
    uint64_t pairs[PAIRS / 64];
};

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
    /* An enhanced code whose first digit contradicts the reply code is ignored: RFC 5321 makes us obey the reply code.
     */
    v->has_enhanced = r->enhanced[0] != 0 && (r->code == 0 || r->code / 100 == r->enhanced[0]);
    v->enhanced[0] = '\0';
    if (v->has_enhanced)
        snprintf(v->enhanced, sizeof v->enhanced, "%u.%u.%u", r->enhanced[0] % 10U, r->enhanced[1] % 1000U,
                 (unsigned)r->enhanced_detail);
}

/* The first place of a piece (without '*') at or after `at`; '?' matches any one octet. SIZE_MAX: there is none. */
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

/* The next of the alternatives that '|' joins; false at the end. */
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

    /* The cheap comparisons come first. */
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
    /* A reply about a quota stops an account, and whoever chooses an address must not be able to cause that. */
    const char *text = rule->class == HKY_CLASS_QUOTA_EXHAUSTED ? v->spoken : v->text;
    return (!is_stated(rule->text) || text_fits(v, text, rule->text)) &&
           (!is_stated(rule->with) || text_fits(v, text, rule->with)) &&
           (!is_stated(rule->without) || !text_fits(v, text, rule->without));
}

/* The longest wait that is believed: a text that names a longer time speaks of something else, or of something for
 * which we cannot wait. */
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

struct judgement {
    enum hky_class class;
    enum hky_scope scope;
};

static struct judgement judged(enum hky_class class, enum hky_scope scope)
{
    return (struct judgement){class, scope};
}

/* A failure on the way to a recipient's MX concerns that path; on the way to a relay, the whole relay. */
static enum hky_scope scope_of_path(const struct view *v)
{
    return v->q->is_own ? HKY_SCOPE_PATH : HKY_SCOPE_RELAY;
}

static struct judgement judge_local(const struct view *v, bool *is_temporary)
{
    *is_temporary = true;
    switch (v->reply->origin) {
    case HKY_ORIGIN_DNS:
        if (v->q->is_own && text_fits(v, v->text,
                                      "nxdomain|null mx|does not exist|no such domain|accepts no mail|not found|"
                                      "no mail is accepted|no mx and no address")) {
            *is_temporary = false;
            return judged(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        }
        return judged(HKY_CLASS_NETWORK, scope_of_path(v));
    case HKY_ORIGIN_TLS:
        *is_temporary = false;
        return judged(HKY_CLASS_TLS, scope_of_path(v));
    case HKY_ORIGIN_LOCAL:
        if (text_fits(v, v->text, "not an smtp reply")) /* the peer is broken, not the message */
            return judged(HKY_CLASS_NETWORK, scope_of_path(v));
        *is_temporary = false;
        if (v->q->stage == HKY_STAGE_TLS)
            return judged(HKY_CLASS_TLS, scope_of_path(v));
        if (v->q->stage == HKY_STAGE_AUTH)
            return judged(HKY_CLASS_RELAY_AUTH, HKY_SCOPE_RELAY);
        return judged(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
    case HKY_ORIGIN_POLICY:
        return judged(HKY_CLASS_UNKNOWN, HKY_SCOPE_MESSAGE);
    default:
        return judged(HKY_CLASS_NETWORK, scope_of_path(v));
    }
}

/* By the enhanced code alone (RFC 3463, RFC 5248, RFC 7372, RFC 7504, RFC 7505). UNKNOWN: the enhanced code does not
 * decide. */
static struct judgement judge_enhanced(const struct view *v)
{
    const struct hky_reply *r = v->reply;
    bool is_permanent = r->code >= 500;
    unsigned detail = r->enhanced_detail;

    switch (r->enhanced[1]) {
    case 1:
        if (detail == 2 || detail == 10)
            return judged(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        if (detail == 3)
            return judged(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_RECIPIENT);
        if (detail == 7 || detail == 8)
            return judged(HKY_CLASS_AUTH_POLICY, HKY_SCOPE_SENDER);
        if (is_permanent && (detail <= 1 || detail == 4 || detail == 6) && v->q->stage >= HKY_STAGE_RCPT)
            return judged(HKY_CLASS_BAD_MAILBOX, HKY_SCOPE_RECIPIENT);
        break;
    case 2:
        if (detail == 1 && is_permanent)
            return judged(HKY_CLASS_INACTIVE, HKY_SCOPE_RECIPIENT);
        if (detail == 2)
            return judged(HKY_CLASS_MAILBOX_FULL, HKY_SCOPE_RECIPIENT);
        if (detail == 3)
            return judged(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
        break;
    case 3:
        if (detail == 4)
            return judged(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
        if (detail == 2 && is_permanent && v->q->is_own)
            return judged(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        if (!is_permanent || detail == 5)
            return judged(HKY_CLASS_SYSTEM_TEMP, scope_of_path(v));
        break;
    case 4:
        if (detail == 5)
            return judged(HKY_CLASS_RATE_LIMITED, scope_of_path(v));
        if (detail == 4 && is_permanent)
            return judged(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
        if (is_permanent) /* a permanent refusal is no trouble on the way: the next attempt would get the same answer */
            break;
        return judged(HKY_CLASS_NETWORK, scope_of_path(v));
    case 5:
        if (detail == 3)
            return judged(HKY_CLASS_RATE_LIMITED, scope_of_path(v));
        break;
    case 6:
        return judged(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
    case 7:
        if (detail == 8 || detail == 9)
            return v->q->is_own ? judged(HKY_CLASS_AUTH_POLICY, HKY_SCOPE_SENDER)
                                : judged(HKY_CLASS_RELAY_AUTH, HKY_SCOPE_RELAY);
        if (detail == 13)
            return judged(HKY_CLASS_INACTIVE, HKY_SCOPE_RECIPIENT);
        if (is_permanent)
            return judged(HKY_CLASS_AUTH_POLICY, HKY_SCOPE_SENDER);
        break;
    default:
        break;
    }
    return judged(HKY_CLASS_UNKNOWN, HKY_SCOPE_PATH);
}

static struct judgement judge_remote(const struct view *v)
{
    const struct hky_reply *r = v->reply;
    bool is_permanent = r->code >= 500;
    struct judgement by_enhanced;

    switch (v->q->stage) {
    case HKY_STAGE_AUTH:
        return judged(is_permanent ? HKY_CLASS_RELAY_AUTH : HKY_CLASS_SYSTEM_TEMP, HKY_SCOPE_RELAY);
    case HKY_STAGE_TLS:
        return judged(HKY_CLASS_TLS, scope_of_path(v));
    case HKY_STAGE_CONNECT:
    case HKY_STAGE_GREETING:
    case HKY_STAGE_HELLO:
        /* Up to here we have only said who we are, so a refusal is about our address. */
        return judged(is_permanent ? HKY_CLASS_BLOCKED_IP : HKY_CLASS_SYSTEM_TEMP, scope_of_path(v));
    default:
        break;
    }
    if (r->code == 421)
        return judged(HKY_CLASS_SYSTEM_TEMP, scope_of_path(v));
    if (v->has_enhanced) {
        by_enhanced = judge_enhanced(v);
        if (by_enhanced.class != HKY_CLASS_UNKNOWN)
            return by_enhanced;
    }
    if (r->code == 552 || r->code == 555)
        return judged(HKY_CLASS_SIZE_FORMAT, HKY_SCOPE_MESSAGE);
    if (r->code == 556 && v->q->is_own) /* RFC 7504 */
        return judged(HKY_CLASS_BAD_DOMAIN, HKY_SCOPE_DOMAIN);
    if (r->code == 451 || r->code == 452)
        return judged(HKY_CLASS_SYSTEM_TEMP, scope_of_path(v));
    if (v->q->stage == HKY_STAGE_MAIL)
        return judged(HKY_CLASS_UNKNOWN, v->q->is_own ? HKY_SCOPE_SENDER : HKY_SCOPE_RELAY);
    if (v->q->stage == HKY_STAGE_RCPT)
        return judged(HKY_CLASS_UNKNOWN, v->q->is_own ? HKY_SCOPE_RECIPIENT : HKY_SCOPE_RELAY);
    return judged(HKY_CLASS_UNKNOWN, HKY_SCOPE_MESSAGE);
}

void hky_classify(const struct hky_class_rule *rules, size_t n_rules, const struct hky_classify_query *q,
                  struct hky_outcome *out)
{
    const struct hky_reply *r = q->reply;
    struct view v;
    struct judgement judgement = {HKY_CLASS_UNKNOWN, HKY_SCOPE_PATH};
    bool is_temporary = r->code / 100 == 4 || r->code / 100 == 3;
    uint32_t retry_after = 0;
    size_t i = 0;

    HKY_ASSERT(q->provider != NULL && q->mx != NULL && (unsigned)q->stage < HKY_STAGE_N && q->now_ms > 0);
    *out = (struct hky_outcome){.class = HKY_CLASS_OK, .scope = HKY_SCOPE_RECIPIENT, .stage = q->stage, .reply = *r};
    if (r->origin == HKY_ORIGIN_REMOTE && r->code / 100 == 2)
        return;
    view_init(&v, q);
    while (i < n_rules && !rule_fits(&rules[i], &v))
        i++;
    if (r->code == 0)
        judgement = judge_local(&v, &is_temporary);
    else if (i == n_rules)
        judgement = judge_remote(&v);
    if (i < n_rules) {
        judgement = judged(rules[i].class, rules[i].scope);
        retry_after = rules[i].retry_after_sec;
    }
    /* A wait that the server names is used; after a permanent refusal only where waiting is the cure. Texts of our own
     * ("timed out after 30 s") name no time to wait. */
    bool is_curable = is_temporary || judgement.class == HKY_CLASS_RATE_LIMITED ||
                      judgement.class == HKY_CLASS_QUOTA_EXHAUSTED || judgement.class == HKY_CLASS_BLOCKED_IP ||
                      judgement.class == HKY_CLASS_RELAY_AUTH || judgement.class == HKY_CLASS_RELAY_DENIED;
    if (r->code != 0 && is_curable) {
        uint32_t named = hky_wait_asked_sec(r, q->now_ms);

        if (named != 0 && named <= believable_wait(judgement.class))
            retry_after = named;
    }
    out->class = judgement.class;
    out->scope = judgement.scope == HKY_SCOPE_PATH ? scope_of_path(&v) : judgement.scope;
    out->is_temporary = is_temporary;
    out->retry_after_sec = retry_after;
}
