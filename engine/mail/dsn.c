#include "mail/dsn.h"

#include "mail/address.h"

#include <stdio.h>

#define LINE_SOFT 76
#define LINE_HARD 900

struct date {
    unsigned year, month, day, week_day; /* month 0 to 11, week_day 0 is Sunday */
};

/* The date of a number of days since 1970-01-01. This is needed for every message, and gmtime_r takes a lock that all
 * threads share. A year begins in March here, so that the leap day is its last day. */
static struct date date_of(uint32_t days)
{
    uint32_t n = days + 719468, era = n / 146097, in_era = n % 146097;
    uint32_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    uint32_t in_year = in_era - (365 * year + year / 4 - year / 100), month = (5 * in_year + 2) / 153;

    return (struct date){.year = year + era * 400 + (month >= 10),
                         .month = (month + 2) % 12,
                         .day = in_year - (153 * month + 2) / 5 + 1,
                         .week_day = (days + 4) % 7};
}

static void put_two(char *to, unsigned v)
{
    to[0] = (char)('0' + v / 10);
    to[1] = (char)('0' + v % 10);
}

void hky_date_format(int64_t at_ms, int offset_min, char out[40])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const int64_t last = INT64_C(253402214400); /* one day before the year 10000 */
    int offset = offset_min < -1439 ? -1439 : offset_min > 1439 ? 1439 : offset_min;
    int64_t sec = at_ms / 1000 + (int64_t)offset * 60;
    uint64_t t = (uint64_t)(sec < 0 ? 0 : sec > last ? last : sec);
    unsigned distance = (unsigned)(offset < 0 ? -offset : offset), in_day = (unsigned)(t % 86400);
    struct date date = date_of((uint32_t)(t / 86400));

    memcpy(out, days[date.week_day], 3);
    memcpy(out + 3, ", ", 2);
    put_two(out + 5, date.day);
    out[7] = ' ';
    memcpy(out + 8, months[date.month], 3);
    out[11] = ' ';
    put_two(out + 12, date.year / 100);
    put_two(out + 14, date.year % 100);
    out[16] = ' ';
    put_two(out + 17, in_day / 3600);
    out[19] = ':';
    put_two(out + 20, in_day / 60 % 60);
    out[22] = ':';
    put_two(out + 23, in_day % 60);
    out[25] = ' ';
    out[26] = offset < 0 ? '-' : '+';
    put_two(out + 27, distance / 60);
    put_two(out + 29, distance % 60);
    out[31] = '\0';
}

/* Printable ASCII; everything else as \xNN. So nothing from a peer can begin a line, a field or a MIME part. */
static void add_ascii(struct hky_buf *out, struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c < 0x7f)
            hky_buf_add_c(out, (char)c);
        else
            hky_buf_printf(out, "\\x%02x", c);
    }
}

/* The same, but valid UTF-8 keeps its characters: for the part that people read. */
static void add_readable(struct hky_buf *out, struct hky_str s)
{
    bool is_text = hky_utf8_is_valid(s);

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool is_c1 = c == 0xc2 && i + 1 < s.n && (unsigned char)s.p[i + 1] < 0xa0;
        if ((c >= 0x20 && c < 0x7f) || (c >= 0x80 && is_text && !is_c1))
            hky_buf_add_c(out, (char)c);
        else
            hky_buf_printf(out, "\\x%02x", c);
        if (is_c1 && is_text) /* its second octet alone would not be text */
            hky_buf_printf(out, "\\x%02x", (unsigned char)s.p[++i]);
    }
}

