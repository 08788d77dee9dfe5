#include "unit/schedule/fake.h"

#include "schedule/plan.h"

#define START INT64_C(1764550800000) /* 2025-12-01 10:00 JST */
#define OURS                                                                                                           \
    (HKY_CLASS_BIT(HKY_CLASS_FILTERED) | HKY_CLASS_BIT(HKY_CLASS_AUTH_POLICY) | HKY_CLASS_BIT(HKY_CLASS_BLOCKED_IP) |  \
     HKY_CLASS_BIT(HKY_CLASS_TLS) | HKY_CLASS_BIT(HKY_CLASS_NETWORK) | HKY_CLASS_BIT(HKY_CLASS_RATE_LIMITED))
#define ON(c) HKY_CLASS_BIT(HKY_CLASS_##c)

enum { FIVE_XX, FOUR_XX };

struct says { /* a relay answers so, `times` times (0: always) */
    const char *relay;
    enum hky_class class;
    bool is_temporary;
    unsigned times;
    uint32_t retry_after_sec;
};
struct react {
    enum hky_class class;
    enum hky_action action;
    uint32_t after_sec;
};
struct run {
    const char *name;
    struct hky_step steps[4];
    struct says says[4];
    struct react react;
    const char *expect; /* "relay class@minute ..." and the end */
};

#define STEP(name, ...)                                                                                                \
    {                                                                                                                  \
        .relay = name, .account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC, __VA_ARGS__              \
    }
#define STEP_WITHIN(name, sec, ...)                                                                                    \
    {                                                                                                                  \
        .relay = name, .account = "", .within_sec = sec, .wait_sec = HKY_UNSET_SEC, __VA_ARGS__                        \
    }

static struct hky_outcome answer(const struct run *run, unsigned used[4], const char *relay)
{
    for (unsigned i = 0; i < 4 && run->says[i].relay != NULL; i++) {
        const struct says *s = &run->says[i];
        if (strcmp(s->relay, relay) == 0 && (s->times == 0 || used[i] < s->times)) {
            used[i]++;
            struct hky_outcome o = fake_outcome(s->class, s->is_temporary);
            o.retry_after_sec = s->retry_after_sec;
            return o;
        }
    }
    return fake_outcome(HKY_CLASS_OK, false);
}

static struct hky_plan *plan_of(const struct run *run)
{
    static const struct hky_plan EMPTY;
    struct hky_plan *draft = malloc(sizeof *draft), *plan = NULL;
    struct hky_error e;
    *draft = EMPTY;
    draft->route = "test";
    draft->file = "policy.lua";
    draft->dsn = HKY_DSN_UNSET;
    draft->expire_sec = HKY_UNSET_SEC;
    while (draft->n_steps < 4 && run->steps[draft->n_steps].relay != NULL) {
        draft->steps[draft->n_steps] = run->steps[draft->n_steps];
        draft->n_steps++;
    }
    draft->react[run->react.class] = (uint8_t)run->react.action;
    draft->react_after_sec[run->react.class] = run->react.after_sec;
    assert_int_equal(hky_plan_new(draft, &plan, &e), HKY_OK);
    free(draft);
    return plan;
}

static void move(struct hky_recipient *r, const struct hky_outcome *o, const struct hky_advance *a, int64_t now)
{
    hky_recipient_remember(r, now, r->plan->steps[r->step].relay, o);
    r->attempts++;
    r->step_attempts++;
    r->tries += schedule_plan_uses_a_try(o);
    r->ambiguous += o->class == HKY_CLASS_AMBIGUOUS;
    if (a->action == HKY_ACTION_NEXT) {
        r->step = a->step;
        r->left_steps++;
        r->tries = r->step_attempts = r->ambiguous = 0;
        r->step_at_ms = a->at_ms;
    }
}

static const char *const END[] = {"", "retry", "next", "fail", "hold", "done"};

