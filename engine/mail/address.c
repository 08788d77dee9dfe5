#include "mail/address.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdlib.h>

/* RFC 5321 4.5.3.1.3: a path is at most 256 octets, its angle brackets included. */
#define MAILBOX_MAX 254
/* U-labels are longer than their A-labels, but not by more than this. */
#define UNICODE_DOMAIN_MAX 1024

static bool is_atext(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 0x80)
        return true;
    return c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL;
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

static bool has_8bit(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

/* Code points that are invisible or reorder what is shown: with them two different addresses would look the same. */
static bool is_deceptive(uint32_t cp)
{
    return (cp >= 0x80 && cp <= 0xa0) || cp == 0xad || (cp >= 0x200b && cp <= 0x200f) ||
           (cp >= 0x2028 && cp <= 0x202f) || (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff ||
           (cp >= 0xfff9 && cp <= 0xfffb) || (cp >= 0xe0000 && cp <= 0xe007f);
}

static bool is_fit_utf8(struct hky_str s)
{
    if (!hky_utf8_is_valid(s))
        return false;
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        uint32_t cp = c;

        if (len > 1) {
            cp = c & (0xffu >> (len + 1));
            for (size_t k = 1; k < len; k++)
                cp = cp << 6 | ((unsigned char)s.p[i + k] & 0x3f);
        }
        if (is_deceptive(cp))
            return false;
        i += len;
    }
    return true;
}

/* Letters, digits, hyphens, underscores in labels of 1 to 63; lower case into `out`. */
static enum hky_err ldh_domain(struct hky_str s, char out[HKY_DOMAIN_MAX + 1], struct hky_error *e)
{
    size_t label = 0;

    if (s.n > 0 && s.p[s.n - 1] == '.')
        s.n--;
    if (s.n == 0)
        return hky_error_set(e, HKY_E_SYNTAX, "the domain is empty");
    if (s.n > HKY_DOMAIN_MAX)
        return hky_error_set(e, HKY_E_LIMIT, "the domain is longer than %d octets", HKY_DOMAIN_MAX);
    for (size_t i = 0; i <= s.n; i++) {
        char c = i < s.n ? hky_lower(s.p[i]) : '.';

        if (c == '.') {
            if (label == 0)
                return hky_error_set(e, HKY_E_SYNTAX, "the domain has an empty label");
            if (s.p[i - 1] == '-')
                return hky_error_set(e, HKY_E_SYNTAX, "a label of the domain ends with a hyphen");
            label = 0;
        } else {
            if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || (c == '-' && label > 0)))
                return hky_error_set(e, HKY_E_SYNTAX, "the domain has an octet that is not allowed there");
            if (++label > 63)
                return hky_error_set(e, HKY_E_LIMIT, "a label of the domain is longer than 63 octets");
        }
        out[i] = i < s.n ? c : '\0';
    }
    return HKY_OK;
}

static enum hky_err unicode_domain(struct hky_str s, char out[HKY_DOMAIN_MAX + 1], struct hky_error *e)
{
    uint8_t u[UNICODE_DOMAIN_MAX + 1], *ascii = NULL;

    if (s.n > UNICODE_DOMAIN_MAX)
        return hky_error_set(e, HKY_E_LIMIT, "the domain is longer than %d octets", UNICODE_DOMAIN_MAX);
    if (!is_fit_utf8(s) || memchr(s.p, '\0', s.n) != NULL)
        return hky_error_set(e, HKY_E_SYNTAX, "the domain is not fit UTF-8");
    memcpy(u, s.p, s.n);
    u[s.n] = '\0';
    int rc = idn2_lookup_u8(u, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (rc != IDN2_OK)
        return hky_error_set(e, HKY_E_SYNTAX, "the domain is no internationalized name: %s", idn2_strerror(rc));
    /* Mapping may have produced ASCII such as '@' from full-width forms: checked like any other. */
    enum hky_err err = ldh_domain(hky_str_z((const char *)ascii), out, e);
    idn2_free(ascii);
    return err;
}

static enum hky_err literal_domain(struct hky_str s, char out[HKY_DOMAIN_MAX + 1], struct hky_error *e)
{
    unsigned char octets[16];
    struct hky_str inside, tag = HKY_STR("IPv6:");
    char text[64];
    bool is_v6;

    if (s.n < 3 || s.p[s.n - 1] != ']' || s.n > sizeof text)
        return hky_error_set(e, HKY_E_SYNTAX, "the address literal has no end or is too long");
    inside = hky_str_of(s.p + 1, s.n - 2);
    is_v6 = hky_str_istarts(inside, tag);
    if (is_v6)
        inside = hky_str_of(inside.p + tag.n, inside.n - tag.n);
    memcpy(text, inside.p, inside.n);
    text[inside.n] = '\0';
    if (strlen(text) != inside.n || inet_pton(is_v6 ? AF_INET6 : AF_INET, text, octets) != 1)
        return hky_error_set(e, HKY_E_SYNTAX, "the address literal holds no IP address");
    for (size_t i = 0; i < s.n; i++)
        out[i] = hky_lower(s.p[i]);
    out[s.n] = '\0';
    return HKY_OK;
}

enum hky_err hky_domain_normalise(struct hky_str s, char out[HKY_DOMAIN_MAX + 1], struct hky_error *e)
{
    if (s.n > 0 && s.p[0] == '[')
        return literal_domain(s, out, e);
    return has_8bit(s) ? unicode_domain(s, out, e) : ldh_domain(s, out, e);
}

/* The local part at the start of `s` into a->text, without quotes; *used = octets up to the '@'. */
static enum hky_err parse_local(struct hky_str s, struct hky_address *a, size_t *used, struct hky_error *e)
{
    bool is_quoted = s.n > 0 && s.p[0] == '"', is_closed = false;
    size_t i = is_quoted, n = 0;

