/* The output of `explain` for people. */
#include "cli/ask.h"
#include "base/duration.h"
#include "cli/explain.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TITLE_COLUMN 9
#define FACT_MAX     65536
#define ROUTES_SHOWN 40 /* of those that do not match; --json has them all */

static const char *clock_time(int64_t at_ms, char out[32])
{
    time_t at = (time_t)(at_ms / 1000);
    struct tm tm;

    localtime_r(&at, &tm);
    strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
    return out;
}

static const char *zone_of(const struct explain_case *c)
{
    return hky_cli_zone_name(c->policy->engine.timezone != NULL ? c->policy->engine.timezone : "", c->is_utc);
}

/* Prints text two columns to the right, below a title. */
static void indented(const char *text)
{
    fputs("  ", stdout);
    hky_cli_print_words(text, 2);
}

static const char *file_name(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;

    return slash != NULL ? slash + 1 : path != NULL ? path : "";
}

static void title(const char *text)
{
    printf("\n%s", hky_cli_colour("bold"));
    hky_cli_put(stdout, text);
    puts(hky_cli_colour("off"));
}

static void fact(const char *name, struct hky_str value)
{
    char *text;

    if (value.n == 0)
        return;
    text = hky_str_dup(value);
    hky_cli_printf(stdout, "%-*s", TITLE_COLUMN, name);
    hky_cli_print_words(text, TITLE_COLUMN);
    free(text);
}

/* Prints tags, or variables with their values, each on a line. */
static void print_packed(const char *name, struct hky_str packed, bool has_values)
{
    struct hky_str one, value;
    struct hky_buf line;
    size_t at = 0;

    hky_buf_init(&line, FACT_MAX);
    while (packed.n > 0 && hky_packed_next(packed, &at, &one)) {
        hky_buf_clear(&line);
        hky_buf_add_str(&line, one);
        if (has_values && hky_packed_next(packed, &at, &value)) {
            hky_buf_add_c(&line, '=');
            hky_buf_add_str(&line, value);
        }
        fact(name, hky_buf_str(&line));
    }
    hky_buf_fini(&line);
}

static void print_facts(const struct explain_case *c)
{
    const struct hky_message *m = c->message;
    struct hky_str author = hky_message_fact(m, HKY_FACT_AUTHOR), sender = hky_message_fact(m, HKY_FACT_SENDER);
    char when[32], at[100], typed[HKY_CLI_ADDRESS];

    fact("to", hky_str_z(hky_cli_address(hky_recipient_address(c->recipient), typed)));
    fact("author",
         author.n > 0 ? hky_str_z(hky_cli_address(author, typed)) : HKY_STR("(none; --author says who writes)"));
    fact("sender", sender.n > 0 ? hky_str_z(hky_cli_address(sender, typed)) : HKY_STR("<>"));
    fact("scenario", hky_message_fact(m, HKY_FACT_SCENARIO));
    print_packed("tag", hky_message_fact(m, HKY_FACT_TAGS), false);
    print_packed("var", hky_message_fact(m, HKY_FACT_VARS), true);
    fact("subject", hky_message_fact(m, HKY_FACT_SUBJECT));
    snprintf(at, sizeof at, "%s %.60s", clock_time(m->accepted_at_ms, when), zone_of(c));
    fact("at", hky_str_z(at));
}

static void print_considered(const struct explain_case *c)
{
    const struct hky_explanation *x = &c->explanation;
    struct hky_cli_table *t;
    size_t n_no = 0;

    if (x->n_considered == 0)
        return;
    printf("\n");
    t = hky_cli_table_new(4);
    hky_cli_table_row(t, (const char *const[]){"routes", "", "", ""});
    for (size_t i = 0; i < x->n_considered; i++) {
        const struct hky_considered *one = &x->considered[i];
        char place[240], name[140];

        if (!one->matched && ++n_no > ROUTES_SHOWN)
            continue;
        snprintf(name, sizeof name, "  %s", one->route);
        snprintf(place, sizeof place, "%s:%u", file_name(one->place.file), one->place.line);
        hky_cli_table_row(t, (const char *const[]){name, place, one->matched ? "yes" : "no", one->why});
    }
    hky_cli_table_print(&t);
    if (n_no > ROUTES_SHOWN)
        printf("  ... and %zu more that do not match; --json lists them all\n", n_no - ROUTES_SHOWN);
    if (x->mail_hosts[0] != '\0' && strcmp(x->mail_hosts, x->decision.text) != 0) /* else it follows as the reason */
        fact("  mx:", hky_str_z(x->mail_hosts));
    for (size_t i = 0; i < x->n_notes; i++)
        fact("  note:", hky_str_z(x->notes[i]));
}

