/* Reads and completes the message of `send`, and takes recipients from its header. */
#include "cli/send.h"

#include "base/hash.h"
#include "mail/dsn.h"
#include "mail/header.h"
#include "mail/raw.h"

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
    l->has_too_many |= l->n_recipients >= RECIPIENTS_MAX;
    if (address.n == 0 || l->has_too_many)
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

/* Bare names get the origin. false: the list has a part that cannot be read, and nothing was added. */
static bool add_list(struct hky_outgoing *l, struct hky_str list)
{
    struct hky_buf value;
    bool is_bad = false;

    hky_buf_init(&value, MESSAGE_MAX);
    hky_mailboxes_complete(list, l->origin, &value);
    size_t n = hky_mailboxes_parse(hky_buf_str(&value), NULL, 0, &is_bad);
    l->has_too_many |= value.is_over || n > RECIPIENTS_MAX;
    if (is_bad || l->has_too_many)
        n = 0;
    struct hky_mailbox *boxes = hky_calloc(n + 1, sizeof *boxes);
    (void)hky_mailboxes_parse(hky_buf_str(&value), boxes, n, &is_bad);
    for (size_t i = 0; i < n; i++) {
        struct hky_buf address;
        hky_buf_init(&address, 4 * HKY_ADDRESS_MAX);
        hky_address_format(hky_address_str(&boxes[i].address), false, &address);
        hky_outgoing_add_recipient(l, hky_buf_str(&address));
        hky_buf_fini(&address);
    }
    free(boxes);
    hky_buf_fini(&value);
    return !is_bad || l->has_too_many;
}

/* Octets up to the next blank or comma outside of quotes. */
static size_t word_octets(struct hky_str s)
{
    size_t n = 0;

    while (n < s.n && strchr(", \t", s.p[n]) == NULL) {
        size_t quoted = s.p[n] == '"' ? hky_raw_quoted(hky_str_of(s.p + n, s.n - n), false) : 0;
        n += quoted > 0 ? quoted : 1;
    }
    return n;
}

void hky_outgoing_add_recipients(struct hky_outgoing *l, struct hky_str words)
{
    size_t n_before = l->n_recipients;

    if (add_list(l, words) && l->n_recipients > n_before)
        return;
    while (words.n > 0) {
        size_t n = word_octets(words);
        hky_outgoing_add_recipient(l, hky_str_of(words.p, n));
        n += n < words.n;
        words = hky_str_of(words.p + n, words.n - n);
    }
}

static enum hky_err take_recipients(struct hky_outgoing *l, const struct hky_field *f, struct hky_error *e)
{
    struct hky_str shown = hky_str_trim(f->value);

    if (add_list(l, shown))
        return HKY_OK;
    shown.n = shown.n < 120 ? shown.n : 120;
    return hky_error_set(e, HKY_E_SYNTAX, "the " HKY_STR_FMT " field has an address that cannot be read: %.*s",
                         HKY_STR_ARG(f->name), HKY_STR_ARG(shown));
}

static bool is_named(const struct hky_field *f, const char *name)
{
    return hky_str_ieq(f->name, hky_str_z(name));
}

/* An empty field of those that we add says nothing, and ours would be the second one. */
static bool is_empty_of_ours(const struct hky_field *f)
{
    return hky_str_trim(f->value).n == 0 && (is_named(f, "From") || is_named(f, "Date") || is_named(f, "Message-ID"));
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
        if (is_empty_of_ours(&f))
            continue;
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
        if (is_empty_of_ours(&f))
            continue;
        if (is_named(&f, "From") || is_named(&f, "To") || is_named(&f, "Cc") || is_named(&f, "Sender")) {
            size_t before = (size_t)(f.value.p - f.whole.p);
            hky_buf_add(&out, f.whole.p, before);
            hky_mailboxes_complete(f.value, l->origin, &out);
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
    if (err == HKY_OK && l->content.is_over)
        err = hky_error_set(e, HKY_E_LIMIT, "the message is above %u MB", MESSAGE_MAX >> 20);
    if (err != HKY_OK)
        return err;
    if (l->has_too_many)
        return hky_error_set(e, HKY_E_LIMIT, "there are more than %u recipients: send the message in parts",
                             RECIPIENTS_MAX);
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