    for (; i < s.n && !is_closed; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (is_quoted && c == '"') {
            is_closed = true;
            continue;
        }
        if (is_quoted && c == '\\') {
            if (++i == s.n)
                break;
            c = (unsigned char)s.p[i];
        } else if (!is_quoted && !is_atext(c) && c != '.') {
            break;
        }
        if (is_control(c))
            return hky_error_set(e, HKY_E_SYNTAX, "the local part has a control octet");
        if (n == HKY_LOCALPART_MAX)
            return hky_error_set(e, HKY_E_LIMIT, "the local part is longer than %d octets", HKY_LOCALPART_MAX);
        a->text[n++] = (char)c;
    }
    if (is_quoted && !is_closed)
        return hky_error_set(e, HKY_E_SYNTAX, "the quoted local part has no end");
    if (n == 0)
        return hky_error_set(e, HKY_E_SYNTAX, "the local part is empty");
    a->local_n = (uint16_t)n;
    a->is_utf8 = has_8bit(hky_str_of(a->text, n));
    if (a->is_utf8 && !is_fit_utf8(hky_str_of(a->text, n)))
        return hky_error_set(e, HKY_E_SYNTAX, "the local part is not fit UTF-8");
    *used = i;
    return HKY_OK;
}

/* local "@" domain, where the domain reaches up to `end` or to the end of `s`. */
static enum hky_err parse_mailbox(struct hky_str s, char end, struct hky_address *a, size_t *used, struct hky_error *e)
{
    char domain[HKY_DOMAIN_MAX + 1];
    size_t at = 0, stop;
    enum hky_err err = parse_local(s, a, &at, e);

    if (err != HKY_OK)
        return err;
    if (at == s.n || s.p[at] != '@')
        return hky_error_set(e, HKY_E_SYNTAX, "there is no @ after the local part");
    const char *close = end != '\0' ? memchr(s.p + at, end, s.n - at) : NULL;
    if (end != '\0' && close == NULL)
        return hky_error_set(e, HKY_E_SYNTAX, "there is no %c after the domain", end);
    stop = close != NULL ? (size_t)(close - s.p) : s.n;
    err = hky_domain_normalise(hky_str_of(s.p + at + 1, stop - at - 1), domain, e);
    if (err != HKY_OK)
        return err;
    size_t domain_n = strlen(domain);
    if (domain_n > (size_t)MAILBOX_MAX - 1 - a->local_n)
        return hky_error_set(e, HKY_E_LIMIT, "the address is longer than %d octets", MAILBOX_MAX);
    a->text[a->local_n] = '@';
    memcpy(a->text + a->local_n + 1, domain, domain_n + 1);
    a->n = (uint16_t)(a->local_n + 1 + domain_n);
    *used = stop;
    return HKY_OK;
}

/* "@a,@b:" of old; RFC 5321 4.1.1.3 has us ignore it. *used = octets of it. */
static enum hky_err skip_source_route(struct hky_str s, size_t *used, struct hky_error *e)
{
    char domain[HKY_DOMAIN_MAX + 1];
    size_t at = 0;

    while (at < s.n && s.p[at] == '@') {
        size_t start = ++at;

        while (at < s.n && s.p[at] != ',' && s.p[at] != ':' && s.p[at] != '>')
            at++;
        if (at == s.n || s.p[at] == '>')
            return hky_error_set(e, HKY_E_SYNTAX, "the local part is empty");
        enum hky_err err = hky_domain_normalise(hky_str_of(s.p + start, at - start), domain, e);
        if (err != HKY_OK)
            return err;
        if (s.p[at++] == ':') {
            *used = at;
            return HKY_OK;
        }
    }
    return hky_error_set(e, HKY_E_SYNTAX, "the source route is malformed");
}

enum hky_err hky_path_parse(struct hky_str s, unsigned flags, struct hky_address *out, size_t *used,
                            struct hky_error *e)
{
    struct hky_str postmaster = HKY_STR("<postmaster>");
    size_t at = 1, n = 0;
    enum hky_err err;

