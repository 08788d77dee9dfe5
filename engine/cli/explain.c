/* explain: which way a recipient goes, and why. Nothing is sent, no secret is read, no engine is asked. */
#include "cli/cli.h"
#include "cli/explain.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const struct hky_cli_option options[] = {
    {"to", "ADDRESS", "the recipient (needed)"},
    {"sender", "ADDRESS", "the envelope sender, '<>' for none (default: the author)"},
    {"author", "ADDRESS", "the address in From, also 'Name <address>'"},
    {"scenario", "NAME", "the scenario the message belongs to"},
    {"tag", "TAG", "a tag; may be repeated"},
    {"var", "NAME=VALUE", "a variable; may be repeated"},
    {"header", "'NAME: VALUE'", "a header field; may be repeated"},
    {"message", "FILE", "the header section of a message, X-Hikyaku fields included; - is standard input"},
    {"user", "LOGIN", "the login by which the message came"},
    {"at", "TIME", "when: '2026-12-01 10:00', '10:00' or Unix seconds (default: now)"},
    {"after", "ATTEMPT",
     "then this happened: 'own rcpt 550 5.7.1 no', 'own timeout', 'own blocked_ip'; may be repeated"},
    {NULL, NULL, NULL},
};

static void take(const char ***list, size_t *n, const char *value)
{
    *list = (const char **)hky_realloc((void *)*list, (*n + 1) * sizeof **list);
    (*list)[(*n)++] = value;
}

static int parse_options(const struct hky_cli_command *self, int argc, char **argv, struct explain_wish *w,
                         bool *is_json)
{
    struct hky_cli_args args;
    const char *value;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    for (const char *name; (name = hky_cli_next(&args, &value)) != NULL;) {
        if (strcmp(name, "to") == 0)
            w->to = value;
        else if (strcmp(name, "sender") == 0)
            w->sender = value;
        else if (strcmp(name, "author") == 0)
            w->author = value;
        else if (strcmp(name, "scenario") == 0)
            w->scenario = value;
        else if (strcmp(name, "message") == 0)
            w->message = value;
        else if (strcmp(name, "user") == 0)
            w->user = value;
        else if (strcmp(name, "at") == 0)
            w->at = value;
        else if (strcmp(name, "tag") == 0)
            take(&w->tags, &w->n_tags, value);
        else if (strcmp(name, "var") == 0)
            take(&w->vars, &w->n_vars, value);
        else if (strcmp(name, "header") == 0)
            take(&w->headers, &w->n_headers, value);
        else
            take(&w->after, &w->n_after, value);
    }
    if ((code = hky_cli_args_done(&args, 1, 1)) >= 0)
        return code;
    if (w->to == NULL) {
        fputs("hikyaku explain: for whom? --to ADDRESS is needed\n", stderr);
        return HKY_EXIT_USAGE;
    }
    *is_json = args.is_json;
    w->policy = argv[0];
    return -1;
}

static bool load(struct explain_case *c, const struct explain_wish *w)
{
    struct hky_load_params params = {.path = w->policy, .now_ms = c->now_ms};
    struct hky_problems problems = {0};
    struct hky_error e = {0};
    struct hky_buf line;
    enum hky_err err = hky_policy_load(&params, &c->policy, &problems);

    hky_buf_init(&line, 4096);
    for (size_t i = 0; i < problems.n; i++) {
        if (problems.items[i].level != HKY_PROBLEM_ERROR)
            continue; /* check's business */
        hky_buf_clear(&line);
        hky_problem_format(&problems.items[i], &line);
        fprintf(stderr, "%s\n", hky_buf_z(&line));
    }
    hky_buf_fini(&line);
    hky_problems_fini(&problems);
    if (err == HKY_OK && (err = hky_vm_new(c->policy, &c->vm, &e)) != HKY_OK)
        fprintf(stderr, "hikyaku explain: %s\n", e.text);
    return err == HKY_OK;
}

/* ---- how the plan goes on ---- */

static const struct hky_step *step_now(const struct explain_case *c)
{
    return &c->recipient->plan->steps[c->recipient->step];
}

