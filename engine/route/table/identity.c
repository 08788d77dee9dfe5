/* Chooses From and envelope sender of an attempt, see "WHO SENDS" in hikyaku-policy(5). */
#include "base/hash.h"
#include "hikyaku/route.h"
#include "mail/address.h"

#include <stdio.h>

static void put(char out[322], struct hky_str s)
{
    size_t n = s.n < 321 ? s.n : 321;

    if (n > 0)
        memcpy(out, s.p, n);
    out[n] = 0;
}

static bool may_send_as(const struct hky_relay *relay, struct hky_str author)
{
    for (size_t i = 0; relay->sends_as[i] != NULL; i++)
        if (hky_address_fits(hky_str_z(relay->sends_as[i]), author))
            return true;
    return false;
}

static bool may_send_as_anyone(const struct hky_relay *relay)
{
    for (size_t i = 0; relay->sends_as[i] != NULL; i++)
        if (strcmp(relay->sends_as[i], "*") == 0)
            return true;
    return false;
}

/* {id} and {rcpt} replaced; false when the result is no address. {rcpt} is local=domain, as VERP writes it. */
static bool fill(const char *pattern, const struct hky_message *m, const struct hky_recipient *r, char out[322])
{
    struct hky_buf b;
    struct hky_str address = hky_recipient_address(r);
    const char *at = memrchr(address.p, '@', address.n);
    struct hky_address checked;
    char id[HKY_ID_TEXT];
    bool ok;

    hky_id_format(m->id, id);
    hky_buf_init(&b, 321);
    while (*pattern != 0) {
        if (strncmp(pattern, "{id}", 4) == 0) {
            hky_buf_add_z(&b, id);
            pattern += 4;
        } else if (strncmp(pattern, "{rcpt}", 6) == 0) {
            for (size_t i = 0; i < address.n; i++)
                hky_buf_add_c(&b, address.p + i == at ? '=' : address.p[i]);
            pattern += 6;
        } else {
            hky_buf_add_c(&b, *pattern++);
        }
    }
    ok = !b.is_over && hky_mailbox_parse(hky_buf_str(&b), &checked, NULL) == HKY_OK;
    if (ok)
        put(out, hky_address_str(&checked));
    hky_buf_fini(&b);
    return ok;
}

static void choose_sender(const struct hky_relay *relay, const struct hky_plan *plan, const struct hky_step *step,
                          const struct hky_message *m, const struct hky_recipient *r, struct hky_identity *out)
{
    struct hky_str sender = hky_message_fact(m, HKY_FACT_SENDER);
    const char *envelope = step->envelope != NULL   ? step->envelope
                           : plan->envelope != NULL ? plan->envelope
                                                    : relay->envelope;

    out->sender[0] = 0;
    if (sender.n == 0)
        return; /* the null sender stays null */
    if (envelope != NULL && envelope[0] != 0 && fill(envelope, m, r, out->sender))
        return;
    if (out->is_rewritten)
        put(out->sender, hky_str_z(out->from));
    else
        put(out->sender, sender);
}

void hky_identity_choose(const struct hky_policy *policy, const struct hky_relay *relay, const struct hky_plan *plan,
                         uint8_t step_index, const struct hky_message *message, const struct hky_recipient *recipient,
                         struct hky_identity *out)
{
    const struct hky_step *step = &plan->steps[step_index];
    struct hky_str author = hky_message_fact(message, HKY_FACT_AUTHOR);
    const char *from = step->from != NULL ? step->from : plan->from;
    const char *reply_to = step->reply_to != NULL ? step->reply_to : plan->reply_to;
    bool may = may_send_as(relay, author), is_stated = from != NULL && from[0] != 0;
    bool is_never_rewritten = !is_stated && (from != NULL || relay->never_rewrite);

    (void)policy;
    HKY_ASSERT(step_index < plan->n_steps);
    *out = (struct hky_identity){.is_allowed = true};
    put(out->from, author);
    if (is_stated) {
        put(out->from, hky_str_z(from));
    } else if (!may) {
        out->is_allowed = !is_never_rewritten && relay->from[0] != 0;
        if (out->is_allowed)
            put(out->from, hky_str_z(relay->from));
    }
    out->is_rewritten = !hky_str_ieq(hky_str_z(out->from), author);
    if (!out->is_rewritten)
        put(out->from, author);
    /* the author of the facts is the first of those in From */
    out->is_alone = out->from[0] != 0 && (is_stated || (!is_never_rewritten && !may_send_as_anyone(relay)));
    choose_sender(relay, plan, step, message, recipient, out);
    if (reply_to != NULL && reply_to[0] != 0) {
        put(out->reply_to, hky_str_z(reply_to));
        out->reply_to_forced = true;
    } else if (out->is_rewritten) {
        put(out->reply_to, author);
    }
}