static void add_word(struct hky_buf *out, const char *separator, const char *word)
{
    if (out->n > 0)
        hky_buf_add_z(out, separator);
    hky_buf_add_z(out, word);
}

/* Adds the name of the set if `on` is a whole set, else the classes. */
static void describe_on(uint64_t on, struct hky_buf *out)
{
    static const char *const sets[] = {"ours", "theirs", "content", "temporary"};
    bool is_first = true;
    uint64_t mask;

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (hky_class_set_mask(hky_str_z(sets[i]), &mask) && mask == on) {
            hky_buf_printf(out, "classes.%s", sets[i]);
            return;
        }
    }
    for (unsigned k = 0; k < HKY_CLASS_N; k++) {
        if ((on & HKY_CLASS_BIT(k)) == 0)
            continue;
        hky_buf_printf(out, "%s%s", is_first ? "" : " ", hky_class_name((enum hky_class)k));
        is_first = false;
    }
}

/* When the step is entered and when it is left, as far as the policy states it. */
static void describe_step(const struct hky_step *s, struct hky_buf *out)
{
    char d[24], text[64];

    if (s->on != 0) {
        add_word(out, "; ", "only for ");
        describe_on(s->on, out);
    }
    if (s->tries != 0) {
        snprintf(text, sizeof text, "%u %s", s->tries, s->tries == 1 ? "try" : "tries");
        add_word(out, "; ", text);
    }
    if (s->within_sec != HKY_UNSET_SEC) {
        snprintf(text, sizeof text, "within %s", hky_duration_format(s->within_sec, d));
        add_word(out, "; ", text);
    }
    if (s->wait_sec != HKY_UNSET_SEC) {
        snprintf(text, sizeof text, "waits at most %s for its turn", hky_duration_format(s->wait_sec, d));
        add_word(out, "; ", text);
    }
}

static void describe_identity(const struct explain_case *c, uint8_t step, struct hky_buf *out)
{
    const struct hky_plan *plan = c->recipient->plan;
    const struct hky_relay *relay = explain_relay(c, step);
    struct hky_identity id = {0};

    if (relay == NULL) {
        hky_buf_add_z(out, "no such relay");
        return;
    }
    hky_identity_choose(c->policy, relay, plan, step, c->message, c->recipient, &id);
    if (!id.is_allowed) {
        bool has_author = hky_message_fact(c->message, HKY_FACT_AUTHOR).n > 0;
        hky_buf_printf(out, "skipped: cannot send %s (sends_as)",
                       has_author ? "as this author" : "for a message that names no author; say --author");
        return;
    }
    hky_buf_printf(out, "From %s%s", id.from[0] != '\0' ? id.from : "as it is", id.is_rewritten ? " (rewritten)" : "");
    if (strcmp(id.sender, id.from) != 0)
        hky_buf_printf(out, ", sender %s", id.sender[0] != '\0' ? id.sender : "<>");
    if (id.reply_to[0] != '\0')
        hky_buf_printf(out, ", Reply-To %s", id.reply_to);
}

static void print_plan(const struct explain_case *c)
{
    const struct hky_plan *plan = c->recipient->plan;
    struct hky_cli_table *t = hky_cli_table_new(4);
    struct hky_buf left, identity;
    char name[300]; /* two names of relays */

    printf("\n");
    snprintf(name, sizeof name, "plan of %s", plan->route);
    hky_cli_table_row(t, (const char *const[]){name, "", "", ""});
    hky_buf_init(&left, 2048);
    hky_buf_init(&identity, 2048);
    for (uint8_t i = 0; i < plan->n_steps; i++) {
        hky_buf_clear(&left);
        hky_buf_clear(&identity);
        describe_step(&plan->steps[i], &left);
        describe_identity(c, i, &identity);
        const char *relay = explain_relay_name(c, i);
        bool is_other = strcmp(relay, plan->steps[i].relay) != 0;
        snprintf(name, sizeof name, "  %u  %s%s%s", i + 1U, relay, is_other ? " instead of " : "",
                 is_other ? plan->steps[i].relay : "");
        hky_cli_table_row(t,
                          (const char *const[]){name, plan->steps[i].account, hky_buf_z(&identity), hky_buf_z(&left)});
    }
    hky_buf_fini(&left);
    hky_buf_fini(&identity);
    hky_cli_table_print(&t);
}