    *out = (struct hky_address){0};
    if (s.n == 0 || s.p[0] != '<')
        return hky_error_set(e, HKY_E_SYNTAX, "an address in angle brackets is expected");
    if ((flags & HKY_PATH_MAY_BE_NULL) && s.n >= 2 && s.p[1] == '>') {
        *used = 2;
        return HKY_OK;
    }
    if ((flags & HKY_PATH_MAY_BE_POSTMASTER) && hky_str_istarts(s, postmaster)) {
        *used = postmaster.n;
        return HKY_OK;
    }
    if (s.n > 1 && s.p[1] == '@') {
        err = skip_source_route(hky_str_of(s.p + 1, s.n - 1), &n, e);
        if (err != HKY_OK)
            return err;
        at += n;
    }
    err = parse_mailbox(hky_str_of(s.p + at, s.n - at), '>', out, &n, e);
    if (err == HKY_OK && !(flags & HKY_PATH_UTF8) && has_8bit(hky_str_of(s.p + at, n)))
        err = hky_error_set(e, HKY_E_SYNTAX, "the address has octets above 127 without SMTPUTF8");
    if (err != HKY_OK) {
        *out = (struct hky_address){0};
        return err;
    }
    *used = at + n + 1;
    return HKY_OK;
}

enum hky_err hky_mailbox_parse(struct hky_str s, struct hky_address *out, struct hky_error *e)
{
    size_t used;

    *out = (struct hky_address){0};
    enum hky_err err = parse_mailbox(s, '\0', out, &used, e);
    if (err != HKY_OK)
        *out = (struct hky_address){0};
    return err;
}

void hky_address_split(struct hky_str canonical, struct hky_str *local, struct hky_str *domain)
{
    const char *at = canonical.n > 0 ? memrchr(canonical.p, '@', canonical.n) : NULL;

    if (at == NULL) {
        *local = canonical;
        *domain = hky_str_of("", 0);
        return;
    }
    *local = hky_str_of(canonical.p, (size_t)(at - canonical.p));
    *domain = hky_str_of(at + 1, canonical.n - local->n - 1);
}

static bool is_raw_safe(struct hky_str local)
{
    for (size_t i = 0; i < local.n; i++)
        if (!is_atext((unsigned char)local.p[i]) && local.p[i] != '.')
            return false;
    return local.n > 0;
}

static bool is_dot_string(struct hky_str local)
{
    if (!is_raw_safe(local) || local.p[0] == '.' || local.p[local.n - 1] == '.')
        return false;
    return memmem(local.p, local.n, "..", 2) == NULL;
}

/* A control octet cannot be in a canonical address; should one be, it must not end a line on the wire. */
static char safe_octet(char c)
{
    return is_control((unsigned char)c) ? '?' : c;
}

void hky_address_format(struct hky_str canonical, bool is_raw, struct hky_buf *out)
{
    struct hky_str local, domain;

    if (canonical.n == 0)
        return;
    hky_address_split(canonical, &local, &domain);
    if (is_dot_string(local) || (is_raw && is_raw_safe(local))) {
        hky_buf_add_str(out, local);
    } else {
        hky_buf_add_c(out, '"');
        for (size_t i = 0; i < local.n; i++) {
            if (local.p[i] == '"' || local.p[i] == '\\')
                hky_buf_add_c(out, '\\');
            hky_buf_add_c(out, safe_octet(local.p[i]));
        }
        hky_buf_add_c(out, '"');
    }
    if (canonical.n == local.n)
        return;
    hky_buf_add_c(out, '@');
    for (size_t i = 0; i < domain.n; i++)
        hky_buf_add_c(out, safe_octet(domain.p[i]));
}

bool hky_address_eq(struct hky_str a, struct hky_str b)
{
    return hky_str_ieq(a, b);
}

/* An address as people write it: with quotes that are not needed, or in their own script. */
static bool needs_parsing(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '"' || (unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

static bool domain_fits(struct hky_str entry, struct hky_str domain)
{
    bool is_parent = entry.n > 1 && entry.p[0] == '.';
    struct hky_str name = is_parent ? hky_str_of(entry.p + 1, entry.n - 1) : entry;
    char normal[HKY_DOMAIN_MAX + 1];

    if (domain.n == 0 || name.n == 0)
        return false;
    if (needs_parsing(name)) {
        if (hky_domain_normalise(name, normal, NULL) != HKY_OK)
            return false;
        name = hky_str_z(normal);
    }
    if (!is_parent)
        return hky_str_ieq(name, domain);
    return domain.n > name.n + 1 && domain.p[domain.n - name.n - 1] == '.' && hky_str_iends(domain, name);
}

bool hky_address_fits(struct hky_str entry, struct hky_str canonical)
{
    struct hky_str local, domain;
    struct hky_address parsed;

    if (hky_str_eq(entry, HKY_STR("*")))
        return true;
    if (hky_str_eq(entry, HKY_STR("<>")))
        return canonical.n == 0;
    if (canonical.n == 0)
        return false;
    if (memchr(entry.p, '@', entry.n) == NULL) {
        hky_address_split(canonical, &local, &domain);
        return domain_fits(entry, domain);
    }
    if (!needs_parsing(entry))
        return hky_str_ieq(entry, canonical);
    return hky_mailbox_parse(entry, &parsed, NULL) == HKY_OK && hky_str_ieq(hky_address_str(&parsed), canonical);
}