/* Plays the plan to its end; what happened, as text. */
static void play(const struct fake_policy *f, const struct run *run, char *out, size_t n)
{
    struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
    struct hky_recipient *r = &m->recipients[0];
    r->plan = plan_of(run);
    r->expire_at_ms = START + 48 * HOUR;
    struct hky_advance a;
    hky_schedule_plan_first(&f->policy, r, &a);
    r->step = a.step;
    r->step_at_ms = START;
    unsigned used[4] = {0};
    size_t at = 0;
    int64_t now = START;
    out[0] = '\0';
    while (a.action == HKY_ACTION_NEXT || a.action == HKY_ACTION_RETRY) {
        if (now >= r->expire_at_ms) {
            at += (size_t)snprintf(out + at, n - at, "expired@%d", (int)((now - START) / MINUTE));
            goto end;
        }
        const char *relay = r->plan->steps[r->step].relay;
        struct hky_outcome o = answer(run, used, relay);
        at += (size_t)snprintf(out + at, n - at, "%s %s@%d, ", relay, hky_class_name(o.class),
                               (int)((now - START) / MINUTE));
        hky_schedule_plan_advance(&(struct hky_advance_query){&f->policy, r, &o, now}, &a);
        assert_true(a.why[0] != '\0');
        move(r, &o, &a, now);
        now = a.at_ms;
    }
    snprintf(out + at, n - at, "%s", END[a.action]);
end:
    hky_message_unref(&m);
}

