/* What people type for "these addresses": the mistakes have answers of their own. */
#include "mail/address.h"

#include <string.h>

#define SHOWN(s) (int)((s).n < 100 ? (s).n : 100), (s).p

static enum hky_err advise(struct hky_error *e)
{
    return hky_error_set(
        e, HKY_E_SYNTAX,
        "write an address (user@example.com), a domain (example.com), or .example.com for its subdomains");
}

static bool has_any(struct hky_str s, const char *set)
{
    for (; *set != '\0'; set++)
        if (memchr(s.p, *set, s.n) != NULL)
            return true;
    return false;
}

static bool is_domain(struct hky_str s)
{
    char normal[HKY_DOMAIN_MAX + 1];

    return s.n > 0 && s.p[s.n - 1] != '.' && !has_any(s, " *") && hky_domain_normalise(s, normal, NULL) == HKY_OK;
}

/* "*@example.com", "*.example.com", "@example.com": what is meant can be written. */
static enum hky_err check_pattern(struct hky_str s, struct hky_error *e)
{
    bool is_at = s.p[0] == '@', is_star_at = s.n > 1 && s.p[0] == '*' && s.p[1] == '@';
    bool is_star_dot = s.n > 1 && s.p[0] == '*' && s.p[1] == '.';
    struct hky_str rest = hky_str_of(s.p + (is_at ? 1 : 2), s.n - (is_at ? 1 : 2));

    if ((is_at || is_star_at) && is_domain(rest))
        return hky_error_set(e, HKY_E_SYNTAX, "write %.*s for all addresses of the domain", SHOWN(rest));
    if (is_star_dot && is_domain(rest))
        return hky_error_set(e, HKY_E_SYNTAX, "write .%.*s for all subdomains", SHOWN(rest));
    return advise(e);
}

static enum hky_err check_form(struct hky_str s, struct hky_error *e)
{
    if (hky_str_trim(s).n < s.n && hky_str_trim(s).n > 0)
        return hky_error_set(e, HKY_E_SYNTAX, "leave out the blanks around it");
    if (has_any(s, "<>"))
        return hky_error_set(e, HKY_E_SYNTAX, "write the address alone, without < and >");
    if (has_any(s, ",;"))
        return hky_error_set(e, HKY_E_SYNTAX, "write one address or one domain");
    if (s.n > 1 && s.p[s.n - 1] == '.' && s.p[s.n - 2] != '.' && s.p[s.n - 2] != '@')
        return hky_error_set(e, HKY_E_SYNTAX, "leave out the dot at its end");
    return HKY_OK;
}

enum hky_err hky_address_entry_check(struct hky_str s, struct hky_error *e)
{
    bool is_address = s.n > 0 && memchr(s.p, '@', s.n) != NULL, is_quoted = s.n > 0 && s.p[0] == '"';
    bool is_parent = s.n > 0 && s.p[0] == '.';
    struct hky_address address;
    enum hky_err err;

    if (hky_str_eq(s, HKY_STR("*")) || hky_str_eq(s, HKY_STR("<>")))
        return HKY_OK;
    if (s.n == 0 || hky_str_trim(s).n == 0)
        return advise(e);
    if (!is_quoted && (err = check_form(s, e)) != HKY_OK)
        return err;
    if (!is_quoted && (s.p[0] == '@' || memchr(s.p, '*', s.n) != NULL))
        return check_pattern(s, e);
    if (is_address)
        return hky_mailbox_parse(s, &address, NULL) == HKY_OK ? HKY_OK : advise(e);
    return is_domain(is_parent ? hky_str_of(s.p + 1, s.n - 1) : s) ? HKY_OK : advise(e);
}