/* "Name: value", folded before blanks; a word that is too long for a line is cut. */
static void add_field_of(struct hky_buf *out, const char *name, const char *kind, struct hky_str value, bool is_utf8)
{
    struct hky_buf text;
    size_t column, start = 0;

    hky_buf_init(&text, 16384);
    hky_buf_add_z(&text, kind);
    (is_utf8 ? add_readable : add_ascii)(&text, value);
    struct hky_str t = hky_str_trim(hky_buf_str(&text));
    hky_buf_add_z(out, name);
    hky_buf_add_c(out, ':');
    hky_buf_add_c(out, ' ');
    column = strlen(name) + 2;
    for (size_t i = 0; i <= t.n; i++) {
        bool is_cut = i - start >= LINE_HARD;

        if (i < t.n && t.p[i] != ' ' && !is_cut)
            continue;
        if (start > 0 && i > start + 1 && column + (i - start) > LINE_SOFT) {
            hky_buf_add_z(out, t.p[start] == ' ' ? "\r\n" : "\r\n ");
            column = 0;
        }
        hky_buf_add(out, t.p + start, i - start);
        column += i - start;
        start = i;
    }
    hky_buf_add_z(out, "\r\n");
    hky_buf_fini(&text);
}

static void add_field(struct hky_buf *out, const char *name, const char *kind, struct hky_str value)
{
    add_field_of(out, name, kind, value, false);
}

static void add_date_field(struct hky_buf *out, const char *name, int64_t at_ms)
{
    char date[40];

    hky_date_format(at_ms, 0, date);
    add_field(out, name, "", hky_str_z(date));
}

/* RFC 2045 6.7: the text has CRLF line ends. */
static void add_quoted_printable(struct hky_buf *out, struct hky_str s)
{
    size_t column = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool is_line_end = c == '\r' && i + 1 < s.n && s.p[i + 1] == '\n';
        bool is_before_end = i + 1 == s.n || s.p[i + 1] == '\r';
        bool is_plain = c >= 0x20 && c < 0x7f && c != '=' && !(c == ' ' && is_before_end);

        if (is_line_end) {
            hky_buf_add(out, "\r\n", 2);
            column = 0;
            i++;
            continue;
        }
        if (column + (is_plain ? 1 : 3) > 75) {
            hky_buf_add_z(out, "=\r\n");
            column = 0;
        }
        /* Some servers change a line of dots, or one that begins with "From ". */
        if (is_plain && !(column == 0 && (c == '.' || c == 'F'))) {
            hky_buf_add_c(out, (char)c);
            column++;
        } else {
            hky_buf_printf(out, "=%02X", c);
            column += 3;
        }
    }
}

