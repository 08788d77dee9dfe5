#include "smtp/dialogue.h"

static void auth_keywords(struct hky_str words, struct hky_capabilities *out)
{
    out->has_auth = true;
    while (words.n > 0) {
        size_t k = 0;
        while (k < words.n && words.p[k] != ' ' && words.p[k] != '\t')
            k++;
        for (enum hky_auth a = HKY_AUTH_AUTO + 1; a < HKY_AUTH_NONE; a++)
            if (hky_str_ieq(hky_str_of(words.p, k), hky_str_z(hky_auth_name(a))))
                out->auths |= 1u << a;
        words = hky_str_trim(hky_str_of(words.p + k, words.n - k));
    }
}

void hky_capabilities_parse(struct hky_str lines, struct hky_capabilities *out)
{
    *out = (struct hky_capabilities){0};
    bool is_first = true;
    while (lines.n > 0) {
        const char *lf = memchr(lines.p, '\n', lines.n);
        size_t n = lf != NULL ? (size_t)(lf - lines.p) : lines.n;
        struct hky_str line = hky_str_trim(hky_str_of(lines.p, n));
        size_t skip = lf != NULL ? n + 1 : n;
        lines = hky_str_of(lines.p + skip, lines.n - skip);
        if (is_first) {
            is_first = false;
            continue;
        }
        size_t k = 0;
        while (k < line.n && line.p[k] != ' ' && line.p[k] != '=')
            k++;
        struct hky_str word = hky_str_of(line.p, k);
        struct hky_str rest = k < line.n ? hky_str_trim(hky_str_of(line.p + k + 1, line.n - k - 1)) : hky_str_of("", 0);
        if (hky_str_ieq(word, HKY_STR("PIPELINING")))
            out->pipelining = true;
        else if (hky_str_ieq(word, HKY_STR("STARTTLS")))
            out->starttls = true;
        else if (hky_str_ieq(word, HKY_STR("8BITMIME")))
            out->eightbit = true;
        else if (hky_str_ieq(word, HKY_STR("SMTPUTF8")))
            out->smtputf8 = true;
        else if (hky_str_ieq(word, HKY_STR("BINARYMIME")))
            out->binarymime = true;
        else if (hky_str_ieq(word, HKY_STR("CHUNKING")))
            out->chunking = true;
        else if (hky_str_ieq(word, HKY_STR("DSN")))
            out->dsn = true;
        else if (hky_str_ieq(word, HKY_STR("AUTH")))
            auth_keywords(rest, out);
        else if (hky_str_ieq(word, HKY_STR("SIZE"))) {
            out->has_size = true;
            if (!hky_str_u64(rest, UINT64_MAX / 2, &out->size))
                out->size = 0;
        }
    }
}