static const struct run RUNS[] = {
    {"a delivered copy ends the plan", {STEP("own")}, {{0}}, {0}, "own ok@0, done"},
    {"refused connection with one try: the next step at once",
     {STEP_WITHIN("own", 7200, .tries = 1), STEP("rental")},
     {{"own", HKY_CLASS_NETWORK, FOUR_XX, 0, 0}},
     {0},
     "own network@0, rental ok@0, done"},
    {"later for two hours: left when the next retry would be after that",
     {STEP_WITHIN("own", 7200, .tries = 1), STEP("rental")},
     {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}},
     {0},
     "own rate_limited@0, own rate_limited@5, own rate_limited@20, own rate_limited@80, rental ok@80, done"},
    {"rate_limited honours the time that the text names",
     {STEP("own")},
     {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 2, 1200}},
     {0},
     "own rate_limited@0, own rate_limited@20, own ok@40, done"},
    {"filtered after DATA: the other way at once",
     {STEP("own"), STEP("rental")},
     {{"own", HKY_CLASS_FILTERED, FIVE_XX, 0, 0}},
     {0},
     "own filtered@0, rental ok@0, done"},
    {"filtered with no way left fails",
     {STEP("own")},
     {{"own", HKY_CLASS_FILTERED, FIVE_XX, 0, 0}},
     {0},
     "own filtered@0, fail"},
    {"an unknown user stays unknown",
     {STEP("own"), STEP("rental")},
     {{"own", HKY_CLASS_BAD_MAILBOX, FIVE_XX, 0, 0}},
     {0},
     "own bad_mailbox@0, fail"},
    {"an unknown user where `on` names it goes on at once",
     {STEP("own"), STEP("rental", .on = ON(BAD_MAILBOX))},
     {{"own", HKY_CLASS_BAD_MAILBOX, FIVE_XX, 0, 0}},
     {0},
     "own bad_mailbox@0, rental ok@0, done"},
    {"a step without the cause in its `on` is passed over",
     {STEP("own"), STEP("gmail", .on = ON(TLS)), STEP("ses")},
     {{"own", HKY_CLASS_BLOCKED_IP, FIVE_XX, 0, 0}},
     {0},
     "own blocked_ip@0, ses ok@0, done"},
    {"network trouble stays where the other step is for other classes",
     {STEP("own"), STEP("gmail", .on = ON(BLOCKED_IP) | ON(FILTERED) | ON(AUTH_POLICY) | ON(TLS))},
     {{"own", HKY_CLASS_NETWORK, FOUR_XX, 4, 0}},
     {0},
     "own network@0, own network@5, own network@20, own network@80, own ok@320, done"},
    {"the time that a greylisting text names is waited for",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 1, 60}},
     {0},
     "own system_temp@0, own ok@1, done"},
    {"three tries by default",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 0, 0}},
     {0},
     "own system_temp@0, own system_temp@5, own system_temp@20, ses ok@20, done"},
    {"a temporary reply that names a time is waited for, and uses up no try before",
     {STEP("own", .retry = {1, {1}}), STEP("ses")},
     {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 2, 360}},
     {0},
     "own system_temp@0, own system_temp@6, own ok@12, done"},
    {"one that goes on naming a short time is asked no more often than others",
     {STEP("own")},
     {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 3, 60}},
     {0},
     "own system_temp@0, own system_temp@1, own system_temp@16, own ok@76, done"},
    {"a time above a day is not believed",
     {STEP("own")},
     {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 1, 86401}},
     {0},
     "own system_temp@0, own ok@5, done"},
    {"on the last step it goes on until it expires",
     {STEP("own", .retry = {1, {36000}})},
     {{"own", HKY_CLASS_NETWORK, FOUR_XX, 0, 0}},
     {0},
     "own network@0, own network@600, own network@1200, own network@1800, own network@2400, expired@2880"},
    {"without `within` half of the time is for the others",
     {STEP("own", .retry = {1, {36000}}), STEP("ses")},
     {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}},
     {0},
     "own rate_limited@0, own rate_limited@600, own rate_limited@1200, ses ok@1200, done"},
    {"mailbox_full is asked every six hours until `within`, then fails",
     {STEP_WITHIN("own", 54000), STEP("ses")},
     {{"own", HKY_CLASS_MAILBOX_FULL, FIVE_XX, 0, 0}},
     {0},
     "own mailbox_full@0, own mailbox_full@360, own mailbox_full@720, fail"},
    {"mailbox_full for the moment is asked until it expires",
     {STEP_WITHIN("own", 54000), STEP("ses")},
     {{"own", HKY_CLASS_MAILBOX_FULL, FOUR_XX, 0, 0}},
     {0},
     "own mailbox_full@0, own mailbox_full@360, own mailbox_full@720, own mailbox_full@1080, own mailbox_full@1440, "
     "own mailbox_full@1800, own mailbox_full@2160, own mailbox_full@2520, expired@2880"},
    {"mailbox_full named by `on`: not sooner, but instead of failing",
     {STEP_WITHIN("own", 54000), STEP("ses", .on = ON(MAILBOX_FULL))},
     {{"own", HKY_CLASS_MAILBOX_FULL, FOUR_XX, 0, 0}},
     {0},
     "own mailbox_full@0, own mailbox_full@360, own mailbox_full@720, ses ok@720, done"},
    {"mailbox_full named by `on`: its tries do not count, half of the time does",
     {STEP("own", .tries = 1), STEP("ses", .on = ON(MAILBOX_FULL))},
     {{"own", HKY_CLASS_MAILBOX_FULL, FOUR_XX, 0, 0}},
     {0},
     "own mailbox_full@0, own mailbox_full@360, own mailbox_full@720, own mailbox_full@1080, ses ok@1080, done"},
    {"mailbox_full for good named by `on`: likewise",
     {STEP("own", .tries = 1), STEP("ses", .on = ON(MAILBOX_FULL))},
     {{"own", HKY_CLASS_MAILBOX_FULL, FIVE_XX, 0, 0}},
     {0},
     "own mailbox_full@0, own mailbox_full@360, own mailbox_full@720, own mailbox_full@1080, ses ok@1080, done"},
    {"an account that is refused is left at once",
     {STEP("gmail"), STEP("ses")},
     {{"gmail", HKY_CLASS_RELAY_AUTH, FIVE_XX, 0, 0}},
     {0},
     "gmail relay_auth@0, ses ok@0, done"},
    {"and waited for where there is no other",
     {STEP("gmail")},
     {{"gmail", HKY_CLASS_QUOTA_EXHAUSTED, FOUR_XX, 2, 600}},
     {0},
     "gmail quota_exhausted@0, gmail quota_exhausted@10, gmail ok@20, done"},
    {"an unknown 5xx is asked once more, then the next step",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_UNKNOWN, FIVE_XX, 0, 0}},
     {0},
     "own unknown@0, own unknown@15, ses ok@15, done"},
    {"an unknown 5xx twice with no step left fails",
     {STEP("own")},
     {{"own", HKY_CLASS_UNKNOWN, FIVE_XX, 0, 0}},
     {0},
     "own unknown@0, own unknown@15, fail"},
    {"an unknown 4xx is a try like others",
     {STEP("own", .tries = 2), STEP("ses")},
     {{"own", HKY_CLASS_UNKNOWN, FOUR_XX, 0, 0}},
     {0},
     "own unknown@0, own unknown@5, ses ok@5, done"},
    {"ambiguous: the same step after ten minutes, at most twice, then held",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 0, 0}},
     {0},
     "own ambiguous@0, own ambiguous@10, own ambiguous@20, hold"},
    {"ambiguous, then its server is down: it stays with the step until it expires",
     {STEP_WITHIN("own", 7200, .tries = 2), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 1, 0},
      {"own", HKY_CLASS_NETWORK, FOUR_XX, 4, 0},
      {"own", HKY_CLASS_TLS, FOUR_XX, 2, 0},
      {"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 3, 43200}},
     {0},
     "own ambiguous@0, own network@10, own network@25, own network@85, own network@325, own tls@565, own tls@805, "
     "own system_temp@1045, own system_temp@1765, own system_temp@2485, expired@2880"},
    {"ambiguous, then refused: held, since a copy may have been delivered",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 1, 0}, {"own", HKY_CLASS_FILTERED, FIVE_XX, 0, 0}},
     {0},
     "own ambiguous@0, own filtered@10, hold"},
    {"ambiguous, then a mailbox that is said not to exist",
     {STEP("own"), STEP("ses", .on = ON(BAD_MAILBOX))},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 1, 0}, {"own", HKY_CLASS_BAD_MAILBOX, FIVE_XX, 0, 0}},
     {0},
     "own ambiguous@0, own bad_mailbox@10, hold"},
    {"ambiguous, then the account may send no more: it waits for the account",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 1, 0}, {"own", HKY_CLASS_QUOTA_EXHAUSTED, FIVE_XX, 1, 3600}},
     {0},
     "own ambiguous@0, own quota_exhausted@10, own ok@70, done"},
    {"ambiguous, then a class for which react says next",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 1, 0}, {"own", HKY_CLASS_NETWORK, FOUR_XX, 1, 0}},
     {HKY_CLASS_NETWORK, HKY_ACTION_NEXT, 0},
     "own ambiguous@0, own network@10, own ok@25, done"},
    {"ambiguous, then a class for which react says fail",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 1, 0}, {"own", HKY_CLASS_NETWORK, FOUR_XX, 1, 0}},
     {HKY_CLASS_NETWORK, HKY_ACTION_FAIL, 0},
     "own ambiguous@0, own network@10, hold"},
    {"react next for ambiguous: the route wants it so",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 0, 0}},
     {HKY_CLASS_AMBIGUOUS, HKY_ACTION_NEXT, 0},
     "own ambiguous@0, ses ok@0, done"},
    {"react retry for ambiguous: the same step, also when its `within` is over",
     {STEP_WITHIN("own", 3600, .tries = 1), STEP("ses")},
     {{"own", HKY_CLASS_AMBIGUOUS, FOUR_XX, 4, 0}},
     {HKY_CLASS_AMBIGUOUS, HKY_ACTION_RETRY, 1800},
     "own ambiguous@0, own ambiguous@30, own ambiguous@60, own ambiguous@90, own ok@120, done"},
    {"content is not tried elsewhere",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_REPUTATION_CONTENT, FIVE_XX, 0, 0}},
     {0},
     "own reputation_content@0, fail"},
    {"content where the route's react says next",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_REPUTATION_CONTENT, FIVE_XX, 0, 0}},
     {HKY_CLASS_REPUTATION_CONTENT, HKY_ACTION_NEXT, 0},
     "own reputation_content@0, ses ok@0, done"},
    {"react retry with its own delay",
     {STEP("own")},
     {{"own", HKY_CLASS_BAD_MAILBOX, FIVE_XX, 1, 0}},
     {HKY_CLASS_BAD_MAILBOX, HKY_ACTION_RETRY, 1800},
     "own bad_mailbox@0, own ok@30, done"},
    {"react hold",
     {STEP("own")},
     {{"own", HKY_CLASS_TLS, FIVE_XX, 0, 0}},
     {HKY_CLASS_TLS, HKY_ACTION_HOLD, 0},
     "own tls@0, hold"},
    {"react fail on a class that would be retried",
     {STEP("own"), STEP("ses")},
     {{"own", HKY_CLASS_NETWORK, FOUR_XX, 0, 0}},
     {HKY_CLASS_NETWORK, HKY_ACTION_FAIL, 0},
     "own network@0, fail"},
    {"a step that cannot send as the author is passed over",
     {STEP("own"), STEP("gmail", .from = ""), STEP("ses")},
     {{"own", HKY_CLASS_BLOCKED_IP, FIVE_XX, 0, 0}},
     {0},
     "own blocked_ip@0, ses ok@0, done"},
    {"a plan begins with the first that can send",
     {STEP("gmail", .from = ""), STEP("ses")},
     {{0}},
     {0},
     "ses ok@0, done"},
    {"a plan begins with the first without a condition",
     {STEP("gmail", .on = OURS), STEP("own")},
     {{0}},
     {0},
     "own ok@0, done"},
    {"nobody can send as the author", {STEP("gmail", .from = "")}, {{0}}, {0}, "fail"},
    {"the step's own retry list, the last repeats",
     {STEP("own", .retry = {2, {60, 120}}, .tries = 5), STEP("ses")},
     {{"own", HKY_CLASS_NETWORK, FOUR_XX, 4, 0}},
     {0},
     "own network@0, own network@1, own network@3, own network@5, own ok@7, done"},
};

