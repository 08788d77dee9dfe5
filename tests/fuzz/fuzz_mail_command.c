/* Command lines: a refusal always has its reply; what is accepted has no control octets and comes back from the wire.
 */
#include "mail/command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_clean(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        HKY_ASSERT((unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f);
    HKY_ASSERT(hky_utf8_is_valid(s));
}

static void check_accepted(const struct hky_smtp_command *c)
{
    struct hky_address again;
    struct hky_buf wire;

    check_clean(hky_buf_str(&c->envid));
    check_clean(hky_buf_str(&c->orcpt));
    HKY_ASSERT(c->is_null == (c->verb == HKY_VERB_MAIL && c->path.n == 0));
    if (c->path.n == 0)
        return;
    check_clean(hky_address_str(&c->path));
    hky_buf_init(&wire, 1024);
    hky_buf_add_c(&wire, '<');
    hky_address_format(hky_address_str(&c->path), false, &wire);
    hky_buf_add_c(&wire, '>');
    size_t used;
    HKY_ASSERT(hky_path_parse(hky_buf_str(&wire), HKY_PATH_UTF8, &again, &used, NULL) == HKY_OK);
    HKY_ASSERT(used == wire.n && strcmp(again.text, c->path.text) == 0);
    hky_buf_fini(&wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_smtp_command c;
    struct hky_error e = {0};
    struct hky_str line = hky_str_of(size > 0 ? (const char *)data : "", size);
    const char *enhanced;
    int code;

    hky_smtp_command_init(&c);
    for (int round = 0; round < 2; round++) { /* a command is used again and again */
        if (hky_smtp_command_parse(line, &c, &code, &enhanced, &e) == HKY_OK) {
            HKY_ASSERT(code == 0);
            check_accepted(&c);
        } else {
            HKY_ASSERT(code >= 500 && code <= 559 && enhanced[0] == '5' && e.text[0] != '\0');
            HKY_ASSERT(c.verb != HKY_VERB_UNKNOWN);
        }
        HKY_ASSERT(hky_smtp_verb_name(c.verb)[0] != '\0');
    }
    hky_smtp_command_fini(&c);
    return 0;
}
