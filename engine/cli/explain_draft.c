/* The invented message of `explain`. */
#include "cli/cli.h"
#include "cli/explain.h"
#include "hikyaku/intake.h"
#include "mail/header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LOGINS_SHOWN     20
#define MESSAGE_HEAD_MAX (1U << 20) /* of --message: policies see only the header section */

static bool complain(const char *what, const char *value, const char *why)
{
    hky_cli_printf(stderr, "hikyaku explain: %s%s%s\n", what, value, why);
    return false;
}

/* mktime takes February 30 for March 2, and a time that the clocks skip in spring for another one. */
static bool is_same_time(const struct tm *a, const struct tm *b)
{
    return a->tm_year == b->tm_year && a->tm_mon == b->tm_mon && a->tm_mday == b->tm_mday && a->tm_hour == b->tm_hour &&
           a->tm_min == b->tm_min;
}

bool explain_time(const char *text, int64_t now_ms, int64_t *out_ms)
{
    struct tm tm = {0}, today, typed;
    time_t now = (time_t)(now_ms / 1000), at;
    uint64_t unix_sec;
    const char *rest;

    if (hky_str_u64(hky_str_z(text), INT32_MAX * UINT64_C(100), &unix_sec)) {
        *out_ms = (int64_t)unix_sec * 1000;
        return true;
    }
    localtime_r(&now, &today);
    if ((rest = strptime(text, "%Y-%m-%d", &tm)) == NULL) {
        tm.tm_year = today.tm_year;
        tm.tm_mon = today.tm_mon;
        tm.tm_mday = today.tm_mday;
        rest = text;
    } else if (*rest == 'T' || *rest == ' ') {
        rest++;
    }
    if (*rest != '\0') {
        const char *end = strptime(rest, "%H:%M", &tm);

        if (end != NULL && *end == ':')
            end = strptime(end, ":%S", &tm);
        if (end == NULL || *end != '\0')
            return false;
    }
    tm.tm_isdst = -1;
    typed = tm;
    if ((at = mktime(&tm)) == (time_t)-1 || !is_same_time(&tm, &typed))
        return false;
    *out_ms = (int64_t)at * 1000;
    return true;
}

static bool parse_address(const char *option, const char *text, struct hky_address *out)
{
    struct hky_error e = {0};

    if (hky_mailbox_parse(hky_str_z(text), out, &e) == HKY_OK)
        return true;
    hky_cli_printf(stderr, "hikyaku explain: --%s %s is no address: %s\n", option, text, e.text);
    return false;
}

/* "" and "<>" are the null sender. */
static bool parse_sender(const char *text, struct hky_address *out)
{
    *out = (struct hky_address){0};
    if (text[0] == '\0' || strcmp(text, "<>") == 0)
        return true;
    return parse_address("sender", text, out);
}

/* The header section of a file, line ends as CRLF. */
static bool read_header(const char *path, struct hky_buf *out)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    bool is_at_start = true;
    int c;

    if (f == NULL)
        return complain(path, ": cannot read it: ", strerror(errno));
    while ((c = getc(f)) != EOF && !out->is_over) {
        if (c == '\r')
            continue;
        if (c != '\n') {
            hky_buf_add_c(out, (char)c);
            is_at_start = false;
            continue;
        }
        if (is_at_start)
            break;
        hky_buf_add_z(out, "\r\n");
        is_at_start = true;
    }
    if (ferror(f)) { /* a folder can be opened, but not read */
        int cause = errno;
        if (f != stdin)
            fclose(f);
        return complain(path, ": cannot read it: ", strerror(cause));
    }
    if (!is_at_start)
        hky_buf_add_z(out, "\r\n");
    if (f != stdin)
        fclose(f);
    return !out->is_over || complain("the header of ", path, " is longer than 1 MiB");
}

/* --header comes first, so that it is found before a field of the file. */
static bool build_header(const struct explain_request *request, struct hky_buf *out)
{
    struct hky_field field;
    bool has_from;

    for (size_t i = 0; i < request->n_headers; i++) {
        const char *colon = strchr(request->headers[i], ':');

        if (colon == NULL || colon == request->headers[i] || strpbrk(request->headers[i], "\r\n") != NULL)
            return complain("--header ", request->headers[i], " must look like 'Name: value'");
        hky_buf_printf(out, "%s\r\n", request->headers[i]);
    }
    if (request->author != NULL)
        hky_buf_printf(out, "From: %s\r\n", request->author);
    if (request->message != NULL && !read_header(request->message, out))
        return false;
    has_from = hky_field_find(hky_buf_str(out), "From", &field);
    if (!has_from && request->sender != NULL && strchr(request->sender, '@') != NULL)
        hky_buf_printf(out, "From: %s\r\n", request->sender);
    hky_buf_add_z(out, "\r\n");
    return !out->is_over || complain("the header is longer than 1 MiB", "", "");
}

/* The address of From; --author may be "Shop <news@shop.example>". */
static bool find_author(const struct explain_request *request, struct hky_str header, struct hky_address *address)
{
    struct hky_field field;
    struct hky_mailbox box;
    bool is_bad = false;

    *address = (struct hky_address){0};
    if (!hky_field_find(header, "From", &field))
        return true;
    if (hky_mailboxes_parse(field.value, &box, 1, &is_bad) == 0) {
        if (request->author != NULL)
            return complain("--author ", request->author, " must look like news@shop.example");
        return true;
    }
    *address = box.address;
    return true;
}

