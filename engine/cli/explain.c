/* explain: shows which plan a recipient gets, and why. It sends nothing, reads no secret and asks no engine. */
#include "cli/ask.h"
#include "cli/explain.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const struct hky_cli_option options[] = {
    {"to", "ADDRESS", "the recipient (required)"},
    {"sender", "ADDRESS", "the envelope sender, '<>' for none (default: the author)"},
    {"author", "ADDRESS", "the address in From, also 'Name <address>'"},
    {"scenario", "NAME", "the scenario the message belongs to"},
    {"tag", "TAG", "a tag; may be repeated", true},
    {"var", "NAME=VALUE", "a variable; may be repeated", true},
    {"header", "'NAME: VALUE'", "a header field; may be repeated", true},
    {"message", "FILE", "the header section of a message, X-Hikyaku fields included; - is standard input"},
    {"user", "LOGIN", "the login that handed the message in"},
    {"at", "TIME", "the time: '2026-12-01 10:00', '10:00' or Unix seconds (default: now)"},
    {"utc", NULL, "read and print times in UTC; default: in engine.timezone"},
    {"after", "ATTEMPT",
     "an attempt that was made: 'own rcpt 550 5.7.1 no', 'own timeout', 'own blocked_ip'; may be repeated", true},
    {NULL, NULL, NULL},
};

static void take(const char ***list, size_t *n, const char *value)
{
    *list = (const char **)hky_realloc((void *)*list, (*n + 1) * sizeof **list);
    (*list)[(*n)++] = value;
}

static int parse_options(const struct hky_cli_command *self, int argc, char **argv, struct explain_request *request,
                         bool *is_json)
{
    struct hky_cli_args args;
    const char *value;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    for (const char *name; (name = hky_cli_next(&args, &value)) != NULL;)
        if (strcmp(name, "to") == 0)
            request->to = value;
        else if (strcmp(name, "sender") == 0)
            request->sender = value;
        else if (strcmp(name, "author") == 0)
            request->author = value;
        else if (strcmp(name, "scenario") == 0)
            request->scenario = value;
        else if (strcmp(name, "message") == 0)
            request->message = value;
        else if (strcmp(name, "user") == 0)
            request->user = value;
        else if (strcmp(name, "at") == 0)
            request->at = value;
        else if (strcmp(name, "utc") == 0)
            request->is_utc = true;
        else if (strcmp(name, "tag") == 0)
            take(&request->tags, &request->n_tags, value);
        else if (strcmp(name, "var") == 0)
            take(&request->vars, &request->n_vars, value);
        else if (strcmp(name, "header") == 0)
            take(&request->headers, &request->n_headers, value);
        else
            take(&request->after, &request->n_after, value);
    if ((code = hky_cli_args_done(&args, 1, 1)) >= 0)
        return code;
    if (request->to == NULL) {
        fputs("hikyaku explain: --to ADDRESS is missing: it names the recipient\n", stderr);
        return HKY_EXIT_USAGE;
    }
    *is_json = args.is_json;
    request->policy = argv[0];
    return -1;
}

