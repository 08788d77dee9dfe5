#include "route/table/match.h"

#include "mail/address.h"

#include <stdlib.h>

#define PRESENT ((void *)1)

/* Works on eight octets at a time, because it runs for every recipient. */
static void lower_into(char *to, struct hky_str s)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t i = 0;

    for (; s.n - i >= 8; i += 8) {
        uint64_t w, low, is_from_a, is_behind_z;
        memcpy(&w, s.p + i, 8);
        low = w & 0x7f * ones; /* so that no sum carries into the next octet */
        is_from_a = low + (0x80 - 'A') * ones;
        is_behind_z = low + (0x7f - 'Z') * ones;
        w |= (is_from_a & ~is_behind_z & ~w & 0x80 * ones) >> 2;
        memcpy(to + i, &w, 8);
    }
    for (; i < s.n; i++)
        to[i] = hky_lower(s.p[i]);
    to[s.n] = 0;
}

void hky_match_key_init(struct hky_match_key *k, struct hky_str canonical)
{
    size_t n = canonical.n < sizeof k->text - 1 ? canonical.n : sizeof k->text - 1;
    const char *at = n > 0 ? memrchr(canonical.p, '@', n) : NULL;

    k->domain_at = (uint16_t)(at != NULL ? (size_t)(at - canonical.p) + 1 : n);
    lower_into(k->text, hky_str_of(canonical.p, n));
    k->n = (uint16_t)n;
    k->is_null = n == 0;
}

/* "*@shop.example" would be the mailbox of that name, which nobody means. */
static enum hky_err refuse_glob(struct hky_str s, struct hky_error *e)
{
    const char *at = memrchr(s.p, '@', s.n), *domain = at + 1;
    size_t local_n = (size_t)(at - s.p);

    if (s.p[0] == '"' || memchr(s.p, '*', local_n) == NULL)
        return HKY_OK;
    if (local_n == 1)
        return hky_error_set(e, HKY_E_SYNTAX, "all addresses of a domain are written \"%.*s\"",
                             (int)(s.n - local_n - 1 < 80 ? s.n - local_n - 1 : 80), domain);
    return hky_error_set(e, HKY_E_SYNTAX,
                         "an address is no pattern: write it whole, or its domain, or a matcher "
                         "(put a * that is part of the address in quotes: '\"a*b\"@shop.example')");
}

enum hky_err hky_set_entry_parse(struct hky_str s, struct hky_set_entry *out, struct hky_error *e)
{
    struct hky_address address;
    char domain[HKY_DOMAIN_MAX + 1];
    enum hky_err err;

    *out = (struct hky_set_entry){0};
    if (hky_str_eq(s, HKY_STR("*"))) {
        out->kind = HKY_SET_ENTRY_EVERYONE;
        return HKY_OK;
    }
    if (hky_str_eq(s, HKY_STR("<>"))) {
        out->kind = HKY_SET_ENTRY_NULL;
        return HKY_OK;
    }
    if (memchr(s.p, '@', s.n) != NULL) {
        if ((err = refuse_glob(s, e)) != HKY_OK)
            return err;
        if ((err = hky_mailbox_parse(s, &address, e)) != HKY_OK)
            return err;
        out->kind = HKY_SET_ENTRY_ADDRESS;
        lower_into(out->text, hky_address_str(&address));
        return HKY_OK;
    }
    out->kind = HKY_SET_ENTRY_DOMAIN;
    if (s.n > 0 && s.p[0] == '.') {
        out->kind = HKY_SET_ENTRY_PARENT;
        s.p++, s.n--;
    }
    if (s.n == 0 || memchr(s.p, '*', s.n) != NULL || memchr(s.p, ' ', s.n) != NULL)
        return hky_error_set(e, HKY_E_SYNTAX, "write an address, a domain, .domain or \"*\"");
    if ((err = hky_domain_normalise(s, domain, e)) != HKY_OK)
        return err;
    lower_into(out->text, hky_str_z(domain));
    return HKY_OK;
}

struct hky_set *hky_set_new(void)
{
    struct hky_set *s = hky_calloc(1, sizeof *s);

    s->refs = 1;
    hky_map_init(&s->addresses);
    hky_map_init(&s->domains);
    hky_map_init(&s->parents);
    return s;
}