static bool add_own(const char *option, const char *field, const char *value, struct hky_buf *out)
{
    if (strpbrk(value, "\r\n") != NULL)
        return complain(option, value, " must be one line");
    hky_buf_printf(out, "X-Hikyaku-%s: %s\r\n", field, value);
    return true;
}

/* Writes the options as the X-Hikyaku- fields of an application; a scenario replaces that of the file. */
static bool add_own_fields(const struct explain_request *request, struct hky_buf *out)
{
    bool is_good = request->scenario == NULL || request->scenario[0] == '\0' ||
                   add_own("--scenario ", "Scenario", request->scenario, out);

    for (size_t i = 0; i < request->n_tags && is_good; i++)
        is_good = add_own("--tag ", "Tag", request->tags[i], out);
    for (size_t i = 0; i < request->n_vars && is_good; i++) {
        const char *equals = strchr(request->vars[i], '=');
        if (equals == NULL || equals == request->vars[i])
            return complain("--var ", request->vars[i], " must look like name=value");
        is_good = add_own("--var ", "Var", request->vars[i], out);
    }
    return is_good;
}

static bool build_message(const struct explain_request *request, struct hky_str header, struct hky_buf *out)
{
    struct hky_field f;
    size_t at = 0;

    if (!add_own_fields(request, out))
        return false;
    while (hky_field_next(header, &at, &f))
        if (request->scenario == NULL || !hky_str_ieq(f.name, HKY_STR("X-Hikyaku-Scenario")))
            hky_buf_add_str(out, f.whole);
    hky_buf_add_z(out, "\r\n");
    return true;
}

static bool find_login(const struct hky_policy *policy, const char *name, const struct hky_user **out)
{
    const struct hky_engine_options *engine = &policy->engine;
    size_t n = 0;

    *out = NULL;
    if (name == NULL)
        return true;
    if ((*out = hky_user_find(policy, hky_str_z(name))) != NULL)
        return true;
    hky_cli_printf(stderr, "hikyaku explain: --user %s: no listener has this login; there are:", name);
    for (uint32_t i = 0; i < engine->n_listen; i++)
        for (uint32_t k = 0; k < engine->listen[i].n_users; k++, n++)
            if (n < LOGINS_SHOWN)
                hky_cli_printf(stderr, "%s %s", n > 0 ? "," : "", engine->listen[i].users[k].name);
    fputs(n == 0 ? " none\n" : n > LOGINS_SHOWN ? " ...\n" : "\n", stderr);
    return false;
}

/* Makes the message with the code that accepts mail, so it is refused for the same reasons in the same words. */
static enum explain_draft_result hand_in(struct explain_case *c, const struct explain_request *request,
                                         const struct hky_address *to, const struct hky_address *sender,
                                         struct hky_str octets)
{
    struct hky_letter_params params = {.policy = c->policy, .is_trusted = true, .id = 1, .now_ms = c->now_ms};
    struct hky_letter_sender from = {
        .address = hky_address_str(sender), .is_smtputf8 = true, .is_utf8 = sender->is_utf8};
    struct hky_letter_rcpt rcpt = {.address = hky_address_str(to), .is_utf8 = to->is_utf8};
    struct hky_handed_in in = {0};

    if (!find_login(c->policy, request->user, &params.user))
        return EXPLAIN_WRONG;
    struct hky_letter *letter = hky_letter_new(&params);
    bool is_good =
        hky_letter_set_sender(letter, &from, &c->refusal) && hky_letter_add_recipient(letter, &rcpt, &c->refusal);
    if (is_good) {
        hky_letter_begin(letter, &(struct hky_letter_origin){.source = "smtp", .client = "127.0.0.1", .hello = ""},
                         octets.n);
        (void)hky_letter_add_octets(letter, octets.p, octets.n);
        is_good = hky_letter_end(letter, &in, &c->refusal);
    }
    if (is_good && hky_letter_unknown_fields(letter).n > 0)
        fprintf(stderr, "hikyaku explain: unknown fields, which are removed: " HKY_STR_FMT "\n",
                HKY_STR_ARG(hky_letter_unknown_fields(letter)));
    hky_letter_free(&letter);
    if (!is_good)
        return EXPLAIN_REFUSED;
    c->message = in.message;
    c->recipient = &c->message->recipients[0];
    hky_buf_clear(&c->header);
    hky_buf_add_str(&c->header, in.header);
    return EXPLAIN_TAKEN;
}

enum explain_draft_result explain_draft(struct explain_case *c, const struct explain_request *request)
{
    struct hky_address to, author, sender;
    struct hky_buf octets;
    enum explain_draft_result result = EXPLAIN_WRONG;

    hky_buf_init(&c->header, MESSAGE_HEAD_MAX);
    hky_buf_init(&octets, 2 * MESSAGE_HEAD_MAX);
    bool is_good = build_header(request, &c->header) && parse_address("to", request->to, &to) &&
                   find_author(request, hky_buf_str(&c->header), &author) &&
                   (request->sender == NULL || parse_sender(request->sender, &sender)) &&
                   build_message(request, hky_buf_str(&c->header), &octets);
    if (is_good && octets.is_over)
        is_good = complain("the header is longer than 1 MiB", "", "");
    if (is_good)
        result = hand_in(c, request, &to, request->sender != NULL ? &sender : &author, hky_buf_str(&octets));
    hky_buf_fini(&octets);
    return result;
}
