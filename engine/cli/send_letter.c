/* Reads and completes the message of `send`, and takes recipients from its header. */
#include "cli/send.h"

#include "base/hash.h"
#include "mail/dsn.h"
#include "mail/header.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX    (512u << 20)
#define RECIPIENTS_MAX 100000u

/* Domain for names without one: /etc/mailname, else the machine's name. */
static void find_origin(char out[256])
{
    FILE *f = fopen("/etc/mailname", "re");

    out[0] = '\0';
    if (f != NULL) {
        if (fgets(out, 256, f) == NULL)
            out[0] = '\0';
        fclose(f);
        out[strcspn(out, " \t\r\n")] = '\0';
    }
    if (out[0] == '\0' && gethostname(out, 255) != 0)
        out[0] = '\0';
    out[255] = '\0';
    if (out[0] == '\0')
        snprintf(out, 256, "localhost");
}

void hky_outgoing_init(struct hky_outgoing *l)
{
    *l = (struct hky_outgoing){0};
    find_origin(l->origin);
    hky_buf_init(&l->content, MESSAGE_MAX);
}

void hky_outgoing_fini(struct hky_outgoing *l)
{
    for (size_t i = 0; i < l->n_recipients; i++)
        free(l->recipients[i]);
    free((void *)l->recipients);
    free((void *)l->tags);
    free(l->sender);
    hky_buf_fini(&l->content);
}

static char *with_origin(const struct hky_outgoing *l, struct hky_str address)
{
    struct hky_buf b;
    bool is_bare = address.n > 0 && memchr(address.p, '@', address.n) == NULL;

    hky_buf_init(&b, address.n + 300);
    hky_buf_add_str(&b, address);
    if (is_bare)
        hky_buf_printf(&b, "@%s", l->origin);
    char *z = hky_strdup(hky_buf_z(&b));
    hky_buf_fini(&b);
    return z;
}

void hky_outgoing_add_recipient(struct hky_outgoing *l, struct hky_str address)
{
    if (address.n > 2 && address.p[0] == '<' && address.p[address.n - 1] == '>')
        address = hky_str_of(address.p + 1, address.n - 2);
    if (address.n == 0 || l->n_recipients >= RECIPIENTS_MAX)
        return;
    if ((l->n_recipients & (l->n_recipients - 1)) == 0)
        l->recipients = (char **)hky_realloc((void *)l->recipients,
                                             (l->n_recipients == 0 ? 1 : l->n_recipients * 2) * sizeof *l->recipients);
    l->recipients[l->n_recipients++] = with_origin(l, address);
}

/* --- reading --- */

static enum hky_err read_all(int fd, struct hky_buf *raw, struct hky_error *e)
{
    for (;;) {
        char *to = hky_buf_reserve(raw, 65536);
        if (to == NULL)
            return hky_error_set(e, HKY_E_LIMIT, "the message is above %u MB", MESSAGE_MAX >> 20);
        ssize_t n = read(fd, to, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return hky_error_sys(e, HKY_E_IO, errno, "cannot read the message");
        if (n == 0)
            return HKY_OK;
        raw->n += (size_t)n;
    }
}

/* Makes every line end CRLF, also the last; a line with only a dot ends the message where that was asked for. */
static void add_lines(struct hky_outgoing *l, struct hky_str raw)
{
    hky_buf_reserve(&l->content, raw.n + raw.n / 32 + 4096);
    while (raw.n > 0) {
        const char *lf = memchr(raw.p, '\n', raw.n);
        size_t n = lf != NULL ? (size_t)(lf - raw.p) : raw.n, used = n + (lf != NULL);

        if (n > 0 && raw.p[n - 1] == '\r')
            n--;
        if (l->ends_at_dot && n == 1 && raw.p[0] == '.')
            return;
        hky_buf_add(&l->content, raw.p, n);
        hky_buf_add(&l->content, "\r\n", 2);
        raw = hky_str_of(raw.p + used, raw.n - used);
    }
}

/* --- the header --- */

struct head {
    bool has_from, has_date, has_message_id, has_resent_to;
};

/* The end of the header section: at the empty line, or at the first line that is not a field. */
static size_t header_end(struct hky_str content, bool *has_empty_line)
{
    struct hky_str section = hky_str_of(content.p, hky_header_octets(content));
    struct hky_field f;
    size_t at = 0, end = 0;

    while (hky_field_next(section, &at, &f)) {
        if (f.name.n == 0)
            break;
        end = (size_t)(f.whole.p - content.p) + f.whole.n;
    }
    *has_empty_line = content.n - end >= 2 && memcmp(content.p + end, "\r\n", 2) == 0;
    return end;
}

static bool is_bare_name(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= 'A' && s.p[i] <= 'Z') ||
              (s.p[i] >= '0' && s.p[i] <= '9') || strchr("._+-", s.p[i]) != NULL))
            return false;
    return s.n > 0;
}

