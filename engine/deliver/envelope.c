/* The envelope of a delivery as commands, or why this server cannot take it. */
#include "deliver/delivery.h"
#include "smtp/envelope.h"

#include <stdio.h>

#define LINE_MOST 4096 /* of a command; addresses, ENVID and ORCPT have bounds of their own, which are much lower */

static bool is_ascii(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return false;
    return true;
}

static bool refuse_all(struct hky_delivery_obstacle *why, enum hky_class class, const char *text)
{
    why->class = class;
    snprintf(why->text, sizeof(why->text), "%s", text);
    return false;
}

static bool has_utf8_recipient(const struct hky_delivery *x)
{
    for (unsigned i = 0; i < x->txn.n; i++)
        if (x->txn.verdicts[i] != HKY_VERDICT_REPORTED && !is_ascii(hky_recipient_address(x->recipients[i])))
            return true;
    return false;
}

static bool check_message(const struct hky_delivery *x, const struct hky_capabilities *caps, bool *needs_utf8,
                          struct hky_delivery_obstacle *why)
{
    const struct hky_message *m = x->message;
    struct hky_str sender = hky_str_z(x->identity->sender);
    if (!hky_envelope_is_one_line(sender))
        return refuse_all(why, HKY_CLASS_SIZE_FORMAT, "the envelope sender has control octets");
    /* Addresses may need SMTPUTF8 although the message did not ask for it: those of a failure notice, for example. */
    *needs_utf8 = m->is_smtputf8 || !is_ascii(sender) || (caps->smtputf8 && has_utf8_recipient(x));
    if (*needs_utf8 && !caps->smtputf8)
        return refuse_all(why, HKY_CLASS_SIZE_FORMAT, "5.6.7 the server does not offer SMTPUTF8, which this needs");
    if (m->is_binary)
        return refuse_all(why, HKY_CLASS_SIZE_FORMAT, "5.6.1 binary content (BINARYMIME) is not sent on");
    if (m->is_8bit && !caps->eightbit)
        return refuse_all(why, HKY_CLASS_SIZE_FORMAT, "5.6.3 the server does not offer 8BITMIME, which this needs");
    if (caps->has_size && caps->size > 0 && m->size > caps->size) {
        why->class = HKY_CLASS_SIZE_FORMAT;
        snprintf(why->text, sizeof(why->text), "5.3.4 the message has %llu octets, the server takes %llu",
                 (unsigned long long)m->size, (unsigned long long)caps->size);
        return false;
    }
    return true;
}

static void add_mail(struct hky_delivery *x, const struct hky_capabilities *caps, bool is_raw, bool needs_utf8)
{
    const struct hky_message *m = x->message;
    struct hky_mail_line line = {
        .sender = hky_str_z(x->identity->sender),
        .is_raw = is_raw,
        .is_8bit = m->is_8bit,
        .needs_utf8 = needs_utf8,
        .size = m->size,
        .ret = m->ret == HKY_RET_UNSET  ? ""
               : m->ret == HKY_RET_FULL ? "FULL"
                                        : "HDRS",
        .envid = hky_message_fact(m, HKY_FACT_ENVID),
    };
    hky_mail_line_write(&line, caps, &x->txn.commands);
}

static void add_rcpt(struct hky_delivery *x, const struct hky_recipient *r, struct hky_str address,
                     const struct hky_capabilities *caps, bool is_raw)
{
    struct hky_rcpt_line line = {.address = address, .is_raw = is_raw, .notify = r->notify};
    if (r->orcpt_n > 0)
        line.orcpt = hky_recipient_orcpt(r);
    hky_rcpt_line_write(&line, caps, &x->txn.commands);
}

bool hky_delivery_build_envelope(struct hky_delivery *x, const struct hky_capabilities *caps, bool is_raw,
                                 struct hky_delivery_obstacle *why,
                                 void (*refuse)(void *ctx, unsigned i, const struct hky_delivery_obstacle *why),
                                 void *ctx)
{
    bool needs_utf8;
    if (!check_message(x, caps, &needs_utf8, why))
        return false;
    add_mail(x, caps, is_raw, needs_utf8);
    unsigned n_written = 0;
    for (unsigned i = 0; i < x->txn.n; i++) {
        if (x->txn.verdicts[i] == HKY_VERDICT_REPORTED)
            continue;
        struct hky_str address = hky_recipient_address(x->recipients[i]);
        struct hky_delivery_obstacle one = {.class = HKY_CLASS_SIZE_FORMAT};
        if (!is_ascii(address) && !needs_utf8)
            snprintf(one.text, sizeof(one.text), "5.6.7 the address needs SMTPUTF8, which the server does not offer");
        else if (!hky_envelope_is_one_line(address))
            snprintf(one.text, sizeof(one.text), "5.1.3 the address has control octets");
        if (one.text[0] != '\0') {
            x->txn.verdicts[i] = HKY_VERDICT_REPORTED;
            refuse(ctx, i, &one);
            continue;
        }
        if (n_written > 0 && x->txn.commands.max - x->txn.commands.n < LINE_MOST) {
            x->txn.verdicts[i] = HKY_VERDICT_REPORTED;
            x->n_left++;
            continue;
        }
        add_rcpt(x, x->recipients[i], address, caps, is_raw);
        n_written++;
    }
    if (n_written == 0) {
        why->text[0] = '\0'; /* each recipient was given a reason already */
        return false;
    }
    if (!x->txn.is_dry)
        hky_buf_add_str(&x->txn.commands, HKY_STR("DATA\r\n"));
    if (x->txn.commands.is_over)
        return refuse_all(why, HKY_CLASS_SIZE_FORMAT, "too many recipients for one envelope");
    return true;
}