static void plays_every_plan(void **state)
{
    (void)state;
    struct fake_policy f;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    fake_relay(&f, "rental");
    fake_relay(&f, "gmail");
    fake_relay(&f, "ses");
    for (size_t i = 0; i < sizeof RUNS / sizeof RUNS[0]; i++) {
        char got[2048];
        play(&f, &RUNS[i], got, sizeof got);
        if (strcmp(got, RUNS[i].expect) != 0)
            fail_msg("%s:\n  got    %s\n  wanted %s", RUNS[i].name, got, RUNS[i].expect);
    }
}

static void reasons_leave_a_step_or_wait(void **state)
{
    (void)state;
    struct fake_policy f;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    fake_relay(&f, "ses");
    static const struct {
        const char *name;
        struct hky_step steps[2];
        enum hky_class reason;
        enum hky_action expect;
        uint8_t ambiguous; /* attempts before */
    } CASES[] = {
        {"full goes on", {STEP("own"), STEP("ses")}, HKY_CLASS_FULL, HKY_ACTION_NEXT},
        {"paused goes on", {STEP("own"), STEP("ses")}, HKY_CLASS_PAUSED, HKY_ACTION_NEXT},
        {"paused stays where the next is for other things",
         {STEP("own"), STEP("ses", .on = OURS)},
         HKY_CLASS_PAUSED,
         HKY_ACTION_RETRY},
        {"paused goes where the next names it",
         {STEP("own"), STEP("ses", .on = ON(PAUSED))},
         HKY_CLASS_PAUSED,
         HKY_ACTION_NEXT},
        {"full waits on the last", {STEP("own")}, HKY_CLASS_FULL, HKY_ACTION_RETRY},
        {"paused waits on the last", {STEP("own")}, HKY_CLASS_PAUSED, HKY_ACTION_RETRY},
        {"sends_as fails on the last", {STEP("own")}, HKY_CLASS_SENDS_AS, HKY_ACTION_FAIL},
        {"suppressed fails", {STEP("own"), STEP("ses")}, HKY_CLASS_SUPPRESSED, HKY_ACTION_FAIL},
        {"full: maybe delivered, it waits", {STEP("own"), STEP("ses")}, HKY_CLASS_FULL, HKY_ACTION_RETRY, 1},
        {"paused: maybe delivered, it waits", {STEP("own"), STEP("ses")}, HKY_CLASS_PAUSED, HKY_ACTION_RETRY, 1},
        {"sends_as: maybe delivered, it is held", {STEP("own"), STEP("ses")}, HKY_CLASS_SENDS_AS, HKY_ACTION_HOLD, 1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct run run = {.steps = {CASES[i].steps[0], CASES[i].steps[1]}};
        struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
        struct hky_recipient *r = &m->recipients[0];
        r->plan = plan_of(&run);
        r->step_at_ms = START;
        r->ambiguous = CASES[i].ambiguous;
        struct hky_outcome o = {.class = CASES[i].reason};
        struct hky_advance a;
        hky_schedule_plan_advance(&(struct hky_advance_query){&f.policy, r, &o, START}, &a);
        if (a.action != CASES[i].expect)
            fail_msg("%s: got %s (%s)", CASES[i].name, END[a.action], a.why);
        hky_message_unref(&m);
    }
}

/* The attempts that are left are spread over the time that is left, so that none is missing when a server takes the
 * mail late; after the last one the recipient waits until it expires. */
static void sixty_attempts_are_the_most(void **state)
{
    static const struct run CASES[] = {
        {.name = "a short list of retries",
         .steps = {STEP("own", .retry = {1, {300}})},
         .says = {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 0, 0}}},
        {.name = "a retry each second",
         .steps = {STEP("own", .retry = {1, {1}})},
         .says = {{"own", HKY_CLASS_NETWORK, FOUR_XX, 0, 0}}},
        {.name = "react with a short delay",
         .steps = {STEP("own")},
         .says = {{"own", HKY_CLASS_SYSTEM_TEMP, FOUR_XX, 0, 0}},
         .react = {HKY_CLASS_SYSTEM_TEMP, HKY_ACTION_RETRY, 60}},
        {.name = "an account that is paused for a short time",
         .steps = {STEP("own")},
         .says = {{"own", HKY_CLASS_QUOTA_EXHAUSTED, FOUR_XX, 0, 30}}},
        {.name = "no TLS", .steps = {STEP("own", .retry = {1, {60}})}, .says = {{"own", HKY_CLASS_TLS, FIVE_XX, 0, 0}}},
    };
    struct fake_policy f;

    (void)state;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char got[8192], last[32] = "";
        unsigned n = 0;
        play(&f, &CASES[i], got, sizeof got);
        for (const char *p = got; (p = strchr(p, '@')) != NULL; p++, n++)
            if (strncmp(p, "@2880", 5) != 0)
                snprintf(last, sizeof last, "%.5s", p + 1);
        if (n - 1 != HKY_ATTEMPTS_MAX || strstr(got, ", expired@2880") == NULL)
            fail_msg("%s: %u attempts: %s", CASES[i].name, n - 1, got);
        if (atoi(last) < 2700)
            fail_msg("%s: the last attempt comes long before the end: %s", CASES[i].name, got);
    }
}