/* Prints what engine.redirect and engine.only_to change in the plan. */
static void print_staging(const struct explain_case *c)
{
    const struct hky_engine_options *o = &c->policy->engine;

    if (o->redirect != NULL && o->redirect[0] != '\0')
        hky_cli_printf(stdout, "  every connection goes to %s (engine.redirect)\n", o->redirect);
    if (o->reaches != NULL && !o->reaches(c->policy, c->recipient))
        printf("  %sheld instead: engine.only_to does not name this recipient%s\n", hky_cli_colour("yellow"),
               hky_cli_colour("off"));
}

static void print_arms(const struct explain_case *c)
{
    struct hky_str packed = hky_str_of(c->explanation.decision.arms, c->explanation.decision.arms_n), experiment, arm;
    size_t at = 0;

    while (packed.p != NULL && hky_packed_next(packed, &at, &experiment) && hky_packed_next(packed, &at, &arm)) {
        char line[300];

        snprintf(line, sizeof line, "arm %.*s of %.*s", HKY_STR_ARG(arm), HKY_STR_ARG(experiment));
        indented(line);
    }
}

/* Adds the next step ("on to 2 rental", "own again in 15m", "fails"), then its effect on other mail. */
static void describe_advance(const struct explain_case *c, const struct hky_advance *a, int64_t now_ms,
                             struct hky_buf *out)
{
    char d[24];

    switch (a->action) {
    case HKY_ACTION_NEXT:
        hky_buf_printf(out, "on to %u %s", a->step + 1U, explain_relay_name(c, a->step));
        break;
    case HKY_ACTION_RETRY:
        if (a->at_ms > now_ms)
            hky_buf_printf(out, "%s again in %s", explain_relay_name(c, a->step),
                           hky_duration_format((a->at_ms - now_ms) / 1000, d));
        else
            hky_buf_printf(out, "waits for %s", explain_relay_name(c, a->step));
        break;
    case HKY_ACTION_HOLD:
        hky_buf_add_z(out, "held");
        break;
    case HKY_ACTION_DONE:
        hky_buf_add_z(out, "delivered");
        break;
    default:
        hky_buf_add_z(out, "fails");
        break;
    }
    if (a->pause_account_sec > 0)
        hky_buf_add_z(out, "; the account pauses");
    if (a->slow_lane)
        hky_buf_add_z(out, "; slower from now on");
}

static void print_after(const struct explain_case *c)
{
    struct hky_cli_table *t = hky_cli_table_new(5);
    struct hky_buf what;
    char zone[80];

    printf("\n");
    hky_buf_init(&what, 512);
    snprintf(zone, sizeof zone, "then (%.60s)", zone_of(c));
    hky_cli_table_row(t, (const char *const[]){zone, "", "", "", ""});
    for (size_t i = 0; i < c->n_after; i++) {
        const struct explain_after *a = &c->after[i];
        char when[36], at[32], reply[160];

        hky_buf_clear(&what);
        describe_advance(c, &a->advance, a->at_ms, &what);
        snprintf(when, sizeof when, "  %s", clock_time(a->at_ms, at));
        hky_reply_format(&a->outcome.reply, reply, sizeof reply);
        hky_cli_table_row(
            t, (const char *const[]){when, a->relay, reply, hky_class_name(a->outcome.class), hky_buf_z(&what)});
    }
    hky_buf_fini(&what);
    hky_cli_table_print(&t);
}

/* Classes with the same consequence share a line. */
#define CASES_MAX (HKY_CLASS_N + 1)
struct consequence {
    struct hky_buf classes, text;
};

static void add_consequence(struct consequence *list, size_t *n, const char *class, struct hky_buf *text)
{
    size_t i = 0;

    while (i < *n && !hky_str_eq(hky_buf_str(&list[i].text), hky_buf_str(text)))
        i++;
    if (i == *n) {
        hky_buf_init(&list[i].classes, 1024);
        hky_buf_init(&list[i].text, 512);
        hky_buf_add_str(&list[i].text, hky_buf_str(text));
        ++*n;
    }
    add_word(&list[i].classes, " ", class);
}

