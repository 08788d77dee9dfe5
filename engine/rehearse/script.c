/* Relays that answer as a script says. Its lines are read by the same rules as a server's reply. */
#include "rehearse/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define REPLIES_MOST 10000

static struct hky_str next_word(struct hky_str *rest)
{
    struct hky_str word = *rest = hky_str_trim(*rest);
    const char *space = rest->n > 0 ? memchr(rest->p, ' ', rest->n) : NULL;

    if (space != NULL)
        word.n = (size_t)(space - rest->p);
    rest->p += word.n;
    rest->n -= word.n;
    return word;
}

/* Is the text neither a reply code nor a word for a failure before any reply? Then it is most likely a misspelt class.
 */
static bool says_nothing(const struct hky_reply *reply)
{
    static const char *const WORDS[] = {"refused", "reset", "unreachable", "connect", "closed"};

    if (reply->code != 0 || reply->origin != HKY_ORIGIN_CONNECT)
        return false;
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (hky_str_ifind(hky_str_of(reply->text, reply->n), hky_str_z(WORDS[i])) != NULL)
            return false;
    return true;
}

static enum hky_err not_understood(struct hky_error *e)
{
    return hky_error_set(e, HKY_E_SYNTAX,
                         "a reply (550 5.1.1 no), a class (mailbox_full), or refused, reset, unreachable, timeout, "
                         "lost, tls, dns is expected");
}

/* Reads "[STAGE] REPLY" or a class, as far as that needs no recipient. */
static enum hky_err parse_reply(struct hky_str text, struct hky_outcome *out, bool *is_class, struct hky_error *e)
{
    struct hky_str rest = text, word = next_word(&rest);

    *out = (struct hky_outcome){.stage = HKY_STAGE_NONE};
    *is_class = hky_str_trim(rest).n == 0 && hky_class_parse(word, &out->class);
    if (*is_class) {
        out->stage = HKY_STAGE_DOT;
        out->is_temporary = out->class == HKY_CLASS_RATE_LIMITED || out->class == HKY_CLASS_NETWORK ||
                            out->class == HKY_CLASS_SYSTEM_TEMP;
        return HKY_OK;
    }
    if (hky_stage_parse(word, &out->stage))
        text = rest;
    if (hky_str_trim(text).n == 0)
        return not_understood(e);
    hky_reply_from_text(&out->reply, hky_str_trim(text));
    if (says_nothing(&out->reply))
        return not_understood(e);
    if (out->stage == HKY_STAGE_NONE)
        out->stage = out->reply.code == 0 ? HKY_STAGE_CONNECT : out->reply.code < 300 ? HKY_STAGE_DOT : HKY_STAGE_RCPT;
    return HKY_OK;
}

enum hky_err hky_rehearsal_read_reply(const struct hky_rehearsal *r, const struct hky_relay *relay,
                                      const struct hky_recipient *to, struct hky_str text, struct hky_outcome *out,
                                      struct hky_error *e)
{
    struct hky_str domain = hky_recipient_domain(to);
    struct hky_classify_query q = {
        .provider = "", .mx = "", .address = hky_recipient_address(to), .now_ms = hky_clock_now_ms(&r->clock)};
    struct hky_reply reply;
    char mx[256];
    bool is_class;
    enum hky_err err = parse_reply(text, out, &is_class, e);

    if (err != HKY_OK || is_class)
        return err;
    reply = out->reply;
    q.stage = out->stage;
    q.reply = &reply;
    if (relay != NULL) {
        q.is_own = relay->is_mx;
        q.provider = relay->is_mx ? "own" : relay->preset;
        snprintf(mx, sizeof mx, "%.*s", HKY_STR_ARG(domain));
        q.mx = relay->is_mx ? mx : relay->host;
    }
    hky_classify(r->policy->rules, r->policy->n_rules, &q, out);
    if (q.stage == HKY_STAGE_DOT && reply.code == 0 &&
        (reply.origin == HKY_ORIGIN_LOST || reply.origin == HKY_ORIGIN_TIMEOUT))
        out->class = HKY_CLASS_AMBIGUOUS;
    return HKY_OK;
}

