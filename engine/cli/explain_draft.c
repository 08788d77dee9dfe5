/* The invented message of `explain`. */
#include "cli/cli.h"
#include "cli/explain.h"
#include "mail/header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MESSAGE_HEAD_MAX (1U << 20) /* of --message: the header section is what policies see */
#define FACTS_MAX        (1U << 16)

static bool complain(const char *what, const char *value, const char *why)
{
    fprintf(stderr, "hikyaku explain: %s%s%s\n", what, value, why);
    return false;
}

bool explain_time(const char *text, int64_t now_ms, int64_t *out_ms)
{
    struct tm tm = {0}, today;
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
    if ((at = mktime(&tm)) == (time_t)-1)
        return false;
    *out_ms = (int64_t)at * 1000;
    return true;
}

static bool parse_address(const char *option, const char *text, struct hky_address *out)
{
    struct hky_error e = {0};

    if (hky_mailbox_parse(hky_str_z(text), out, &e) == HKY_OK)
        return true;
    fprintf(stderr, "hikyaku explain: --%s %s is no address: %s\n", option, text, e.text);
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
    if (!is_at_start)
        hky_buf_add_z(out, "\r\n");
    if (f != stdin)
        fclose(f);
    return !out->is_over || complain("the header of ", path, " is longer than 1 MiB");
}

/* --header comes first, so that it is found before a field of the file. */
static bool build_header(const struct explain_wish *w, struct hky_buf *out)
{
    struct hky_field field;
    bool has_from;

    for (size_t i = 0; i < w->n_headers; i++) {
        const char *colon = strchr(w->headers[i], ':');

        if (colon == NULL || colon == w->headers[i] || strpbrk(w->headers[i], "\r\n") != NULL)
            return complain("--header ", w->headers[i], " must look like 'Name: value'");
        hky_buf_printf(out, "%s\r\n", w->headers[i]);
    }
    if (w->author != NULL)
        hky_buf_printf(out, "From: %s\r\n", w->author);
    if (w->message != NULL && !read_header(w->message, out))
        return false;
    has_from = hky_field_find(hky_buf_str(out), "From", &field);
    if (!has_from && w->sender != NULL && strchr(w->sender, '@') != NULL)
        hky_buf_printf(out, "From: %s\r\n", w->sender);
    hky_buf_add_z(out, "\r\n");
    return !out->is_over || complain("the header is longer than 1 MiB", "", "");
}

/* Name and address of From; --author may be "Shop <news@shop.example>". */
static bool find_author(const struct explain_wish *w, struct hky_str header, struct hky_address *address,
                        struct hky_buf *name)
{
    struct hky_field field;
    struct hky_mailbox box;
    bool is_bad = false;

    *address = (struct hky_address){0};
    if (!hky_field_find(header, "From", &field))
        return true;
    if (hky_mailboxes_parse(field.value, &box, 1, &is_bad) == 0) {
        if (w->author != NULL)
            return complain("--author ", w->author, " must look like news@shop.example");
        return true;
    }
    *address = box.address;
    hky_phrase_decode(box.name, name);
    return true;
}

static void decode_fact(struct hky_str header, const char *field_name, struct hky_buf *out)
{
    struct hky_field field;

    if (hky_field_find(header, field_name, &field))
        hky_field_decode(hky_str_trim(field.value), out);
}

static bool pack_lists(const struct explain_wish *w, struct hky_buf *tags, struct hky_buf *vars)
{
    for (size_t i = 0; i < w->n_tags; i++)
        hky_buf_add(tags, w->tags[i], strlen(w->tags[i]) + 1);
    for (size_t i = 0; i < w->n_vars; i++) {
        const char *equals = strchr(w->vars[i], '=');

        if (equals == NULL || equals == w->vars[i])
            return complain("--var ", w->vars[i], " must look like name=value");
        hky_buf_add(vars, w->vars[i], (size_t)(equals - w->vars[i]));
        hky_buf_add(vars, "", 1);
        hky_buf_add(vars, equals + 1, strlen(equals + 1) + 1);
    }
    return true;
}

struct pieces {
    struct hky_address to, sender, author;
    struct hky_buf name, subject, tags, vars, scenario;
};

static void take_own_tags(struct hky_str list, struct hky_buf *tags)
{
    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma != NULL ? (size_t)(comma - list.p) : list.n;
        struct hky_str tag = hky_str_trim(hky_str_of(list.p, n));

        if (tag.n > 0) {
            hky_buf_add_str(tags, tag);
            hky_buf_add_c(tags, '\0');
        }
        n += comma != NULL;
        list = hky_str_of(list.p + n, list.n - n);
    }
}

static bool take_own_var(struct hky_str pair, struct hky_buf *vars)
{
    const char *equals = memchr(pair.p, '=', pair.n);
    size_t n = equals != NULL ? (size_t)(equals - pair.p) : 0;

    if (n == 0)
        return complain("X-Hikyaku-Var", "", ": expected name=value");
    hky_buf_add_str(vars, hky_str_trim(hky_str_of(pair.p, n)));
    hky_buf_add_c(vars, '\0');
    hky_buf_add_str(vars, hky_str_trim(hky_str_of(equals + 1, pair.n - n - 1)));
    hky_buf_add_c(vars, '\0');
    return true;
}