/* Where "@origin" is to be inserted: behind root in "root (Cron Daemon)" and "Admin <root>"; 0 = nowhere. */
static size_t bare_name_end(struct hky_str piece)
{
    const char *open = memchr(piece.p, '<', piece.n), *close = memchr(piece.p, '>', piece.n);
    size_t start = 0, end, rest;

    if (memchr(piece.p, '@', piece.n) != NULL)
        return 0;
    if (open != NULL && close != NULL && close > open)
        return is_bare_name(hky_str_of(open + 1, (size_t)(close - open - 1))) ? (size_t)(close - piece.p) : 0;
    while (start < piece.n && strchr(" \t\r\n", piece.p[start]) != NULL)
        start++;
    for (end = start; end < piece.n && strchr(" \t\r\n(", piece.p[end]) == NULL;)
        end++;
    for (rest = end; rest < piece.n && strchr(" \t\r\n", piece.p[rest]) != NULL;)
        rest++;
    if (rest < piece.n && piece.p[rest] != '(')
        return 0;
    return is_bare_name(hky_str_of(piece.p + start, end - start)) ? end : 0;
}

/* "root, a@x" becomes "root@origin, a@x": names without a domain are names on this machine. */
static void complete_names(const struct hky_outgoing *l, struct hky_str value, struct hky_buf *out)
{
    while (value.n > 0) {
        const char *comma = memchr(value.p, ',', value.n);
        size_t n = comma != NULL ? (size_t)(comma - value.p) : value.n;
        size_t at = bare_name_end(hky_str_of(value.p, n));

        hky_buf_add(out, value.p, at);
        if (at > 0)
            hky_buf_printf(out, "@%s", l->origin);
        n += comma != NULL;
        hky_buf_add(out, value.p + at, n - at);
        value = hky_str_of(value.p + n, value.n - n);
    }
}

static enum hky_err take_recipients(struct hky_outgoing *l, const struct hky_field *f, struct hky_error *e)
{
    struct hky_buf value;
    bool is_bad = false;
    struct hky_mailbox one;

    hky_buf_init(&value, f->value.n * 2 + 65536);
    complete_names(l, hky_str_trim(f->value), &value);
    size_t n = hky_mailboxes_parse(hky_buf_str(&value), &one, 1, &is_bad);
    if (n > RECIPIENTS_MAX)
        n = RECIPIENTS_MAX;
    struct hky_mailbox *boxes = hky_calloc(n + 1, sizeof *boxes);
    hky_mailboxes_parse(hky_buf_str(&value), boxes, n, &is_bad);
    for (size_t i = 0; i < n && !is_bad; i++) {
        struct hky_buf address;
        hky_buf_init(&address, 4 * HKY_ADDRESS_MAX);
        hky_address_format(hky_address_str(&boxes[i].address), false, &address);
        hky_outgoing_add_recipient(l, hky_buf_str(&address));
        hky_buf_fini(&address);
    }
    free(boxes);
    hky_buf_fini(&value);
    if (is_bad) {
        struct hky_str shown = hky_str_trim(f->value);
        shown.n = shown.n < 120 ? shown.n : 120;
        return hky_error_set(e, HKY_E_SYNTAX, "the " HKY_STR_FMT " field has an address that cannot be read: %.*s",
                             HKY_STR_ARG(f->name), HKY_STR_ARG(shown));
    }
    return HKY_OK;
}

static bool is_named(const struct hky_field *f, const char *name)
{
    return hky_str_ieq(f->name, hky_str_z(name));
}

static bool is_destination(const struct hky_field *f, bool is_resent)
{
    return is_resent ? is_named(f, "Resent-To") || is_named(f, "Resent-Cc") || is_named(f, "Resent-Bcc")
                     : is_named(f, "To") || is_named(f, "Cc") || is_named(f, "Bcc");
}

static bool is_clean(const char *z)
{
    for (; *z != '\0'; z++)
        if ((unsigned char)*z < 0x20 || *z == 0x7f)
            return false;
    return true;
}

/* What is no address would be quoted on its way, and "a@x.example,b@x.example" become one mailbox. */
static enum hky_err check_address(const char *what, const char *z, struct hky_error *e)
{
    struct hky_address address;
    struct hky_error why = {0};

    if (hky_mailbox_parse(hky_str_z(z), &address, &why) == HKY_OK)
        return HKY_OK;
    if (strpbrk(z, ",;") != NULL)
        return hky_error_set(e, HKY_E_SYNTAX, "%s \"%.80s\" is no address: write one address in a word, without commas",
                             what, z);
    return hky_error_set(e, HKY_E_SYNTAX, "%s \"%.80s\" is no address: %.100s", what, z, why.text);
}