static bool load(struct explain_case *c, const struct explain_request *request)
{
    struct hky_policy_load_params params = {.path = request->policy, .now_ms = c->now_ms};
    struct hky_problems problems = {0};
    struct hky_error e = {0};
    struct hky_buf line;
    enum hky_err err = hky_policy_load(&params, &c->policy, &problems);

    hky_buf_init(&line, 4096);
    for (size_t i = 0; i < problems.n; i++) {
        if (problems.items[i].level != HKY_PROBLEM_ERROR)
            continue; /* `check` prints the others */
        hky_buf_clear(&line);
        hky_cli_add_problem(&line, request->policy, &problems.items[i]);
        hky_cli_put(stderr, hky_buf_z(&line));
        fputc('\n', stderr);
    }
    hky_buf_fini(&line);
    hky_problems_fini(&problems);
    if (err != HKY_OK)
        return false;
    if (hky_vm_new(c->policy, &c->vm, &e) != HKY_OK || hky_loop_new(&c->loop, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku explain: %s\n", e.text);
        return false;
    }
    c->lookups = hky_lookups_new(c->loop, c->policy);
    hky_lookups_wait_here(c->lookups);
    hky_vm_set_lookups(c->vm, c->lookups);
    return true;
}

/* ---- how the plan continues: the schedule runs it on a clock that is moved by hand (hikyaku/rehearse.h) ---- */

static bool is_going_on(const struct explain_case *c)
{
    return c->state == HKY_ACTION_NEXT || c->state == HKY_ACTION_RETRY;
}

static enum hky_action action_of(enum hky_event_kind kind)
{
    switch (kind) {
    case HKY_EVENT_DELIVERED:
        return HKY_ACTION_DONE;
    case HKY_EVENT_DEFERRED:
        return HKY_ACTION_RETRY;
    case HKY_EVENT_ROUTED:
        return HKY_ACTION_NEXT;
    case HKY_EVENT_HELD:
        return HKY_ACTION_HOLD;
    default:
        return HKY_ACTION_FAIL;
    }
}

static struct explain_after *add_after(struct explain_case *c, const char *relay, const struct hky_outcome *o)
{
    struct explain_after *a;

    c->after = hky_realloc(c->after, (c->n_after + 1) * sizeof *c->after);
    a = &c->after[c->n_after++];
    *a = (struct explain_after){.outcome = *o, .at_ms = hky_rehearsal_now_ms(&c->rehearsal)};
    snprintf(a->relay, sizeof a->relay, "%s", relay);
    return a;
}

/* Notes the acts of the rehearsal from number `from` on. True: there was an attempt, or a step was left. */
static bool explain_acts(struct explain_case *c, size_t from)
{
    const struct hky_recipient *r = c->recipient;
    bool is_any = false;

    for (size_t i = from; i < c->rehearsal.n_acts; i++) {
        const struct hky_rehearsal_act *act = &c->rehearsal.acts[i];
        if (!act->has_outcome || act->message != c->message->id)
            continue;
        struct explain_after *a = add_after(c, act->relay, &act->outcome);
        a->at_ms = act->at_ms;
        a->advance = (struct hky_advance){.action = action_of(act->kind),
                                          .step = act->step,
                                          .at_ms = act->next_at_ms > act->at_ms ? act->next_at_ms : act->at_ms,
                                          .pause_account_sec = act->pauses_account,
                                          .slow_lane = act->slows_lane};
        snprintf(a->advance.why, sizeof a->advance.why, "%.*s", (int)sizeof a->advance.why - 1, act->text);
        is_any = true;
    }
    c->state = r->state == HKY_RCPT_DELIVERED                                     ? HKY_ACTION_DONE
               : r->state == HKY_RCPT_HELD                                        ? HKY_ACTION_HOLD
               : hky_recipient_state_is_final((enum hky_recipient_state)r->state) ? HKY_ACTION_FAIL
                                                                                  : HKY_ACTION_NEXT;
    c->now_ms = hky_rehearsal_now_ms(&c->rehearsal);
    if (is_going_on(c) && r->next_at_ms > c->now_ms)
        c->now_ms = r->next_at_ms;
    return is_any;
}

/* Moves the clock until the relay gets a job. NULL: it never does. */
static struct hky_job *wait_for_turn(struct explain_case *c, const char *relay)
{
    struct hky_rehearsal *r = &c->rehearsal;
    struct hky_job *job = NULL;

    while (!hky_recipient_state_is_final((enum hky_recipient_state)c->recipient->state)) {
        hky_rehearsal_settle(r);
        if (hky_rehearsal_take(r, relay, &job) == HKY_TAKE_JOB)
            return job;
        hky_rehearsal_settle(r); /* the journal may only now have granted a slot of a cap */
        if (hky_rehearsal_take(r, relay, &job) == HKY_TAKE_JOB)
            return job;
        int64_t next_ms = hky_rehearsal_next_at(r), now_ms = hky_rehearsal_now_ms(r);
        if (next_ms == INT64_MAX)
            break;
        hky_rehearsal_advance_to(r, next_ms > now_ms ? next_ms : now_ms + 1);
    }
    return NULL;
}

/* Applies a reason without an attempt: the step is left, or the recipient waits. */
static bool apply_reason(struct explain_case *c, const char *text, const char *relay, const struct hky_outcome *o)
{
    struct hky_rehearsal *r = &c->rehearsal;
    struct hky_error e = {0};
    enum hky_err err = HKY_OK;
    size_t from = r->n_acts;
    struct explain_after *a;
    uint32_t wait_sec;

    if (o->class == HKY_CLASS_SENDS_AS)
        err = hky_error_set(&e, HKY_E_SYNTAX, "whether a relay can send as this author does not change: see the plan");
    else if (o->class == HKY_CLASS_PAUSED)
        err = hky_rehearsal_set_paused(r, relay, &e);
    else
        err = hky_rehearsal_set_full(r, relay, &e);
    if (err != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku explain: --after '%s': %s\n", text, e.text);
        return false;
    }
    hky_rehearsal_advance_to(r, c->now_ms);
    wait_sec = c->recipient->plan->steps[c->recipient->step].wait_sec;
    if (r->n_acts == from && wait_sec != HKY_UNSET_SEC) /* it waits at this step already: let the wait end */
        hky_rehearsal_advance_to(r, c->now_ms + (int64_t)wait_sec * 1000);
    if (!explain_acts(c, from)) {
        a = add_after(c, relay, o);
        a->advance = (struct hky_advance){.action = HKY_ACTION_RETRY, .step = c->recipient->step, .at_ms = c->now_ms};
        snprintf(a->advance.why, sizeof a->advance.why, "waits for %.64s: %s", relay, hky_class_name(o->class));
    }
    return true;
}

static bool read_reply(const struct explain_case *c, const char *text, struct hky_outcome *out, struct hky_error *e)
{
    return hky_rehearsal_read_reply(&c->rehearsal, explain_relay(c, c->recipient->step), c->recipient, hky_str_z(text),
                                    out, e) == HKY_OK;
}

/* "own rcpt 550 5.7.1 blocked": the relay must be the next to be tried; names may have spaces. */
static bool apply_after(struct explain_case *c, const char *text)
{
    const struct hky_relay *named = hky_rehearsal_relay_named(c->policy, hky_str_z(text));
    const char *relay;
    struct hky_outcome o;
    struct hky_error e = {0};
    struct hky_job *job;
    size_t from = c->rehearsal.n_acts, n;

    if (!is_going_on(c)) {
        hky_cli_printf(stderr, "hikyaku explain: --after '%s': the plan ends before that attempt\n", text);
        return false;
    }
    relay = explain_relay_name(c, c->recipient->step);
    n = strlen(relay);
    if (strncmp(text, relay, n) != 0 || text[n] != ' ' || (named != NULL && strlen(named->name) > n)) {
        hky_cli_printf(
            stderr, "hikyaku explain: --after '%s': %s; now it is the turn of %s: write '%s [STAGE] REPLY'\n", text,
            named == NULL ? "it begins with the name of no relay" : "that relay is not tried now", relay, relay);
        return false;
    }
    if (!read_reply(c, text + n, &o, &e)) {
        hky_cli_printf(stderr, "hikyaku explain: --after '%s': what did %s say? %s\n", text, relay, e.text);
        return false;
    }
    if (hky_class_is_reason(o.class))
        return apply_reason(c, text, relay, &o);
    job = wait_for_turn(c, relay);
    if (job == NULL) {
        explain_acts(c, from);
        hky_cli_printf(stderr, "hikyaku explain: --after '%s': the time to deliver is over before %s can be tried\n",
                       text, relay);
        return false;
    }
    /* It may have waited for its turn; a date in the reply is a wait from now on. */
    if (!read_reply(c, text + n, &o, &e))
        return false;
    hky_rehearsal_answer(&c->rehearsal, &job, &o);
    explain_acts(c, from);
    return true;
}

/* Begins the rehearsal: the message is in the queue of a schedule that waits for the answers of the relays. */
static bool rehearse(struct explain_case *c)
{
    struct hky_message *m = c->message;
    struct hky_error e = {0};

    c->is_rehearsing = hky_rehearsal_init(&c->rehearsal, c->policy, c->now_ms, &e) == HKY_OK;
    c->rehearsal.decide = hky_rehearsal_decide_by_vm;
    c->rehearsal.ctx = c->vm;
    c->rehearsal.is_by_hand = true;
    c->rehearsal.has_notices = true;
    c->rehearsal.is_everyone_reached = true; /* shows the plan also for recipients that engine.only_to holds */
    if (!c->is_rehearsing || hky_rehearsal_open(&c->rehearsal, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku explain: %s\n", e.text);
        return false;
    }
    hky_rehearsal_start(&c->rehearsal);
    hky_rehearsal_send(&c->rehearsal, m);
    hky_rehearsal_settle(&c->rehearsal);
    explain_acts(c, 0);
    return true;
}

static bool plan_recipient(struct explain_case *c)
{
    struct hky_decision *d = &c->explanation.decision;
    struct hky_recipient *r = c->recipient;

    if (d->kind != HKY_DECIDED) {
        r->state = d->kind == HKY_UNANSWERED ? HKY_RCPT_UNDECIDED : HKY_RCPT_PARKED;
        return true;
    }
    r->plan = hky_plan_ref(d->plan);
    r->policy = (uint32_t)c->policy->hash;
    hky_schedule_plan_first(c->policy, r, &c->first);
    return rehearse(c);
}

static void print_refusal(const struct hky_refusal *r, bool is_json)
{
    char reply[200];

    snprintf(reply, sizeof reply, "%d %s %s", r->code, r->enhanced, r->text);
    if (!is_json) {
        fputs("The engine refuses this mail: ", stdout);
        hky_cli_put(stdout, reply);
        putchar('\n');
        return;
    }
    struct hky_buf out;
    hky_buf_init(&out, 4096);
    struct hky_json j = hky_json_to(&out);
    hky_json_begin_object(&j, NULL);
    hky_json_z(&j, "refused", reply);
    hky_json_end_object(&j);
    puts(hky_buf_z(&out));
    hky_buf_fini(&out);
}

static void consider_scenario(void *ctx, const char *name)
{
    hky_nearest_consider(ctx, name);
}

/* Mail of a scenario that the policy does not name is routed like other mail; the name may be mistyped. */
static void warn_of_scenario(const struct explain_case *c, const char *name)
{
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(name));

    if (name == NULL)
        return;
    hky_policy_each_scenario(c->policy, consider_scenario, &near);
    if (!near.is_known)
        hky_cli_printf(stderr,
                       "hikyaku explain: note: no route, row or login names the scenario \"%s\"" HKY_NEAREST_FMT "\n",
                       name, HKY_NEAREST_ARG(&near));
}

static int explain(struct explain_case *c, const struct explain_request *request, bool is_json)
{
    struct hky_route_query q;

    if (!load(c, request))
        return HKY_EXIT_NO;
    warn_of_scenario(c, request->scenario);
    c->is_utc = request->is_utc;
    hky_cli_use_zone(c->policy->engine.timezone != NULL ? c->policy->engine.timezone : "", request->is_utc);
    if (request->at != NULL && !explain_time(request->at, c->now_ms, &c->now_ms)) {
        hky_cli_printf(stderr,
                       "hikyaku explain: --at %s is no time; write '2026-12-01 10:00', '10:00' or Unix seconds\n",
                       request->at);
        return HKY_EXIT_USAGE;
    }
    if (request->n_after > HKY_ATTEMPTS_MAX) {
        fprintf(stderr, "hikyaku explain: a recipient has at most %d attempts\n", HKY_ATTEMPTS_MAX);
        return HKY_EXIT_USAGE;
    }
    switch (explain_draft(c, request)) {
    case EXPLAIN_TAKEN:
        break;
    case EXPLAIN_REFUSED:
        print_refusal(&c->refusal, is_json);
        return HKY_EXIT_NO;
    case EXPLAIN_WRONG:
        return HKY_EXIT_USAGE;
    }
    q = (struct hky_route_query){
        .message = c->message, .recipient = c->recipient, .header = hky_buf_str(&c->header), .now_ms = c->now_ms};
    hky_route_explain(c->vm, &q, &c->explanation);
    if (!plan_recipient(c))
        return HKY_EXIT_UNREACHED;
    for (size_t i = 0; i < request->n_after; i++) {
        if (c->recipient->plan == NULL) {
            fputs("hikyaku explain: --after: no route decides, so nothing was attempted\n", stderr);
            break;
        }
        if (!apply_after(c, request->after[i]))
            return HKY_EXIT_USAGE;
    }
    if (c->state == HKY_ACTION_FAIL && c->is_rehearsing)
        hky_rehearsal_await_notices(&c->rehearsal);
    if (is_json)
        explain_print_json(c);
    else
        explain_print_text(c);
    return c->recipient->plan != NULL ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_clock clock = HKY_CLOCK_REAL;
    struct explain_request request = {0};
    struct explain_case c = {.now_ms = hky_clock_now_ms(&clock)};
    bool is_json = false;
    int code = parse_options(self, argc, argv, &request, &is_json);

    if (code < 0) {
        code = explain(&c, &request, is_json);
        if (c.is_rehearsing)
            hky_rehearsal_fini(&c.rehearsal);
        hky_explanation_fini(&c.explanation);
        hky_message_unref(&c.message);
        hky_buf_fini(&c.header);
        hky_vm_free(&c.vm);
        hky_lookups_free(&c.lookups);
        hky_loop_free(&c.loop);
        hky_policy_unref(&c.policy);
        free(c.after);
    }
    free((void *)request.tags);
    free((void *)request.vars);
    free((void *)request.headers);
    free((void *)request.after);
    return code;
}

const struct hky_cli_command hky_cli_explain = {
    .name = "explain",
    .args = "POLICY --to ADDRESS [OPTION]...",
    .summary = "show which route and relays a recipient gets, and why",
    .help =
        "Prints which routes were considered, the plan with the From of each step, and what each class of failure "
        "would do now. Nothing is sent and no secret is read. An ATTEMPT is 'RELAY [STAGE] REPLY', where STAGE is "
        "one of connect, greeting, hello, tls, auth, mail, rcpt, data and dot. Each --after is one more attempt:\n"
        "  hikyaku explain policy.lua --to a@docomo.ne.jp \\\n"
        "      --author news@shop.example \\\n"
        "      --after 'own connect 554 5.7.1 blocked' --after 'rental 250 ok'\n"
        "\n"
        "Exit code 0: a route decides; 1: no route does, the engine would refuse the mail, or the policy has errors; "
        "2: wrong usage.",
    .options = options,
    .run = run,
};