const struct hky_relay *hky_rehearsal_relay_named(const struct hky_policy *policy, struct hky_str text)
{
    const struct hky_relay *found = NULL;

    for (uint32_t i = 0; i < policy->n_relays; i++) {
        struct hky_str name = hky_str_z(policy->relays[i].name);
        bool is_it =
            text.n >= name.n && memcmp(text.p, name.p, name.n) == 0 && (text.n == name.n || text.p[name.n] == ' ');
        if (is_it && (found == NULL || name.n > strlen(found->name)))
            found = &policy->relays[i];
    }
    return found;
}

enum hky_err hky_rehearsal_add_reply(struct hky_rehearsal *r, const char *line, struct hky_error *e)
{
    struct hky_str text = hky_str_trim(hky_str_z(line)), rest;
    const struct hky_relay *relay = hky_rehearsal_relay_named(r->policy, text);
    struct hky_rehearsal_reply reply = {0};
    struct hky_outcome o;
    struct hky_error why = {0};
    bool is_class;

    if (relay == NULL)
        return hky_error_set(e, HKY_E_SYNTAX, "\"%.100s\" does not begin with the name of a relay", line);
    if (r->n_replies == REPLIES_MOST)
        return hky_error_set(e, HKY_E_LIMIT, "a script has at most %d replies", REPLIES_MOST);
    text.p += strlen(relay->name);
    text.n -= strlen(relay->name);
    rest = text;
    if (hky_str_eq(next_word(&rest), HKY_STR("always"))) {
        reply.is_always = true;
        text = rest;
    }
    if (parse_reply(text, &o, &is_class, &why) != HKY_OK)
        return hky_error_set(e, HKY_E_SYNTAX, "\"%.80s\": after the relay's name %.120s", line, why.text);
    reply.relay = hky_strdup(relay->name);
    reply.text = hky_str_dup(hky_str_trim(text));
    r->replies = hky_realloc(r->replies, (r->n_replies + 1) * sizeof *r->replies);
    r->replies[r->n_replies++] = reply;
    return HKY_OK;
}

void rehearse_free_replies(struct hky_rehearsal *r)
{
    for (size_t i = 0; i < r->n_replies; i++) {
        free(r->replies[i].relay);
        free(r->replies[i].text);
    }
    free(r->replies);
}

static struct hky_rehearsal_reply *next_line(struct hky_rehearsal *r, const char *relay)
{
    struct hky_rehearsal_reply *always = NULL;

    for (size_t i = 0; i < r->n_replies; i++) {
        struct hky_rehearsal_reply *l = &r->replies[i];
        if (l->is_used || strcmp(l->relay, relay) != 0)
            continue;
        if (!l->is_always) {
            l->is_used = true;
            return l;
        }
        always = always == NULL ? l : always;
    }
    return always;
}

void rehearse_reply_for(struct hky_rehearsal *r, const struct hky_job *job, const struct hky_recipient *to,
                        struct hky_rehearsal_reply **line, struct hky_outcome *out)
{
    bool is_class = false;
    struct hky_error e;

    if (*line != NULL) { /* the line is for the whole transaction, unless it is about one recipient */
        (void)parse_reply(hky_str_z((*line)->text), out, &is_class, &e);
        is_class = is_class || out->stage == HKY_STAGE_RCPT;
    }
    if (*line == NULL || is_class)
        *line = next_line(r, job->lane->relay_name);
    if (*line == NULL || hky_rehearsal_read_reply(r, job->lane->relay, to, hky_str_z((*line)->text), out, &e) != HKY_OK)
        (void)hky_rehearsal_read_reply(r, job->lane->relay, to, HKY_STR("250 ok"), out, &e);
}