static void a_short_time_that_a_limit_names_is_taken_once(void **state)
{
    struct fake_policy f;
    char got[8192];

    (void)state;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    play(&f,
         &(struct run){.name = "in 30 seconds",
                       .steps = {STEP("own")},
                       .says = {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 30}}},
         got, sizeof got);
    const char *expect = "own rate_limited@0, own rate_limited@0, own rate_limited@15, own rate_limited@75, "
                         "own rate_limited@315, ";
    if (strncmp(got, expect, strlen(expect)) != 0 || strstr(got, ", expired@2880") == NULL)
        fail_msg("%s", got);
}

/* A step with many tries or a long `within` leaves attempts for the steps after it. */
static void the_steps_after_it_are_reached(void **state)
{
    static const struct run CASES[] = {
        {.name = "left when within is over",
         .steps = {STEP_WITHIN("own", 47 * 3600, .retry = {1, {1}}), STEP("ses")},
         .says = {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}}},
        {.name = "left for the last attempt although within is not over",
         .steps = {STEP_WITHIN("own", 100 * 3600, .retry = {1, {1}}), STEP("ses")},
         .says = {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}}},
        {.name = "left when half of the time is over",
         .steps = {STEP("own", .retry = {1, {60}}), STEP("ses")},
         .says = {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}}},
        {.name = "left when its tries are used up",
         .steps = {STEP("own", .retry = {1, {60}}, .tries = 100), STEP("ses")},
         .says = {{"own", HKY_CLASS_NETWORK, FOUR_XX, 0, 0}}},
        {.name = "two such steps",
         .steps = {STEP("own", .retry = {1, {1}}), STEP("rental", .retry = {1, {1}}), STEP("ses")},
         .says = {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}, {"rental", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}}},
    };
    struct fake_policy f;

    (void)state;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    fake_relay(&f, "rental");
    fake_relay(&f, "ses");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char got[8192];
        play(&f, &CASES[i], got, sizeof got);
        if (strstr(got, ", ses ok@") == NULL)
            fail_msg("%s: %s", CASES[i].name, got);
    }
}

