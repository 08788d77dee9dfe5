/* Addresses: parse(format(x)) == x, quoted and raw; nothing that could end a line or a path; normalising is final. */
#include "mail/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_wire(const struct hky_address *a, bool is_raw)
{
    struct hky_address again;
    struct hky_buf wire;

    hky_buf_init(&wire, 1024);
    hky_address_format(hky_address_str(a), is_raw, &wire);
    for (size_t i = 0; i < wire.n; i++)
        HKY_ASSERT((unsigned char)wire.p[i] >= 0x20 && wire.p[i] != 0x7f);
    HKY_ASSERT(hky_mailbox_parse(hky_buf_str(&wire), &again, NULL) == HKY_OK);
    HKY_ASSERT(again.n == a->n && again.local_n == a->local_n && again.is_utf8 == a->is_utf8);
    HKY_ASSERT(strcmp(again.text, a->text) == 0);
    hky_buf_fini(&wire);
}

static void check_address(const struct hky_address *a)
{
    struct hky_str local, domain;

    HKY_ASSERT(a->n == strlen(a->text) && a->n <= 254);
    HKY_ASSERT(a->local_n >= 1 && a->local_n <= HKY_LOCALPART_MAX && a->text[a->local_n] == '@');
    hky_address_split(hky_address_str(a), &local, &domain);
    HKY_ASSERT(hky_str_eq(local, hky_address_local(a)) && hky_str_eq(domain, hky_address_domain(a)));
    HKY_ASSERT(hky_address_eq(hky_address_str(a), hky_address_str(a)));
    check_wire(a, false);
    check_wire(a, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_str s = hky_str_of(size > 0 ? (const char *)data : "", size);
    struct hky_address a;
    char domain[HKY_DOMAIN_MAX + 1], again[HKY_DOMAIN_MAX + 1];
    size_t used;

    if (hky_mailbox_parse(s, &a, NULL) == HKY_OK)
        check_address(&a);
    else
        HKY_ASSERT(a.n == 0);
    for (unsigned flags = 0; flags < 8; flags++)
        if (hky_path_parse(s, flags, &a, &used, NULL) == HKY_OK) {
            HKY_ASSERT(used <= s.n && s.p[used - 1] == '>');
            HKY_ASSERT(!a.is_utf8 || (flags & HKY_PATH_UTF8));
            if (a.n > 0)
                check_address(&a);
        }
    if (hky_domain_normalise(s, domain, NULL) == HKY_OK) {
        HKY_ASSERT(hky_domain_normalise(hky_str_z(domain), again, NULL) == HKY_OK);
        HKY_ASSERT(strcmp(domain, again) == 0 && strlen(domain) <= HKY_DOMAIN_MAX);
    }
    return 0;
}