static bool is_going_on(const struct explain_case *c)
{
    return c->state == HKY_ACTION_NEXT || c->state == HKY_ACTION_RETRY;
}

static void enter_step(struct explain_case *c, const struct hky_advance *a, enum hky_class cause)
{
    struct hky_recipient *r = c->recipient;

    r->step = a->step;
    r->tries = r->step_attempts = r->ambiguous = 0;
    r->is_redirected = (step_now(c)->on & HKY_CLASS_BIT(cause)) != 0;
    r->step_at_ms = a->at_ms;
    r->next_at_ms = a->at_ms;
}

static bool counts_as_try(enum hky_class class)
{
    return class == HKY_CLASS_NETWORK || class == HKY_CLASS_SYSTEM_TEMP || class == HKY_CLASS_UNKNOWN;
}

/* The recipient after an outcome, as the schedule keeps it; time goes on to the next attempt. */
static void live_through(struct explain_case *c, const struct explain_after *a)
{
    struct hky_recipient *r = c->recipient;
    bool is_attempt = !hky_class_is_reason(a->outcome.class);

    if (is_attempt) {
        hky_recipient_remember(r, c->now_ms, a->relay, &a->outcome);
        r->attempts++;
        r->step_attempts++;
        r->tries = (uint8_t)(r->tries + counts_as_try(a->outcome.class));
        r->ambiguous = (uint8_t)(r->ambiguous + (a->outcome.class == HKY_CLASS_AMBIGUOUS));
        r->copies = (uint8_t)(r->copies + (a->outcome.class == HKY_CLASS_OK));
    }
    c->state = a->advance.action;
    if (a->advance.action == HKY_ACTION_NEXT) {
        r->left_steps++;
        enter_step(c, &a->advance, a->outcome.class);
    }
    if (is_going_on(c) && a->advance.at_ms > c->now_ms)
        c->now_ms = a->advance.at_ms;
}

void explain_if(const struct explain_case *c, enum hky_class class, bool is_temporary, struct hky_advance *out)
{
    struct hky_outcome o = {.class = class, .stage = HKY_STAGE_DOT, .is_temporary = is_temporary};
    struct hky_advance_query q = {.policy = c->policy, .recipient = c->recipient, .outcome = &o, .now_ms = c->now_ms};

    hky_plan_advance(&q, out);
}

static struct hky_str next_word(struct hky_str *rest)
{
    struct hky_str word = *rest = hky_str_trim(*rest);
    const char *space = rest->n > 0 ? memchr(rest->p, ' ', rest->n) : NULL;

    if (space != NULL)
        word.n = (size_t)(space - rest->p);
    rest->p += word.n;
    rest->n -= word.n;
    return word;
}

const struct hky_relay *explain_relay(const struct explain_case *c, uint8_t step)
{
    return hky_policy_serving_relay(c->policy, hky_str_z(c->recipient->plan->steps[step].relay));
}

const char *explain_relay_name(const struct explain_case *c, uint8_t step)
{
    const struct hky_relay *relay = explain_relay(c, step);

    return relay != NULL ? relay->name : c->recipient->plan->steps[step].relay;
}

/* Neither a reply code nor one of the words for what goes wrong before one comes: most likely a class misspelt. */
static bool says_nothing(const struct hky_reply *reply)
{
    static const char *const words[] = {"refused", "reset", "unreachable", "connect", "closed"};

    if (reply->code != 0 || reply->origin != HKY_ORIGIN_CONNECT)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (hky_str_ifind(hky_str_of(reply->text, reply->n), hky_str_z(words[i])) != NULL)
            return false;
    return true;
}