/* The delay between attempts grows from the 30th on, but a step is not left sooner for that. */
static void a_step_is_tried_until_its_within_is_over(void **state)
{
    struct fake_policy f;
    char got[8192];

    (void)state;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    fake_relay(&f, "ses");
    play(&f,
         &(struct run){.name = "three hours",
                       .steps = {STEP_WITHIN("own", 3 * 3600, .retry = {1, {300}}), STEP("ses")},
                       .says = {{"own", HKY_CLASS_RATE_LIMITED, FOUR_XX, 0, 0}}},
         got, sizeof got);
    assert_non_null(strstr(got, "own rate_limited@140, own rate_limited@145, own rate_limited@179, ses ok@179, done"));
}

/* A reply that is final for this way needs no further attempt. */
static void a_permanent_reply_at_the_last_attempt_ends_it(void **state)
{
    static const struct {
        enum hky_class class;
        enum hky_action expect;
    } CASES[] = {
        {HKY_CLASS_BAD_MAILBOX, HKY_ACTION_FAIL}, {HKY_CLASS_FILTERED, HKY_ACTION_FAIL},
        {HKY_CLASS_UNKNOWN, HKY_ACTION_FAIL},     {HKY_CLASS_TLS, HKY_ACTION_RETRY},
        {HKY_CLASS_AMBIGUOUS, HKY_ACTION_HOLD},   {HKY_CLASS_OK, HKY_ACTION_DONE},
    };
    struct fake_policy f;

    (void)state;
    fake_policy_init(&f, 1);
    fake_relay(&f, "own");
    fake_relay(&f, "ses");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct run run = {.steps = {STEP("own"), STEP("ses")}};
        struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
        struct hky_recipient *r = &m->recipients[0];
        r->plan = plan_of(&run);
        r->step_at_ms = START;
        r->expire_at_ms = START + 48 * HOUR;
        r->attempts = HKY_ATTEMPTS_MAX - 1;
        struct hky_outcome o = fake_outcome(CASES[i].class, FIVE_XX);
        struct hky_advance a;
        hky_schedule_plan_advance(&(struct hky_advance_query){&f.policy, r, &o, START + 47 * HOUR}, &a);
        if (a.action != CASES[i].expect)
            fail_msg("%s: got %s (%s)", hky_class_name(CASES[i].class), END[a.action], a.why);
        if (a.action == HKY_ACTION_RETRY)
            assert_int_equal(a.at_ms, r->expire_at_ms);
        hky_message_unref(&m);
    }
}