static bool take_own_field(struct hky_str name, struct hky_str value, struct pieces *p)
{
    if (hky_str_ieq(name, HKY_STR("Scenario")) && p->scenario.n == 0)
        hky_buf_add_str(&p->scenario, value);
    else if (hky_str_ieq(name, HKY_STR("Tag")))
        take_own_tags(value, &p->tags);
    else if (hky_str_ieq(name, HKY_STR("Var")))
        return take_own_var(value, &p->vars);
    return true;
}

/* What the application says in X-Hikyaku-* is believed, as from loopback, and leaves the header. */
static bool take_own_fields(struct explain_case *c, struct pieces *p)
{
    static const struct hky_str own = {"X-Hikyaku-", 10};
    struct hky_str header = hky_buf_str(&c->header);
    struct hky_buf rest, value;
    struct hky_field f;
    bool is_good = true;
    size_t at = 0;

    hky_buf_init(&rest, MESSAGE_HEAD_MAX);
    hky_buf_init(&value, FACTS_MAX);
    while (is_good && hky_field_next(header, &at, &f)) {
        if (f.name.n <= own.n || !hky_str_istarts(f.name, own)) {
            hky_buf_add_str(&rest, f.whole);
            continue;
        }
        hky_buf_clear(&value);
        hky_field_decode(f.value, &value);
        is_good = take_own_field(hky_str_of(f.name.p + own.n, f.name.n - own.n), hky_str_trim(hky_buf_str(&value)), p);
    }
    hky_buf_add_z(&rest, "\r\n");
    hky_buf_fini(&value);
    hky_buf_fini(&c->header);
    c->header = rest;
    return is_good;
}

static bool gather(struct explain_case *c, const struct explain_wish *w, struct pieces *p)
{
    struct hky_str header;

    if (w->scenario != NULL)
        hky_buf_add_z(&p->scenario, w->scenario);
    if (!take_own_fields(c, p))
        return false;
    header = hky_buf_str(&c->header);
    if (!parse_address("to", w->to, &p->to) || !find_author(w, header, &p->author, &p->name) ||
        !pack_lists(w, &p->tags, &p->vars))
        return false;
    if (w->sender == NULL)
        p->sender = p->author;
    else if (!parse_sender(w->sender, &p->sender))
        return false;
    decode_fact(header, "Subject", &p->subject);
    return true;
}

/* Mail of a login with one scenario has it without naming it, as at the door. */
static const char *only_scenario(const struct hky_engine_options *engine, const char *login)
{
    for (uint32_t i = 0; login != NULL && i < engine->n_listen; i++) {
        const struct hky_listen *l = &engine->listen[i];

        for (uint32_t k = 0; k < l->n_users; k++) {
            const char *const *may = l->users[k].scenarios;
            bool has_one = may != NULL && may[0] != NULL && may[1] == NULL && strcmp(may[0], "*") != 0;

            if (has_one && strcmp(l->users[k].name, login) == 0)
                return may[0];
        }
    }
    return "";
}

static void make(struct explain_case *c, const struct explain_wish *w, const struct pieces *p)
{
    struct hky_rcpt_draft rcpt = {.address = hky_address_str(&p->to)};
    struct hky_message_draft draft = {.id = 1,
                                      .accepted_at_ms = c->now_ms,
                                      .size = c->header.n,
                                      .header_octets = (uint32_t)c->header.n,
                                      .recipients = &rcpt,
                                      .n_recipients = 1};
    struct hky_field field;

    draft.facts[HKY_FACT_SENDER] = hky_address_str(&p->sender);
    draft.facts[HKY_FACT_AUTHOR] = hky_address_str(&p->author);
    draft.facts[HKY_FACT_AUTHOR_NAME] = hky_buf_str(&p->name);
    draft.facts[HKY_FACT_SCENARIO] =
        p->scenario.n > 0 ? hky_buf_str(&p->scenario) : hky_str_z(only_scenario(&c->policy->engine, w->user));
    draft.facts[HKY_FACT_USER] = hky_str_z(w->user);
    draft.facts[HKY_FACT_CLIENT] = HKY_STR("127.0.0.1");
    draft.facts[HKY_FACT_SOURCE] = HKY_STR("smtp");
    draft.facts[HKY_FACT_SUBJECT] = hky_buf_str(&p->subject);
    draft.facts[HKY_FACT_TAGS] = hky_buf_str(&p->tags);
    draft.facts[HKY_FACT_VARS] = hky_buf_str(&p->vars);
    if (hky_field_find(hky_buf_str(&c->header), "Message-ID", &field))
        draft.facts[HKY_FACT_MESSAGE_ID] = hky_str_trim(field.value);
    c->message = hky_message_new(&draft);
    c->recipient = &c->message->recipients[0];
}

bool explain_invent(struct explain_case *c, const struct explain_wish *w)
{
    struct pieces p = {0};
    bool is_good;

    hky_buf_init(&c->header, MESSAGE_HEAD_MAX);
    hky_buf_init(&p.name, FACTS_MAX);
    hky_buf_init(&p.subject, FACTS_MAX);
    hky_buf_init(&p.scenario, FACTS_MAX);
    hky_buf_init(&p.tags, FACTS_MAX);
    hky_buf_init(&p.vars, FACTS_MAX);
    is_good = build_header(w, &c->header) && gather(c, w, &p);
    if (is_good)
        make(c, w, &p);
    hky_buf_fini(&p.name);
    hky_buf_fini(&p.subject);
    hky_buf_fini(&p.scenario);
    hky_buf_fini(&p.tags);
    hky_buf_fini(&p.vars);
    return is_good;
}