/* [STAGE] REPLY, or a class, at the present step. */
static bool read_outcome(const struct explain_case *c, struct hky_str text, struct hky_outcome *out)
{
    const struct hky_relay *relay = explain_relay(c, c->recipient->step);
    struct hky_str domain = hky_recipient_domain(c->recipient), rest = text;
    struct hky_str word = next_word(&rest);
    struct hky_classify_query q = {.provider = "", .mx = ""};
    enum hky_stage stage = HKY_STAGE_NONE;
    struct hky_reply reply;
    char mx[256];

    *out = (struct hky_outcome){.stage = HKY_STAGE_DOT};
    if (hky_str_trim(rest).n == 0 && hky_class_parse(word, &out->class)) {
        out->is_temporary = out->class == HKY_CLASS_RATE_LIMITED || out->class == HKY_CLASS_NETWORK ||
                            out->class == HKY_CLASS_SYSTEM_TEMP;
        return true;
    }
    if (hky_stage_parse(word, &stage))
        text = rest;
    if (hky_str_trim(text).n == 0)
        return false;
    hky_reply_from_text(&reply, text);
    if (says_nothing(&reply))
        return false;
    if (stage == HKY_STAGE_NONE)
        stage = reply.code == 0 ? HKY_STAGE_CONNECT : reply.code < 300 ? HKY_STAGE_DOT : HKY_STAGE_RCPT;
    q.stage = stage;
    q.reply = &reply;
    q.address = hky_recipient_address(c->recipient);
    if (relay != NULL) {
        q.is_own = relay->is_mx;
        q.provider = relay->is_mx ? "own" : relay->preset;
        snprintf(mx, sizeof mx, "%.*s", HKY_STR_ARG(domain));
        q.mx = relay->is_mx ? mx : relay->host;
    }
    hky_classify(c->policy->rules, c->policy->n_rules, &q, out);
    if (stage == HKY_STAGE_DOT && reply.code == 0 &&
        (reply.origin == HKY_ORIGIN_LOST || reply.origin == HKY_ORIGIN_TIMEOUT))
        out->class = HKY_CLASS_AMBIGUOUS;
    return true;
}

/* The relay with whose name the text begins. */
static const char *relay_named(const struct hky_policy *policy, const char *text)
{
    const char *found = NULL;

    for (uint32_t i = 0; i < policy->n_relays; i++) {
        const char *name = policy->relays[i].name;
        size_t n = strlen(name);
        if (strncmp(text, name, n) == 0 && (text[n] == ' ' || text[n] == '\0') && (found == NULL || n > strlen(found)))
            found = name;
    }
    return found;
}

/* "own rcpt 550 5.7.1 blocked": the relay must be the one whose turn it is; names may hold spaces. */
static bool apply_after(struct explain_case *c, const char *text, struct explain_after *a)
{
    const char *relay, *named = relay_named(c->policy, text);
    size_t n;
    struct hky_advance_query q;

    if (!is_going_on(c)) {
        fprintf(stderr, "hikyaku explain: --after '%s': the plan has ended before that\n", text);
        return false;
    }
    relay = explain_relay_name(c, c->recipient->step);
    n = strlen(relay);
    if (strncmp(text, relay, n) != 0 || text[n] != ' ' || (named != NULL && strlen(named) > n)) {
        fprintf(stderr, "hikyaku explain: --after '%s': %s; now it is the turn of %s: say '%s [STAGE] REPLY'\n", text,
                named == NULL ? "it begins with the name of no relay" : "that relay is not asked now", relay, relay);
        return false;
    }
    snprintf(a->relay, sizeof a->relay, "%s", relay);
    a->at_ms = c->now_ms;
    if (!read_outcome(c, hky_str_z(text + n), &a->outcome)) {
        fprintf(stderr,
                "hikyaku explain: --after '%s': what did %s say? A reply (550 5.1.1 no), a class (mailbox_full), or "
                "refused, reset, unreachable, timeout, lost, tls, dns\n",
                text, relay);
        return false;
    }
    q = (struct hky_advance_query){
        .policy = c->policy, .recipient = c->recipient, .outcome = &a->outcome, .now_ms = c->now_ms};
    hky_plan_advance(&q, &a->advance);
    live_through(c, a);
    return true;
}