static void two_relays(struct fake_policy *f)
{
    fake_policy_init(f, 1);
    fake_relay(f, "own");
    fake_relay(f, "ses");
}

/* No temporary reply ends a recipient, whatever it says; a permanent one does where the table says so. */
static void no_temporary_reply_ends_a_recipient(void **state)
{
    (void)state;
    struct fake_policy f;
    two_relays(&f);
    for (int k = HKY_CLASS_BAD_MAILBOX; k <= HKY_CLASS_UNKNOWN; k++) {
        for (int n_steps = 1; n_steps <= 2; n_steps++) {
            struct run run = {
                .name = "4xx",
                .steps = {STEP("own"), STEP("ses")},
                .says = {{"own", (enum hky_class)k, FOUR_XX, 0, 3600}, {"ses", (enum hky_class)k, FOUR_XX, 0, 3600}}};
            char got[4000];
            if (n_steps == 1)
                run.steps[1] = (struct hky_step){0};
            play(&f, &run, got, sizeof got);
            if (strstr(got, "expired@") == NULL)
                fail_msg("%s in a 4xx, %d steps: %s", hky_class_name((enum hky_class)k), n_steps, got);
        }
    }
}

static uint32_t draw(uint64_t *x, uint32_t below)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*x >> 33) % below;
}

static struct hky_step random_step(uint64_t *x, const char *relay)
{
    static const uint32_t DELAYS[] = {1, 30, 60, 300, 900, 3600, 14400, 86400};
    struct hky_step s = STEP("");
    s.relay = relay;
    s.retry.n = (uint8_t)draw(x, 4);
    for (unsigned i = 0; i < s.retry.n; i++)
        s.retry.after_sec[i] = DELAYS[draw(x, 8)];
    s.tries = (uint8_t)draw(x, 120);
    if (draw(x, 3) == 0)
        s.within_sec = draw(x, 60 * 3600);
    if (draw(x, 3) == 0)
        s.on = HKY_CLASS_BIT(draw(x, HKY_CLASS_UNKNOWN + 1)) | HKY_CLASS_BIT(draw(x, HKY_CLASS_UNKNOWN + 1));
    return s;
}

static struct hky_outcome random_temporary(uint64_t *x)
{
    static const uint32_t NAMED[] = {0, 0, 1, 30, 600, 7200, 86400, 1000000};
    enum hky_class class = (enum hky_class)(HKY_CLASS_BAD_MAILBOX + (int)draw(x, HKY_CLASS_UNKNOWN));
    if (class > HKY_CLASS_UNKNOWN)
        class = HKY_CLASS_UNKNOWN;
    struct hky_outcome o = fake_outcome(class, FOUR_XX);
    o.retry_after_sec = NAMED[draw(x, 8)];
    return o;
}

/* Plays a random plan against random temporary replies until it ends. */
static void play_temporary_replies(struct fake_policy *f, uint64_t seed)
{
    static const char *const RELAYS[] = {"own", "ses", "rental", "gmail"};
    uint64_t x = seed;
    struct run run = {.name = "random"};
    unsigned n_steps = 1 + draw(&x, 4);
    for (unsigned i = 0; i < n_steps; i++)
        run.steps[i] = random_step(&x, RELAYS[i]);
    run.steps[0].on = 0;
    if (draw(&x, 3) == 0)
        run.react = (struct react){(enum hky_class)draw(&x, HKY_CLASS_UNKNOWN + 1),
                                   draw(&x, 2) == 0 ? HKY_ACTION_RETRY : HKY_ACTION_NEXT, draw(&x, 1000)};
    struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
    struct hky_recipient *r = &m->recipients[0];
    r->plan = plan_of(&run);
    r->step_at_ms = START;
    r->expire_at_ms = START + (1 + draw(&x, 30 * 24 * 60)) * MINUTE;
    unsigned n = 0;
    bool is_one_class = draw(&x, 2) == 0;
    struct hky_outcome o = random_temporary(&x);
    for (int64_t now = START; now < r->expire_at_ms; n++) {
        struct hky_advance a;
        if (n >= HKY_ATTEMPTS_MAX)
            fail_msg("seed %d: attempt %u", (int)seed, n + 1);
        o = is_one_class ? o : random_temporary(&x);
        hky_schedule_plan_advance(&(struct hky_advance_query){&f->policy, r, &o, now}, &a);
        if (a.action != HKY_ACTION_RETRY && a.action != HKY_ACTION_NEXT)
            fail_msg("seed %d: attempt %u: %s ends it: %s (%s)", (int)seed, n + 1, hky_class_name(o.class),
                     END[a.action], a.why);
        assert_in_range(a.at_ms, now, r->expire_at_ms);
        move(r, &o, &a, now);
        now = a.at_ms;
    }
    hky_message_unref(&m);
}

