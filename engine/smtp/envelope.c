#include "smtp/envelope.h"

#include "hikyaku/message.h"
#include "mail/address.h"

bool hky_envelope_is_one_line(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return true;
}

static void add_xtext(struct hky_buf *out, struct hky_str s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c > 0x20 && c < 0x7f && c != '+' && c != '=') {
            hky_buf_add_c(out, (char)c);
        } else {
            char escaped[3] = {'+', hex[c >> 4], hex[c & 15]};
            hky_buf_add(out, escaped, 3);
        }
    }
}

static void add_u64(struct hky_buf *out, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    hky_buf_add(out, digits + at, sizeof(digits) - at);
}

void hky_mail_line_write(const struct hky_mail_line *m, const struct hky_capabilities *caps, struct hky_buf *out)
{
    hky_buf_add_str(out, HKY_STR("MAIL FROM:<"));
    if (m->sender.n > 0)
        hky_address_format(m->sender, m->is_raw, out);
    hky_buf_add_c(out, '>');
    if (caps->has_size) {
        hky_buf_add_str(out, HKY_STR(" SIZE="));
        add_u64(out, m->size);
    }
    if (m->is_8bit)
        hky_buf_add_str(out, HKY_STR(" BODY=8BITMIME"));
    if (m->needs_utf8)
        hky_buf_add_str(out, HKY_STR(" SMTPUTF8"));
    if (caps->dsn && m->ret[0] != '\0') {
        hky_buf_add_str(out, HKY_STR(" RET="));
        hky_buf_add_z(out, m->ret);
    }
    if (caps->dsn && m->envid.n > 0) {
        hky_buf_add_str(out, HKY_STR(" ENVID="));
        add_xtext(out, m->envid);
    }
    hky_buf_add_str(out, HKY_STR("\r\n"));
}

static void add_notify(struct hky_buf *out, unsigned notify)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{HKY_NOTIFY_NEVER, "NEVER"},
                 {HKY_NOTIFY_SUCCESS, "SUCCESS"},
                 {HKY_NOTIFY_FAILURE, "FAILURE"},
                 {HKY_NOTIFY_DELAY, "DELAY"}};
    const char *before = " NOTIFY=";
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((notify & names[i].bit) == 0)
            continue;
        hky_buf_add_z(out, before);
        hky_buf_add_z(out, names[i].name);
        before = ",";
        if (names[i].bit == HKY_NOTIFY_NEVER)
            return;
    }
}

static void add_orcpt(struct hky_buf *out, struct hky_str orcpt)
{
    const char *semi = memchr(orcpt.p, ';', orcpt.n);
    if (semi == NULL || !hky_envelope_is_one_line(hky_str_of(orcpt.p, (size_t)(semi - orcpt.p))))
        return;
    size_t type_n = (size_t)(semi - orcpt.p) + 1;
    hky_buf_add_str(out, HKY_STR(" ORCPT="));
    hky_buf_add(out, orcpt.p, type_n);
    add_xtext(out, hky_str_of(orcpt.p + type_n, orcpt.n - type_n));
}

void hky_rcpt_line_write(const struct hky_rcpt_line *r, const struct hky_capabilities *caps, struct hky_buf *out)
{
    hky_buf_add_str(out, HKY_STR("RCPT TO:<"));
    hky_address_format(r->address, r->is_raw, out);
    hky_buf_add_c(out, '>');
    if (caps->dsn && r->notify != 0)
        add_notify(out, r->notify);
    if (caps->dsn && r->orcpt.n > 0)
        add_orcpt(out, r->orcpt);
    hky_buf_add_str(out, HKY_STR("\r\n"));
}