static void plan_recipient(struct explain_case *c)
{
    struct hky_decision *d = &c->explanation.decision;
    struct hky_recipient *r = c->recipient;
    uint32_t expire;

    if (d->kind != HKY_DECIDED) {
        r->state = HKY_RCPT_PARKED;
        return;
    }
    r->plan = hky_plan_ref(d->plan);
    r->state = HKY_RCPT_QUEUED;
    expire = d->plan->expire_sec != HKY_UNSET_SEC ? d->plan->expire_sec : c->policy->engine.expire_sec;
    r->expire_at_ms = c->now_ms + (int64_t)expire * 1000;
    hky_plan_first(c->policy, r, &c->first);
    c->state =
        c->first.action == HKY_ACTION_FAIL || c->first.action == HKY_ACTION_HOLD ? c->first.action : HKY_ACTION_NEXT;
    if (is_going_on(c)) {
        c->first.at_ms = c->now_ms;
        enter_step(c, &c->first, HKY_CLASS_OK);
    }
}

static int explain(struct explain_case *c, const struct explain_wish *w, bool is_json)
{
    struct hky_route_query q;

    if (!load(c, w))
        return HKY_EXIT_NO;
    if (c->policy->engine.timezone != NULL && c->policy->engine.timezone[0] != '\0') {
        setenv("TZ", c->policy->engine.timezone, 1);
        tzset();
    }
    if (w->at != NULL && !explain_time(w->at, c->now_ms, &c->now_ms)) {
        fprintf(stderr, "hikyaku explain: --at %s is no time; write '2026-12-01 10:00', '10:00' or Unix seconds\n",
                w->at);
        return HKY_EXIT_USAGE;
    }
    if (w->n_after > HKY_ATTEMPTS_MAX) {
        fprintf(stderr, "hikyaku explain: a recipient has at most %d attempts\n", HKY_ATTEMPTS_MAX);
        return HKY_EXIT_USAGE;
    }
    if (!explain_invent(c, w))
        return HKY_EXIT_USAGE;
    q = (struct hky_route_query){
        .message = c->message, .recipient = c->recipient, .header = hky_buf_str(&c->header), .now_ms = c->now_ms};
    hky_route_explain(c->vm, &q, &c->explanation);
    plan_recipient(c);
    c->after = hky_calloc(w->n_after + 1, sizeof *c->after);
    for (; c->n_after < w->n_after; c->n_after++) {
        if (c->recipient->plan == NULL) {
            fputs("hikyaku explain: --after: no route decides, so nothing was attempted\n", stderr);
            break;
        }
        if (!apply_after(c, w->after[c->n_after], &c->after[c->n_after]))
            return HKY_EXIT_USAGE;
    }
    if (is_json)
        explain_print_json(c);
    else
        explain_print_text(c);
    return c->recipient->plan != NULL ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_clock clock = HKY_CLOCK_REAL;
    struct explain_wish w = {0};
    struct explain_case c = {.now_ms = hky_clock_now_ms(&clock)};
    bool is_json = false;
    int code = parse_options(self, argc, argv, &w, &is_json);

    if (code < 0) {
        code = explain(&c, &w, is_json);
        hky_explanation_fini(&c.explanation);
        hky_message_unref(&c.message);
        hky_buf_fini(&c.header);
        hky_vm_free(&c.vm);
        hky_policy_unref(&c.policy);
        free(c.after);
    }
    free((void *)w.tags);
    free((void *)w.vars);
    free((void *)w.headers);
    free((void *)w.after);
    return code;
}

const struct hky_cli_command hky_cli_explain = {
    .name = "explain",
    .args = "POLICY --to ADDRESS [OPTION]...",
    .summary = "say which way a recipient goes, and why",
    .help = "Prints the routes that were looked at, the plan with the From of each step, and what every class\n"
            "of failure would do now. Nothing is sent and no secret is read. An ATTEMPT is 'RELAY [STAGE] REPLY',\n"
            "STAGE one of connect greeting hello tls auth mail rcpt data dot; with --after the story goes on:\n"
            "\n"
            "  hikyaku explain policy.lua --to a@docomo.ne.jp --author news@shop.example \\\n"
            "      --after 'own connect 554 5.7.1 blocked' --after 'rental 250 ok'\n"
            "\n"
            "Exit code 0: a route decides; 1: none does, or the policy has errors; 2: wrong usage.",
    .options = options,
    .run = run,
};