static void no_temporary_reply_ends_a_random_plan(void **state)
{
    struct fake_policy f;

    (void)state;
    two_relays(&f);
    fake_relay(&f, "rental");
    fake_relay(&f, "gmail");
    for (uint64_t seed = 1; seed <= 2000; seed++)
        play_temporary_replies(&f, seed);
}

/* A 4xx about our side is tried at the same account before another one, with another From perhaps, is used. */
static void a_temporary_reply_is_tried_at_the_same_step_first(void **state)
{
    static const enum hky_class ours[] = {HKY_CLASS_FILTERED, HKY_CLASS_AUTH_POLICY, HKY_CLASS_BLOCKED_IP,
                                          HKY_CLASS_SIZE_FORMAT};
    static const enum hky_class theirs[] = {HKY_CLASS_BAD_MAILBOX, HKY_CLASS_BAD_DOMAIN, HKY_CLASS_INACTIVE,
                                            HKY_CLASS_REPUTATION_CONTENT};
    char got[4000], wanted[200];
    struct fake_policy f;

    (void)state;
    two_relays(&f);
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        const char *name = hky_class_name(ours[i]);
        play(
            &f,
            &(struct run){.name = name, .steps = {STEP("own"), STEP("ses")}, .says = {{"own", ours[i], FOUR_XX, 0, 0}}},
            got, sizeof got);
        snprintf(wanted, sizeof wanted, "own %s@0, own %s@5, own %s@20, ses ok@20, done", name, name, name);
        assert_string_equal(got, wanted);
    }
    for (size_t i = 0; i < sizeof theirs / sizeof theirs[0]; i++) { /* another way does not cure these */
        const char *name = hky_class_name(theirs[i]);
        play(&f,
             &(struct run){
                 .name = name, .steps = {STEP("own"), STEP("ses")}, .says = {{"own", theirs[i], FOUR_XX, 1, 0}}},
             got, sizeof got);
        snprintf(wanted, sizeof wanted, "own %s@0, own ok@5, done", name);
        assert_string_equal(got, wanted);
    }
}

static void tls_that_does_not_come_about_is_waited_for(void **state)
{
    char got[4000];
    struct fake_policy f;

    (void)state;
    two_relays(&f);
    play(&f,
         &(struct run){
             .name = "tls", .steps = {STEP("own"), STEP("ses")}, .says = {{"own", HKY_CLASS_TLS, FIVE_XX, 0, 0}}},
         got, sizeof got);
    assert_string_equal(got, "own tls@0, ses ok@0, done");
    play(&f, &(struct run){.name = "tls", .steps = {STEP("own")}, .says = {{"own", HKY_CLASS_TLS, FIVE_XX, 2, 0}}}, got,
         sizeof got);
    assert_string_equal(got, "own tls@0, own tls@5, own ok@20, done");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plays_every_plan),
        cmocka_unit_test(reasons_leave_a_step_or_wait),
        cmocka_unit_test(sixty_attempts_are_the_most),
        cmocka_unit_test(a_short_time_that_a_limit_names_is_taken_once),
        cmocka_unit_test(the_steps_after_it_are_reached),
        cmocka_unit_test(a_step_is_tried_until_its_within_is_over),
        cmocka_unit_test(a_permanent_reply_at_the_last_attempt_ends_it),
        cmocka_unit_test(no_temporary_reply_ends_a_recipient),
        cmocka_unit_test(no_temporary_reply_ends_a_random_plan),
        cmocka_unit_test(a_temporary_reply_is_tried_at_the_same_step_first),
        cmocka_unit_test(tls_that_does_not_come_about_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