static bool has_8bit(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

static const struct {
    const char *name, *subject, *english, *japanese;
} actions[] = {
    [HKY_DSN_FAILED] = {"failed", "Undelivered mail: your message could not be delivered",
                        "Your message could not be delivered to the recipients below. It will not be tried again.",
                        "次の宛先にメールをお届けできませんでした。再送は行いません。"},
    [HKY_DSN_DELAYED] = {"delayed", "Delayed mail: your message has not been delivered yet",
                         "Your message has not been delivered to the recipients below yet. It will be tried again; "
                         "you need not send it again.",
                         "次の宛先へのお届けが遅れています。引き続き再送しますので、送り直す必要はありません。"},
    [HKY_DSN_DELIVERED] = {"delivered", "Delivered mail: your message was delivered",
                           "Your message was delivered to the recipients below.", "次の宛先にメールをお届けしました。"},
    [HKY_DSN_RELAYED] = {"relayed", "Relayed mail: your message was handed on",
                         "Your message was handed to a system that may send no further notice, for the recipients "
                         "below.",
                         "次の宛先のメールを、以後の通知を行わない可能性のあるシステムに引き渡しました。"},
};
#define N_ACTIONS (sizeof actions / sizeof actions[0])

/* "550 5.1.1 text"; a local cause has no code, only text. */
static void reply_text(const struct hky_reply *r, size_t most, struct hky_buf *out)
{
    size_t n = r->n <= sizeof r->text ? r->n : sizeof r->text;

    if (most > 0 && n > most)
        for (n = most; n > 0 && ((unsigned char)r->text[n] & 0xc0) == 0x80; n--)
            ;

    if (r->code != 0)
        hky_buf_printf(out, "%u ", r->code);
    if (r->code != 0 && r->enhanced[0] != 0)
        hky_buf_printf(out, "%u.%u.%u ", r->enhanced[0], r->enhanced[1], r->enhanced_detail);
    hky_buf_add(out, r->text, n);
}

static bool is_status(const char *s)
{
    int dots = 0, digits = 0;

    if (s == NULL || (s[0] != '2' && s[0] != '4' && s[0] != '5') || s[1] != '.')
        return false;
    for (; *s != '\0'; s++) {
        if (*s == '.') {
            if (digits == 0 || ++dots > 2)
                return false;
            digits = 0;
        } else if (*s < '0' || *s > '9' || ++digits > 3) {
            return false;
        }
    }
    return dots == 2 && digits > 0;
}

static void add_status(struct hky_buf *out, const struct hky_dsn_recipient *r)
{
    static const char *const defaults[N_ACTIONS] = {
        [HKY_DSN_FAILED] = "5.0.0",
        [HKY_DSN_DELAYED] = "4.0.0",
        [HKY_DSN_DELIVERED] = "2.0.0",
        [HKY_DSN_RELAYED] = "2.0.0",
    };

    if (is_status(r->status))
        hky_buf_printf(out, "Status: %s\r\n", r->status);
    else if (r->reply != NULL && r->reply->enhanced[0] != 0)
        hky_buf_printf(out, "Status: %u.%u.%u\r\n", r->reply->enhanced[0], r->reply->enhanced[1],
                       r->reply->enhanced_detail);
    else
        hky_buf_printf(out, "Status: %s\r\n", defaults[r->action]);
}

static void add_people_text(struct hky_buf *out, const struct hky_dsn *d)
{
    struct hky_buf text, reply;
    size_t n_listed = 0;

    hky_buf_init(&text, out->max);
    hky_buf_init(&reply, 2048);
    hky_buf_add_z(&text, "This is the mail system at ");
    add_readable(&text, hky_str_z(d->hostname));
    hky_buf_add_z(&text, ".\r\n");
    if (d->is_for_owner)
        hky_buf_add_z(
            &text, "\r\nThe sender of the message below cannot be notified of its failure: it has no sender, or it is "
                   "a failure notice\r\nitself. You get this because engine.owner names you.\r\n\r\n"
                   "送信者に通知できないため、engine.owner のアドレスにお知らせします。\r\n");
    for (size_t a = 0; a < N_ACTIONS; a++) {
        bool is_first = true;

        for (size_t i = 0; i < d->n; i++) {
            const struct hky_dsn_recipient *r = &d->recipients[i];

            if (r->action != (enum hky_dsn_action)a || (d->n_in_text > 0 && n_listed == d->n_in_text))
                continue;
            n_listed++;
            if (is_first)
                hky_buf_printf(&text, "\r\n%s\r\n\r\n%s\r\n", actions[a].english, actions[a].japanese);
            is_first = false;
            hky_buf_add_z(&text, "\r\n<");
            add_readable(&text, r->address);
            hky_buf_add_z(&text, ">\r\n");
            if (r->why != NULL && r->why[0] != '\0') {
                hky_buf_add_z(&text, "    ");
                add_readable(&text, hky_str_z(r->why));
                hky_buf_add_z(&text, "\r\n");
            }
            if (r->reply != NULL) {
                hky_buf_clear(&reply);
                reply_text(r->reply, d->diagnostic_most, &reply);
                hky_buf_add_z(&text, "    ");
                if (r->reply->code != 0 && r->remote_mta != NULL && r->remote_mta[0] != '\0') {
                    add_readable(&text, hky_str_z(r->remote_mta));
                    hky_buf_add_z(&text, " said: ");
                }
                add_readable(&text, hky_buf_str(&reply));
                hky_buf_add_z(&text, "\r\n");
            }
        }
    }
    if (n_listed < d->n)
        hky_buf_printf(
            &text,
            "\r\nand %zu more, which the next part of this message names.\r\n他 %zu 件は次のパートをご覧ください。\r\n",
            d->n - n_listed, d->n - n_listed);
    add_quoted_printable(out, hky_buf_str(&text));
    hky_buf_fini(&text);
    hky_buf_fini(&reply);
}

/* "rfc822;a@b" as the client gave it: a type, a semicolon, and a value. */
static bool is_typed(struct hky_str s)
{
    const char *semicolon = s.n > 0 ? memchr(s.p, ';', s.n) : NULL;

    return semicolon != NULL && semicolon > s.p && semicolon + 1 < s.p + s.n;
}

/* RFC 6533 3: an address in UTF-8 has a type of its own; the part is then message/global-delivery-status. */
static bool is_utf8_address(struct hky_str s)
{
    return has_8bit(s) && hky_utf8_is_valid(s);
}

static void add_recipient_fields(struct hky_buf *out, const struct hky_dsn *d, const struct hky_dsn_recipient *r)
{
    struct hky_buf text;

    hky_buf_init(&text, 4096);
    hky_buf_add_z(out, "\r\n");
    if (is_typed(r->orcpt))
        add_field_of(out, "Original-Recipient", "", r->orcpt, is_utf8_address(r->orcpt));
    hky_address_format(r->address, false, &text);
    bool is_utf8 = is_utf8_address(r->address);
    add_field_of(out, "Final-Recipient", is_utf8 ? "utf-8; " : "rfc822; ", hky_buf_str(&text), is_utf8);
    hky_buf_printf(out, "Action: %s\r\n", actions[r->action].name);
    add_status(out, r);
    if (r->remote_mta != NULL && r->remote_mta[0] != '\0')
        add_field(out, "Remote-MTA", "dns; ", hky_str_z(r->remote_mta));
    if (r->reply != NULL) {
        hky_buf_clear(&text);
        reply_text(r->reply, d->diagnostic_most, &text);
        add_field(out, "Diagnostic-Code", r->reply->code != 0 ? "smtp; " : "X-Hikyaku; ", hky_buf_str(&text));
    }
    if (r->last_attempt_ms > 0)
        add_date_field(out, "Last-Attempt-Date", r->last_attempt_ms);
    hky_buf_fini(&text);
}

/* A boundary line that occurs in no part of the original. */
static void make_boundary(const struct hky_dsn *d, char out[64])
{
    struct hky_str h = d->original_header, b = d->original_body;
    char id[21];
    size_t n = 0;

    for (const char *z = d->queue_id != NULL ? d->queue_id : ""; *z != '\0' && n < sizeof id - 1; z++)
        if ((*z >= '0' && *z <= '9') || (*z >= 'a' && *z <= 'z') || (*z >= 'A' && *z <= 'Z'))
            id[n++] = *z;
    id[n] = '\0';
    for (unsigned try = 0;; try++) {
        snprintf(out, 64, "=_hikyaku_%s_%llx_%u", id, (unsigned long long)d->now_ms, try);
        if ((h.n == 0 || memmem(h.p, h.n, out, strlen(out)) == NULL) &&
            (b.n == 0 || memmem(b.p, b.n, out, strlen(out)) == NULL))
            return;
    }
}

static void end_line(struct hky_buf *out)
{
    if (out->n > 0 && out->p[out->n - 1] != '\n')
        hky_buf_add_z(out, "\r\n");
}

/* Returned header fields may be encoded; a whole message with 8-bit octets may be only as message/global. */
static void add_original(struct hky_buf *out, const struct hky_dsn *d)
{
    struct hky_str header = d->original_header;
    bool is_full = d->original_body.p != NULL;
    bool is_global = has_8bit(header) && hky_utf8_is_valid(header) && (d->is_smtputf8 || !is_full);
    bool is_encoded = is_global || (!is_full && has_8bit(header));
    struct hky_buf original;

    if (header.n >= 2 && memcmp(header.p + header.n - 2, "\r\n", 2) == 0 &&
        (header.n == 2 || header.p[header.n - 3] == '\n'))
        header.n -= 2; /* the empty line */
    hky_buf_printf(out, "Content-Type: %s\r\n",
                   is_global ? (is_full ? "message/global" : "message/global-headers")
                   : is_full ? "message/rfc822"
                             : "text/rfc822-headers");
    if (is_encoded)
        hky_buf_add_z(out, "Content-Transfer-Encoding: quoted-printable\r\n");
    else if (is_full && d->is_8bit)
        hky_buf_add_z(out, "Content-Transfer-Encoding: 8bit\r\n");
    hky_buf_add_z(out, "\r\n");
    hky_buf_init(&original, out->max);
    hky_buf_add_str(&original, header);
    end_line(&original);
    if (is_full) {
        hky_buf_add_z(&original, "\r\n");
        hky_buf_add_str(&original, d->original_body);
        end_line(&original);
    }
    if (is_encoded)
        add_quoted_printable(out, hky_buf_str(&original));
    else
        hky_buf_add_str(out, hky_buf_str(&original));
    hky_buf_fini(&original);
}

static void add_status_part(struct hky_buf *out, const struct hky_dsn *d)
{
    struct hky_buf fields;
    bool is_global = false;

    for (size_t i = 0; i < d->n; i++)
        is_global = is_global || is_utf8_address(d->recipients[i].address) || is_utf8_address(d->recipients[i].orcpt);
    hky_buf_init(&fields, out->max);
    add_field(&fields, "Reporting-MTA", "dns; ", hky_str_z(d->hostname));
    if (d->envid.n > 0)
        add_field(&fields, "Original-Envelope-Id", "", d->envid);
    if (d->queue_id != NULL && d->queue_id[0] != '\0')
        add_field(&fields, "X-Hikyaku-Queue-ID", "", hky_str_z(d->queue_id));
    if (d->arrival_ms > 0)
        add_date_field(&fields, "Arrival-Date", d->arrival_ms);
    for (size_t i = 0; i < d->n; i++)
        add_recipient_fields(&fields, d, &d->recipients[i]);
    hky_buf_printf(out, "Content-Type: message/%s\r\n%s\r\n", is_global ? "global-delivery-status" : "delivery-status",
                   is_global ? "Content-Transfer-Encoding: quoted-printable\r\n" : "");
    if (is_global)
        add_quoted_printable(out, hky_buf_str(&fields));
    else
        hky_buf_add_str(out, hky_buf_str(&fields));
    if (fields.is_over)
        out->is_over = true;
    hky_buf_fini(&fields);
}

static void add_header(struct hky_buf *out, const struct hky_dsn *d, const char *boundary)
{
    enum hky_dsn_action worst = HKY_DSN_RELAYED;
    char date[40];

    for (size_t i = 0; i < d->n; i++)
        if (d->recipients[i].action < worst)
            worst = d->recipients[i].action;
    hky_date_format(d->now_ms, 0, date);
    hky_buf_add_z(out, "From: Mail Delivery System <MAILER-DAEMON@");
    add_ascii(out, hky_str_z(d->hostname));
    hky_buf_add_z(out, ">\r\nTo: ");
    if (d->to.n > 0 && !has_8bit(d->to))
        hky_address_format(d->to, false, out);
    else
        hky_buf_add_z(out, "undisclosed-recipients:;");
    hky_buf_printf(out, "\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: ", actions[worst].subject, date);
    add_ascii(out, hky_str_z(d->message_id));
    hky_buf_add_z(out, "\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    bool is_global = d->is_smtputf8 && has_8bit(d->original_header) && hky_utf8_is_valid(d->original_header);
    if (d->original_body.p != NULL && d->is_8bit && !is_global)
        hky_buf_add_z(out, "Content-Transfer-Encoding: 8bit\r\n");
    hky_buf_printf(out, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"\r\n\r\n",
                   boundary);
}

void hky_dsn_format(const struct hky_dsn *d, struct hky_buf *out)
{
    char boundary[64];

    make_boundary(d, boundary);
    add_header(out, d, boundary);
    hky_buf_printf(out,
                   "--%s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                   "Content-Transfer-Encoding: quoted-printable\r\n\r\n",
                   boundary);
    add_people_text(out, d);
    hky_buf_printf(out, "\r\n--%s\r\n", boundary);
    add_status_part(out, d);
    hky_buf_printf(out, "\r\n--%s\r\n", boundary);
    add_original(out, d);
    hky_buf_printf(out, "\r\n--%s--\r\n", boundary);
}