static void print_consequences(const struct explain_case *c)
{
    struct consequence list[CASES_MAX];
    struct hky_cli_table *t = hky_cli_table_new(2);
    struct hky_buf text;
    struct hky_advance a;
    char heading[160], cell[1024];
    size_t n = 0;

    hky_buf_init(&text, 512);
    for (unsigned k = HKY_CLASS_BAD_MAILBOX; k <= HKY_CLASS_PAUSED; k++) {
        bool is_temporary = k == HKY_CLASS_RATE_LIMITED || k == HKY_CLASS_NETWORK || k == HKY_CLASS_SYSTEM_TEMP;
        unsigned last = k == HKY_CLASS_UNKNOWN ? 1 : 0;

        if (k == HKY_CLASS_SUPPRESSED || k == HKY_CLASS_EXPIRED)
            continue;
        for (unsigned round = 0; round <= last; round++) {
            hky_buf_clear(&text);
            explain_if(c, (enum hky_class)k, is_temporary || round == 1, &a);
            describe_advance(c, &a, c->now_ms, &text);
            add_consequence(list, &n,
                            last == 0    ? hky_class_name((enum hky_class)k)
                            : round == 0 ? "unknown(5xx)"
                                         : "unknown(4xx)",
                            &text);
        }
    }
    printf("\n");
    snprintf(heading, sizeof heading, "from step %u %s", c->recipient->step + 1U,
             explain_relay_name(c, c->recipient->step));
    hky_cli_table_row(t, (const char *const[]){heading, "if it ends as"});
    for (size_t i = 0; i < n; i++) {
        snprintf(cell, sizeof cell, "  %s", hky_buf_z(&list[i].text));
        hky_cli_table_row(t, (const char *const[]){cell, hky_buf_z(&list[i].classes)});
        hky_buf_fini(&list[i].text);
        hky_buf_fini(&list[i].classes);
    }
    hky_buf_fini(&text);
    hky_cli_table_print(&t);
}

/* Who hears of the failure, and which way the notice goes. */
static void print_notice(const struct explain_case *c)
{
    const struct hky_message *m = c->rehearsal.last_notice;
    const struct hky_recipient *r = m != NULL ? &m->recipients[0] : NULL;
    char line[600], at[32];

    if (m == NULL)
        snprintf(line, sizeof line,
                 "nobody gets a failure notice (dsn, scenario: FAILURE NOTICES in hikyaku-policy(5))");
    else if (r->plan == NULL)
        snprintf(line, sizeof line, "the failure notice to " HKY_STR_FMT " is parked: %.200s",
                 HKY_STR_ARG(hky_recipient_address(r)), r->reason != NULL ? r->reason : "no route takes it");
    else
        snprintf(line, sizeof line, "a failure notice goes to " HKY_STR_FMT " at %s by route %.80s, first by %.80s",
                 HKY_STR_ARG(hky_recipient_address(r)), clock_time(m->accepted_at_ms, at), r->plan->route,
                 r->plan->steps[0].relay);
    indented(line);
}

static void print_end(const struct explain_case *c)
{
    const struct hky_advance *last = c->n_after > 0 ? &c->after[c->n_after - 1].advance : &c->first;

    if (c->state == HKY_ACTION_DONE)
        title("delivered");
    else
        title(c->state == HKY_ACTION_HOLD ? "held" : "failed");
    if (last->why[0] != '\0')
        indented(last->why);
    if (c->state == HKY_ACTION_FAIL)
        print_notice(c);
}

void explain_print_text(const struct explain_case *c)
{
    const struct hky_decision *d = &c->explanation.decision;

    print_facts(c);
    print_considered(c);
    if (d->kind == HKY_UNANSWERED) {
        title("undecided");
        indented(d->text);
        indented("It would be accepted and wait, visible in the queue as undecided; the look-up is repeated after 1m, "
                 "5m, 15m, then hourly, until it expires.");
        return;
    }
    if (c->recipient->plan == NULL) {
        title("parked");
        indented(d->text);
        indented("It would wait, visible in the queue as parked, and be decided again: on reload, after 5m, 15m, 1h, "
                 "then hourly.");
        return;
    }
    print_plan(c);
    print_arms(c);
    print_staging(c);
    if (c->n_after > 0)
        print_after(c);
    if (c->state == HKY_ACTION_NEXT || c->state == HKY_ACTION_RETRY)
        print_consequences(c);
    else
        print_end(c);
}
