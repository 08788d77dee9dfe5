#include "mail/command.h"

/* Values of enum hky_ret and enum hky_notify in hikyaku/message.h, which is above this stage; a unit test compares. */
enum { RET_FULL = 1, RET_HDRS = 2 };
enum { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

#define ENVID_MAX 100 /* RFC 3461 4.4 */
#define ORCPT_MAX 500 /* RFC 3461 4.2 */
#define HELLO_MAX 255

/* What is wrong with the command, and the reply that says so. */
struct failure {
    int *code;
    const char **enhanced;
    struct hky_error *e;
};

static enum hky_err refuse(const struct failure *r, int code, const char *enhanced, const char *text)
{
    *r->code = code;
    *r->enhanced = enhanced;
    return hky_error_set(r->e, HKY_E_SYNTAX, "%s", text);
}

enum arg_rule { ARG_NONE, ARG_OPTIONAL, ARG_NEEDED };
static const struct {
    struct hky_str name;
    enum arg_rule arg;
} verbs[HKY_VERB_N] = {
    [HKY_VERB_EHLO] = {HKY_STR("EHLO"), ARG_NEEDED},         [HKY_VERB_HELO] = {HKY_STR("HELO"), ARG_NEEDED},
    [HKY_VERB_MAIL] = {HKY_STR("MAIL"), ARG_NEEDED},         [HKY_VERB_RCPT] = {HKY_STR("RCPT"), ARG_NEEDED},
    [HKY_VERB_DATA] = {HKY_STR("DATA"), ARG_NONE},           [HKY_VERB_BDAT] = {HKY_STR("BDAT"), ARG_NEEDED},
    [HKY_VERB_RSET] = {HKY_STR("RSET"), ARG_NONE},           [HKY_VERB_NOOP] = {HKY_STR("NOOP"), ARG_OPTIONAL},
    [HKY_VERB_QUIT] = {HKY_STR("QUIT"), ARG_NONE},           [HKY_VERB_VRFY] = {HKY_STR("VRFY"), ARG_NEEDED},
    [HKY_VERB_EXPN] = {HKY_STR("EXPN"), ARG_NEEDED},         [HKY_VERB_HELP] = {HKY_STR("HELP"), ARG_OPTIONAL},
    [HKY_VERB_STARTTLS] = {HKY_STR("STARTTLS"), ARG_NONE},   [HKY_VERB_AUTH] = {HKY_STR("AUTH"), ARG_NEEDED},
    [HKY_VERB_UNKNOWN] = {HKY_STR("unknown"), ARG_OPTIONAL},
};

const char *hky_smtp_verb_name(enum hky_verb v)
{
    HKY_ASSERT((unsigned)v < HKY_VERB_N);
    return verbs[v].name.p;
}

void hky_smtp_command_init(struct hky_smtp_command *c)
{
    *c = (struct hky_smtp_command){.verb = HKY_VERB_UNKNOWN};
    hky_buf_init(&c->envid, ENVID_MAX);
    hky_buf_init(&c->orcpt, ORCPT_MAX);
}

void hky_smtp_command_fini(struct hky_smtp_command *c)
{
    hky_buf_fini(&c->envid);
    hky_buf_fini(&c->orcpt);
}

static void reset(struct hky_smtp_command *c)
{
    struct hky_buf envid = c->envid, orcpt = c->orcpt;

    *c = (struct hky_smtp_command){
        .may_lack_brackets = c->may_lack_brackets, .verb = HKY_VERB_UNKNOWN, .arg = {"", 0}, .auth_param = {"", 0}};
    hky_buf_clear(&envid);
    hky_buf_clear(&orcpt);
    c->envid = envid;
    c->orcpt = orcpt;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct hky_str trim_blanks(struct hky_str s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Up to the next blank; *s moves behind it. */
static struct hky_str take_word(struct hky_str *s)
{
    size_t n = 0;
    struct hky_str word;

    *s = trim_blanks(*s);
    while (n < s->n && !is_blank(s->p[n]))
        n++;
    word = hky_str_of(s->p, n);
    *s = trim_blanks(hky_str_of(s->p + n, s->n - n));
    return word;
}

static bool has_control(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return true;
    }
    return false;
}

static bool has_8bit(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

static int upper_hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* RFC 3461 4: "+XX" with upper-case digits; what comes out must be printable, octets above 127 UTF-8. */
static bool decode_xtext(struct hky_str s, struct hky_buf *out)
{
    size_t start = out->n;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '+') {
            if (s.n - i < 3 || upper_hex(s.p[i + 1]) < 0 || upper_hex(s.p[i + 2]) < 0)
                return false;
            c = (unsigned char)(upper_hex(s.p[i + 1]) << 4 | upper_hex(s.p[i + 2]));
            i += 2;
        } else if (c == '=') {
            return false;
        }
        if (c < 0x20 || c == 0x7f)
            return false;
        hky_buf_add_c(out, (char)c);
    }
    return !out->is_over && hky_utf8_is_valid(hky_str_of(out->p + start, out->n - start));
}

static bool parse_orcpt(struct hky_str value, struct hky_buf *out)
{
    const char *semicolon = memchr(value.p, ';', value.n);
    size_t type_n = semicolon != NULL ? (size_t)(semicolon - value.p) : 0;

    if (type_n == 0 || type_n + 1 == value.n)
        return false;
    for (size_t i = 0; i < type_n; i++) {
        char c = hky_lower(value.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    hky_buf_add(out, value.p, type_n + 1);
    return decode_xtext(hky_str_of(semicolon + 1, value.n - type_n - 1), out);
}

static bool parse_notify(struct hky_str value, uint8_t *notify)
{
    static const struct {
        struct hky_str name;
        uint8_t bit;
    } words[] = {{HKY_STR("NEVER"), NOTIFY_NEVER},
                 {HKY_STR("SUCCESS"), NOTIFY_SUCCESS},
                 {HKY_STR("FAILURE"), NOTIFY_FAILURE},
                 {HKY_STR("DELAY"), NOTIFY_DELAY}};
    uint8_t bits = 0;

    for (size_t at = 0; at <= value.n;) {
        const char *comma = memchr(value.p + at, ',', value.n - at);
        size_t n = comma != NULL ? (size_t)(comma - value.p) - at : value.n - at;
        uint8_t bit = 0;

        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (hky_str_ieq(words[i].name, hky_str_of(value.p + at, n)))
                bit = words[i].bit;
        if (bit == 0 || (bits & bit))
            return false;
        bits |= bit;
        at += n + 1;
    }
    *notify = bits;
    return !(bits & NOTIFY_NEVER) || bits == NOTIFY_NEVER;
}

static bool parse_body(struct hky_str value, enum hky_body_kind *body)
{
    if (hky_str_ieq(value, HKY_STR("7BIT")))
        *body = HKY_BODY_7BIT;
    else if (hky_str_ieq(value, HKY_STR("8BITMIME")))
        *body = HKY_BODY_8BITMIME;
    else if (hky_str_ieq(value, HKY_STR("BINARYMIME")))
        *body = HKY_BODY_BINARYMIME;
    else
        return false;
    return true;
}

static bool parse_ret(struct hky_str value, uint8_t *ret)
{
    *ret = hky_str_ieq(value, HKY_STR("FULL")) ? RET_FULL : hky_str_ieq(value, HKY_STR("HDRS")) ? RET_HDRS : 0;
    return *ret != 0;
}

/* RFC 4954 5: "<>" or a mailbox in xtext. The value is not used, but a later server might decode it, so it must be
 * harmless. */
static bool parse_auth(struct hky_str value, struct hky_str *auth)
{
    struct hky_buf decoded;

    hky_buf_init(&decoded, ORCPT_MAX);
    bool is_good = hky_str_eq(value, HKY_STR("<>")) || (value.n > 0 && decode_xtext(value, &decoded));
    hky_buf_fini(&decoded);
    *auth = value;
    return is_good;
}

enum param { PARAM_SIZE, PARAM_BODY, PARAM_SMTPUTF8, PARAM_RET, PARAM_ENVID, PARAM_AUTH, PARAM_NOTIFY, PARAM_ORCPT };
static const struct {
    struct hky_str name;
    enum hky_verb verb;
    bool has_value;
    const char *wrong;
} params[] = {
    [PARAM_SIZE] = {HKY_STR("SIZE"), HKY_VERB_MAIL, true, "SIZE= takes a number of octets"},
    [PARAM_BODY] = {HKY_STR("BODY"), HKY_VERB_MAIL, true, "BODY= is 7BIT, 8BITMIME or BINARYMIME"},
    [PARAM_SMTPUTF8] = {HKY_STR("SMTPUTF8"), HKY_VERB_MAIL, false, "SMTPUTF8 takes no value"},
    [PARAM_RET] = {HKY_STR("RET"), HKY_VERB_MAIL, true, "RET= is FULL or HDRS"},
    [PARAM_ENVID] = {HKY_STR("ENVID"), HKY_VERB_MAIL, true, "ENVID= takes printable xtext of at most 100 octets"},
    [PARAM_AUTH] = {HKY_STR("AUTH"), HKY_VERB_MAIL, true, "AUTH= takes <> or printable xtext"},
    [PARAM_NOTIFY] = {HKY_STR("NOTIFY"), HKY_VERB_RCPT, true, "NOTIFY= is NEVER or a list of SUCCESS, FAILURE, DELAY"},
    [PARAM_ORCPT] = {HKY_STR("ORCPT"), HKY_VERB_RCPT, true, "ORCPT= takes type;xtext, printable, at most 500 octets"},
};
#define N_PARAMS (sizeof params / sizeof params[0])

static bool apply_param(struct hky_smtp_command *c, enum param which, struct hky_str value)
{
    switch (which) {
    case PARAM_SIZE:
        c->has_size = true;
        return hky_str_u64(value, UINT64_MAX, &c->size);
    case PARAM_BODY:
        return parse_body(value, &c->body);
    case PARAM_SMTPUTF8:
        c->is_smtputf8 = true;
        return true;
    case PARAM_RET:
        return parse_ret(value, &c->ret);
    case PARAM_ENVID:
        return value.n > 0 && decode_xtext(value, &c->envid) && !has_8bit(hky_buf_str(&c->envid));
    case PARAM_AUTH:
        return parse_auth(value, &c->auth_param);
    case PARAM_NOTIFY:
        return parse_notify(value, &c->notify);
    case PARAM_ORCPT:
        return parse_orcpt(value, &c->orcpt);
    }
    return false;
}

static enum hky_err parse_params(struct hky_str rest, struct hky_smtp_command *c, const struct failure *r)
{
    unsigned seen = 0;

    while (rest.n > 0) {
        struct hky_str word = take_word(&rest);
        const char *equals = memchr(word.p, '=', word.n);
        struct hky_str name = hky_str_of(word.p, equals != NULL ? (size_t)(equals - word.p) : word.n);
        struct hky_str value = equals != NULL ? hky_str_of(equals + 1, word.n - name.n - 1) : hky_str_of("", 0);
        size_t i = 0;

        while (i < N_PARAMS && !(params[i].verb == c->verb && hky_str_ieq(params[i].name, name)))
            i++;
        if (i == N_PARAMS)
            return refuse(r, 555, "5.5.4", "this parameter is not known here");
        if (seen & 1u << i)
            return refuse(r, 501, "5.5.4", "a parameter is given twice");
        seen |= 1u << i;
        if (params[i].has_value != (equals != NULL) || !apply_param(c, (enum param)i, value))
            return refuse(r, 501, "5.5.4", params[i].wrong);
    }
    return HKY_OK;
}

/* "a@b" without brackets, up to the first blank outside quotes; printers and controllers send this. */
static enum hky_err parse_bare_path(struct hky_str rest, bool is_mail, struct hky_address *out, size_t *used,
                                    struct hky_error *why)
{
    bool is_quoted = false;
    size_t n = 0;

    for (; n < rest.n && (is_quoted || !is_blank(rest.p[n])); n++)
        if (rest.p[n] == '"')
            is_quoted = !is_quoted;
        else if (is_quoted && rest.p[n] == '\\' && n + 1 < rest.n)
            n++;
    *out = (struct hky_address){0};
    *used = n;
    if (!is_mail && hky_str_ieq(hky_str_of(rest.p, n), HKY_STR("postmaster")))
        return HKY_OK;
    return hky_mailbox_parse(hky_str_of(rest.p, n), out, why);
}

/* "FROM:<path> parameters" or "TO:<path> parameters". */
static enum hky_err parse_envelope(struct hky_smtp_command *c, const struct failure *r)
{
    bool is_mail = c->verb == HKY_VERB_MAIL;
    struct hky_str prefix = is_mail ? HKY_STR("FROM:") : HKY_STR("TO:");
    unsigned flags = HKY_PATH_UTF8 | (is_mail ? HKY_PATH_MAY_BE_NULL : HKY_PATH_MAY_BE_POSTMASTER);
    struct hky_error why = {0};
    size_t used = 0;

    if (!hky_str_istarts(c->arg, prefix))
        return refuse(r, 501, "5.5.4", is_mail ? "expected MAIL FROM:<address>" : "expected RCPT TO:<address>");
    struct hky_str rest = trim_blanks(hky_str_of(c->arg.p + prefix.n, c->arg.n - prefix.n));
    bool is_bare = c->may_lack_brackets && rest.n > 0 && rest.p[0] != '<';
    if ((is_bare ? parse_bare_path(rest, is_mail, &c->path, &used, &why)
                 : hky_path_parse(rest, flags, &c->path, &used, &why)) != HKY_OK)
        return refuse(r, 501, is_mail ? "5.1.7" : "5.1.3", why.text);
    if (used < rest.n && !is_blank(rest.p[used]))
        return refuse(r, 501, is_mail ? "5.1.7" : "5.1.3", "there is something behind the address");
    struct hky_str path = hky_str_of(rest.p, used);
    c->is_null = is_mail && c->path.n == 0;
    enum hky_err err = parse_params(trim_blanks(hky_str_of(rest.p + used, rest.n - used)), c, r);
    if (err == HKY_OK && is_mail && !c->is_smtputf8 && has_8bit(path))
        return refuse(r, 553, "5.6.7", "an address with octets above 127 needs SMTPUTF8");
    return err;
}

static enum hky_err parse_bdat(struct hky_smtp_command *c, const struct failure *r)
{
    struct hky_str rest = c->arg, size = take_word(&rest);

    c->has_size = hky_str_u64(size, UINT64_MAX, &c->size);
    c->is_last = hky_str_ieq(rest, HKY_STR("LAST"));
    if (!c->has_size || (rest.n > 0 && !c->is_last))
        return refuse(r, 501, "5.5.4", "expected BDAT size [LAST]");
    return HKY_OK;
}

static enum hky_err parse_hello(struct hky_smtp_command *c, const struct failure *r)
{
    for (size_t i = 0; i < c->arg.n; i++)
        if (is_blank(c->arg.p[i]))
            return refuse(r, 501, "5.5.4", "expected one host name");
    if (c->arg.n > HELLO_MAX)
        return refuse(r, 501, "5.5.4", "the host name is too long");
    return HKY_OK;
}

enum hky_err hky_smtp_command_parse(struct hky_str line, struct hky_smtp_command *c, int *code, const char **enhanced,
                                    struct hky_error *e)
{
    const struct failure r = {code, enhanced, e};
    size_t n = 0;

    reset(c);
    *code = 0;
    *enhanced = "";
    while (n < line.n && !is_blank(line.p[n]))
        n++;
    for (unsigned v = 0; v < HKY_VERB_UNKNOWN && c->verb == HKY_VERB_UNKNOWN; v++)
        if (hky_str_ieq(verbs[v].name, hky_str_of(line.p, n)))
            c->verb = (enum hky_verb)v;
    c->arg = trim_blanks(hky_str_of(line.p + n, line.n - n));
    if (c->verb == HKY_VERB_UNKNOWN)
        return HKY_OK;
    if (has_control(c->arg))
        return refuse(&r, 501, "5.5.2", "the command has control octets");
    if (verbs[c->verb].arg == ARG_NONE && c->arg.n > 0)
        return refuse(&r, 501, "5.5.4", "this command takes no argument");
    if (verbs[c->verb].arg == ARG_NEEDED && c->arg.n == 0)
        return refuse(&r, 501, "5.5.4", "this command needs an argument");
    switch (c->verb) {
    case HKY_VERB_EHLO:
    case HKY_VERB_HELO:
        return parse_hello(c, &r);
    case HKY_VERB_MAIL:
    case HKY_VERB_RCPT:
        return parse_envelope(c, &r);
    case HKY_VERB_BDAT:
        return parse_bdat(c, &r);
    default:
        return HKY_OK;
    }
}