void hky_set_unref(struct hky_set **s)
{
    struct hky_set *it = *s;

    *s = NULL;
    if (it == NULL || __atomic_sub_fetch(&it->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    hky_map_fini(&it->addresses);
    hky_map_fini(&it->domains);
    hky_map_fini(&it->parents);
    free(it);
}

void hky_set_add(struct hky_set *s, const struct hky_set_entry *entry)
{
    struct hky_str text = hky_str_z(entry->text);

    switch (entry->kind) {
    case HKY_SET_ENTRY_EVERYONE:
        s->is_everyone = true;
        break;
    case HKY_SET_ENTRY_NULL:
        s->has_null = true;
        break;
    case HKY_SET_ENTRY_ADDRESS:
        hky_map_put(&s->addresses, text, PRESENT);
        break;
    case HKY_SET_ENTRY_DOMAIN:
        hky_map_put(&s->domains, text, PRESENT);
        break;
    case HKY_SET_ENTRY_PARENT:
        hky_map_put(&s->parents, text, PRESENT);
        break;
    }
}

static void map_add_all(struct hky_map *to, const struct hky_map *from)
{
    size_t at = 0;
    struct hky_map_entry *it;

    while ((it = hky_map_next(from, &at)) != NULL)
        hky_map_put(to, hky_str_of(it->key, it->n), PRESENT);
}

void hky_set_add_all(struct hky_set *to, const struct hky_set *from)
{
    to->is_everyone |= from->is_everyone;
    to->has_null |= from->has_null;
    map_add_all(&to->addresses, &from->addresses);
    map_add_all(&to->domains, &from->domains);
    map_add_all(&to->parents, &from->parents);
}

/* Is a domain above this one in the set, as ".domain"? */
static bool has_parent_of(const struct hky_set *s, struct hky_str domain)
{
    for (size_t i = 0; s->parents.n > 0 && i < domain.n; i++)
        if (domain.p[i] == '.' && hky_map_get(&s->parents, hky_str_of(domain.p + i + 1, domain.n - i - 1)) != NULL)
            return true;
    return false;
}

static bool has_domain(const struct hky_set *s, struct hky_str domain)
{
    return (s->domains.n > 0 && hky_map_get(&s->domains, domain) != NULL) || has_parent_of(s, domain);
}

static bool has_address(const struct hky_set *s, struct hky_str address)
{
    const char *at = memrchr(address.p, '@', address.n);

    return (s->addresses.n > 0 && hky_map_get(&s->addresses, address) != NULL) ||
           (at != NULL && has_domain(s, hky_str_of(at + 1, address.n - (size_t)(at + 1 - address.p))));
}

bool hky_set_is_subset(const struct hky_set *inner, const struct hky_set *outer)
{
    struct hky_map_entry *e;

    if (outer->is_everyone)
        return true;
    if (inner->is_everyone || (inner->has_null && !outer->has_null))
        return false;
    for (size_t at = 0; (e = hky_map_next(&inner->addresses, &at)) != NULL;)
        if (!has_address(outer, hky_str_of(e->key, e->n)))
            return false;
    for (size_t at = 0; (e = hky_map_next(&inner->domains, &at)) != NULL;)
        if (!has_domain(outer, hky_str_of(e->key, e->n)))
            return false;
    for (size_t at = 0; (e = hky_map_next(&inner->parents, &at)) != NULL;)
        if (outer->parents.n == 0 || (hky_map_get(&outer->parents, hky_str_of(e->key, e->n)) == NULL &&
                                      !has_parent_of(outer, hky_str_of(e->key, e->n))))
            return false;
    return true;
}

size_t hky_set_n(const struct hky_set *s)
{
    return s->addresses.n + s->domains.n + s->parents.n;
}

bool hky_set_has(const struct hky_set *s, const struct hky_match_key *k)
{
    struct hky_str domain = hky_str_of(k->text + k->domain_at, (size_t)(k->n - k->domain_at));

    if (s->is_everyone)
        return true;
    if (k->is_null)
        return s->has_null;
    if (s->addresses.n > 0 && hky_map_get(&s->addresses, hky_str_of(k->text, k->n)) != NULL)
        return true;
    if (s->domains.n > 0 && hky_map_get(&s->domains, domain) != NULL)
        return true;
    return has_parent_of(s, domain);
}