static void add_own_fields(const struct hky_outgoing *l, const struct head *head, struct hky_buf *out)
{
    char date[40], id[33];
    uint64_t r[2];
    time_t now = time(NULL);
    struct tm tm;

    if (!head->has_from) {
        hky_buf_add_z(out, "From: ");
        if (l->full_name != NULL && l->full_name[0] != '\0') {
            hky_phrase_encode(hky_str_z(l->full_name), out);
            hky_buf_add_c(out, ' ');
        }
        hky_buf_printf(out, "<%s>\r\n", l->sender[0] != '\0' ? l->sender : "MAILER-DAEMON");
    }
    if (!head->has_date) {
        localtime_r(&now, &tm);
        hky_date_format((int64_t)now * 1000, (int)(tm.tm_gmtoff / 60), date);
        hky_buf_printf(out, "Date: %s\r\n", date);
    }
    if (!head->has_message_id) {
        hky_random(r, sizeof r);
        snprintf(id, sizeof id, "%016llx%016llx", (unsigned long long)r[0], (unsigned long long)r[1]);
        hky_buf_printf(out, "Message-ID: <%s@%s>\r\n", id, l->origin);
    }
    if (l->scenario != NULL)
        hky_buf_printf(out, "X-Hikyaku-Scenario: %s\r\n", l->scenario);
    for (size_t i = 0; i < l->n_tags; i++)
        hky_buf_printf(out, "X-Hikyaku-Tag: %s\r\n", l->tags[i]);
    if (l->is_sendmail)
        hky_buf_add_z(out, "X-Hikyaku-Source: sendmail\r\n");
}

/* Removes Bcc and adds missing fields; the rest is unchanged. */
static enum hky_err complete(struct hky_outgoing *l, struct hky_error *e)
{
    struct hky_str content = hky_buf_str(&l->content), section;
    struct head head = {0};
    struct hky_field f;
    struct hky_buf out;
    bool has_empty_line;
    size_t at = 0, end;

    hky_buf_drop(&l->content, hky_mbox_line_octets(content));
    content = hky_buf_str(&l->content);
    end = header_end(content, &has_empty_line);
    section = hky_str_of(content.p, end);
    while (hky_field_next(section, &at, &f)) {
        head.has_from = head.has_from || is_named(&f, "From");
        head.has_date = head.has_date || is_named(&f, "Date");
        head.has_message_id = head.has_message_id || is_named(&f, "Message-ID");
        head.has_resent_to = head.has_resent_to || is_named(&f, "Resent-To");
    }
    hky_buf_init(&out, MESSAGE_MAX + (1u << 20));
    hky_buf_reserve(&out, content.n + 1024);
    add_own_fields(l, &head, &out);
    at = 0;
    while (hky_field_next(section, &at, &f)) {
        if (l->takes_header_recipients && is_destination(&f, head.has_resent_to) &&
            take_recipients(l, &f, e) != HKY_OK) {
            hky_buf_fini(&out);
            return e->code;
        }
        if (is_named(&f, "From") || is_named(&f, "To") || is_named(&f, "Cc") || is_named(&f, "Sender")) {
            size_t before = (size_t)(f.value.p - f.whole.p);
            hky_buf_add(&out, f.whole.p, before);
            complete_names(l, f.value, &out);
            hky_buf_add(&out, f.value.p + f.value.n, f.whole.n - before - f.value.n);
        } else if (!is_named(&f, "Bcc") && !is_named(&f, "Resent-Bcc")) {
            hky_buf_add_str(&out, f.whole);
        }
    }
    if (!has_empty_line)
        hky_buf_add_z(&out, "\r\n");
    hky_buf_add(&out, content.p + end, content.n - end);
    hky_buf_fini(&l->content);
    l->content = out;
    return HKY_OK;
}

enum hky_err hky_outgoing_read(struct hky_outgoing *l, int fd, struct hky_error *e)
{
    struct hky_buf raw;
    const struct passwd *pw = getpwuid(getuid());
    enum hky_err err;

    l->sender = l->from != NULL ? with_origin(l, hky_str_z(l->from))
                                : with_origin(l, hky_str_z(pw != NULL ? pw->pw_name : "nobody"));
    if (l->sender[0] != '\0' && check_address("the sender", l->sender, e) != HKY_OK)
        return e->code;
    if ((l->scenario != NULL && !is_clean(l->scenario)) || (l->full_name != NULL && !is_clean(l->full_name)))
        return hky_error_set(e, HKY_E_SYNTAX, "control octets in the name or scenario");
    for (size_t i = 0; i < l->n_tags; i++)
        if (!is_clean(l->tags[i]))
            return hky_error_set(e, HKY_E_SYNTAX, "control octets in a tag");
    hky_buf_init(&raw, MESSAGE_MAX);
    err = read_all(fd, &raw, e);
    if (err == HKY_OK)
        add_lines(l, hky_buf_str(&raw));
    hky_buf_fini(&raw);
    if (err == HKY_OK && l->content.is_over)
        err = hky_error_set(e, HKY_E_LIMIT, "the message is above %u MB", MESSAGE_MAX >> 20);
    if (err == HKY_OK)
        err = complete(l, e);
    if (err != HKY_OK)
        return err;
    if (l->n_recipients == 0)
        return hky_error_set(e, HKY_E_MISSING, "no recipient: the header has no address in To, Cc or Bcc");
    for (size_t i = 0; i < l->n_recipients; i++)
        if (check_address("the recipient", l->recipients[i], e) != HKY_OK) {
            l->has_bad_recipient = true;
            return e->code;
        }
    for (size_t i = 0; i < l->content.n && !l->is_8bit; i++)
        l->is_8bit = (unsigned char)l->content.p[i] >= 0x80;
    return HKY_OK;
}
