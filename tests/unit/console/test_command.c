#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pthread.h>

#include <cmocka.h>

#include "hikyaku/console.h"
#include "net/loop.h"

static const char *const states[] = {"queued", "held", NULL};
static const struct hky_argument arguments[] = {
    {"id", HKY_ARG_ID, "ID", "one message", .is_positional = true, .is_selection = true},
    {"scenario", HKY_ARG_TEXT, "NAME", "of this scenario", .min = 1, .max = 20, .is_selection = true},
    {"state", HKY_ARG_WORD, "STATE", "in this state", .words = states, .is_selection = true},
    {"older", HKY_ARG_DURATION, "DURATION", "older than this", .max = INT64_C(86400000) * 10, .is_selection = true},
    {"to", HKY_ARG_ADDRESS, "ADDRESS", "to them", .min = 1, .max = 320, .is_selection = true},
    {"from", HKY_ARG_ADDRESS, "ADDRESS", "from them", .min = 1, .max = 320, .is_selection = true, .may_be_null = true},
    {"all", HKY_ARG_FLAG, NULL, "everybody", .is_selection = true},
    {"limit", HKY_ARG_NUMBER, "N", "rows", .min = 0, .max = 1000},
    {"where", HKY_ARG_SCRIPT, "LUA", "for which this holds", .min = 1, .max = 100, .is_selection = true},
    {"dry_run", HKY_ARG_FLAG, NULL, "change nothing"},
    {NULL},
};

/* ---- the socket, against a table of one command ---- */

struct rig {
    struct hky_loop *loop;
    struct hky_console *console;
    char dir[64];
    char seen[400];
};

static void add_seen(struct rig *rig, struct hky_console_request *rq, const char *name)
{
    const struct hky_value *v = hky_console_arg(rq, name);
    size_t n = strlen(rig->seen);

    if (v->is_given)
        snprintf(rig->seen + n, sizeof rig->seen - n, "%s=%s/%lld ", name, v->text != NULL ? v->text : "",
                 (long long)v->number);
}

static void run_hold(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct rig *rig = ctx;

    rig->seen[0] = '\0';
    for (size_t i = 0; self->arguments[i].name != NULL; i++)
        add_seen(rig, rq, self->arguments[i].name);
    hky_console_answer(&rq, rig->seen);
}

static void render_seen(const void *answer, struct hky_json *out)
{
    hky_json_z(out, "seen", answer);
}

static const struct hky_command commands[] = {
    {"queue hold", HKY_RIGHT_OPERATE, "hold", arguments, true, run_hold, render_seen},
    {"queue list", HKY_RIGHT_READ, "list", arguments, false, run_hold, render_seen},
    {NULL},
};

static void *call(void *arg)
{
    void **args = arg;
    struct hky_error e;

    hky_buf_clear(args[2]);
    if (hky_console_call(((struct rig *)args[0])->dir, hky_str_z(args[1]), args[2], &e) != HKY_OK)
        hky_buf_add_z(args[2], e.text);
    hky_loop_stop(((struct rig *)args[0])->loop);
    return NULL;
}

static void ask(struct rig *rig, const char *request, struct hky_buf *answer)
{
    pthread_t thread;
    void *args[] = {rig, (void *)(uintptr_t)request, answer};

    assert_int_equal(pthread_create(&thread, NULL, call, args), 0);
    hky_loop_run(rig->loop);
    pthread_join(thread, NULL);
}

static void requests_are_checked_in_one_place(void **state)
{
    static const struct {
        const char *request, *answer;
    } CASES[] = {
        {"{\"cmd\":\"queue\",\"action\":\"hold\",\"select\":{\"state\":\"held\"}}",
         "{\"ok\":true,\"seen\":\"state=held/0 \"}"},
        {"{\"cmd\":\"queue hold\",\"state\":\"held\",\"dry_run\":true}", "\"seen\":\"state=held/0 dry_run=/1 \""},
        {"{\"cmd\":\"queue hold\",\"state\":\"held\",\"dry_run\":false}", "\"seen\":\"state=held/0 \""},
        {"{\"cmd\":\"queue\"}", "\"seen\":\"\""},                                           /* list */
        {"{\"cmd\":\"queue\",\"limit\":0,\"older\":0}", "\"seen\":\"older=/0 limit=/0 \""}, /* given, and zero */
        {"{\"cmd\":\"queue\",\"older\":\"2h\"}", "\"seen\":\"older=/7200000 \""},
        {"{\"cmd\":\"queue\",\"id\":\"0000000000000\"}", "\"seen\":\"id=/0 \""},
        {"{\"cmd\":\"queue\",\"where\":\"a\\n  b\"}", "\"ok\":true"},
        {"{\"cmd\":\"queue hold\"}",
         "which? Write \\\"id\\\", or a selection such as \\\"scenario\\\" or \\\"state\\\"; \\\"all\\\": true "
         "selects every recipient"},
        {"{\"cmd\":\"queue hold\",\"limit\":5}", "which? Write \\\"id\\\""},
        {"{\"cmd\":\"queue hold\",\"all\":true}", "\"seen\":\"all=/1 \""},
        {"{\"cmd\":\"queue hold\",\"all\":false}", "which? Write \\\"id\\\""},
        {"{\"cmd\":\"queue hold\",\"all\":true,\"state\":\"held\"}",
         "\\\"all\\\" means everybody and \\\"state\\\" does not"},
        {"{\"cmd\":\"queue hold\",\"all\":true,\"id\":\"0000000000000\"}", "leave one of them out"},
        {"{\"cmd\":\"queue hold\",\"to\":\"*\"}",
         "\\\"to\\\" leaves nobody out: if everybody is meant, write \\\"all\\\": true"},
        {"{\"cmd\":\"queue hold\",\"from\":\"*\"}", "\\\"from\\\" leaves nobody out"},
        {"{\"cmd\":\"queue hold\",\"older\":0}", "\\\"older\\\" leaves nobody out"},
        {"{\"cmd\":\"queue hold\",\"older\":\"0d\"}", "\\\"older\\\" leaves nobody out"},
        {"{\"cmd\":\"queue hold\",\"where\":\"true\"}", "\\\"where\\\" leaves nobody out"},
        {"{\"cmd\":\"queue hold\",\"where\":\"'car' .. err\"}", "\\\"where\\\" leaves nobody out"},
        {"{\"cmd\":\"queue hold\",\"to\":\"*\",\"older\":0,\"where\":\"1\"}", "leaves nobody out"},
        {"{\"cmd\":\"queue hold\",\"where\":\"r.tags.x\"}", "\"seen\":\"where=r.tags.x/0 \""},
        {"{\"cmd\":\"queue hold\",\"where\":\"#r\"}", "\"ok\":true"},
        {"{\"cmd\":\"queue hold\",\"to\":\"*\",\"state\":\"held\"}", "\"ok\":true"},
        {"{\"cmd\":\"queue hold\",\"older\":1}", "\"ok\":true"},
        {"{\"cmd\":\"queue\",\"to\":\"*\"}", "\"ok\":true"}, /* a list may be of everybody */
        {"{\"cmd\":\"queue\",\"to\":\"x.test.\"}", "to cannot be \\\"x.test.\\\": leave out the dot at its end"},
        {"{\"cmd\":\"queue\",\"to\":\" \"}", "to cannot be \\\" \\\": write an address (user@example.com), a domain"},
        {"{\"cmd\":\"queue\",\"to\":\"<>\"}", "to cannot be <>, which is the null sender"},
        {"{\"cmd\":\"queue\",\"from\":\"<>\"}", "\"seen\":\"from=<>/0 \""},
        {"{\"cmd\":\"queue\",\"to\":\"a\\u0007@x.test\"}", "to has a control character in it"},
        {"{\"cmd\":\"queue hold\",\"scenario\":\"\"}", "scenario is empty"},
        {"{\"cmd\":\"queue hold\",\"scenario\":null}", "scenario is null"},
        {"{\"cmd\":\"queue hold\",\"select\":{\"state\":\"held\",\"scenario\":null}}", "scenario is null"},
        {"{\"cmd\":\"queue hold\",\"scenario\":\"123456789012345678901\"}", "scenario takes 1 to 20 octets, not 21"},
        {"{\"cmd\":\"queue hold\",\"scenario\":\"a\\u0007\"}", "scenario has a control character"},
        {"{\"cmd\":\"queue hold\",\"scenario\":5}", "scenario must be text"},
        {"{\"cmd\":\"queue hold\",\"scenaro\":\"x\"}",
         "unexpected argument \\\"scenaro\\\" for queue hold; did you mean \\\"scenario\\\"?"},
        {"{\"cmd\":\"queue hold\",\"SCENARIO\":\"x\"}", "did you mean \\\"scenario\\\"?"},
        {"{\"cmd\":\"queue hold\",\"select\":{\"scenario\":\"x\"},\"scenario\":\"y\"}", "scenario is given twice"},
        {"{\"cmd\":\"queue hold\",\"state\":\"hled\"}", "state cannot be \\\"hled\\\"; did you mean \\\"held\\\"?"},
        {"{\"cmd\":\"queue hold\",\"state\":\"sent\"}", "state takes one of queued, held, not \\\"sent\\\""},
        {"{\"cmd\":\"queue hold\",\"older\":\"two hours\"}", "older takes a duration such as"},
        {"{\"cmd\":\"queue hold\",\"older\":\"11d\"}", "older takes from 0s to 10d"},
        {"{\"cmd\":\"queue hold\",\"older\":-1}", "older takes a duration such as"},
        {"{\"cmd\":\"queue\",\"limit\":1001}", "limit takes a number from 0 to 1000, not \\\"1001\\\""},
        {"{\"cmd\":\"queue\",\"limit\":true}", "limit must be a number or text"},
        {"{\"cmd\":\"queue hold\",\"dry_run\":\"yes\"}", "dry_run must be true or false"},
        {"{\"cmd\":\"queue hold\",\"id\":\"0\"}", "\\\"0\\\" is not a message id"},
        {"{\"cmd\":\"queue\",\"action\":\"lits\"}", "there is no command \\\"queue lits\\\""},
        {"{\"cmd\":\"status\"}", "commands: queue hold, queue list"},
        {"{\"cmd\":\"queue\",\"action\":5}", "a request is one JSON object"},
        {"{\"cmd\":\"queue\",\"select\":[]}", "a request is one JSON object"},
        {"{\"cmd\":5}", "a request is one JSON object"},
        {"[]", "a request is one JSON object"},
        {"nonsense", "a request is one JSON object"},
    };
    struct rig rig = {.dir = "/tmp/hikyaku-console-XXXXXX"};
    const struct hky_console_ops ops = {.ctx = &rig, .commands = commands, .rights = HKY_RIGHT_ALL};
    struct hky_buf answer;
    struct hky_error e;

    (void)state;
    assert_non_null(mkdtemp(rig.dir));
    assert_int_equal(hky_loop_new(&rig.loop, &e), HKY_OK);
    assert_int_equal(hky_console_new(rig.loop, rig.dir, "", &ops, &rig.console, &e), HKY_OK);
    hky_buf_init(&answer, 1u << 20);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        ask(&rig, CASES[i].request, &answer);
        if (strstr(hky_buf_z(&answer), CASES[i].answer) == NULL)
            fail_msg("%s\n  answered %s\n  wanted   %s", CASES[i].request, hky_buf_z(&answer), CASES[i].answer);
    }
    hky_buf_fini(&answer);
    hky_console_free(&rig.console);
    hky_loop_free(&rig.loop);
    assert_int_equal(rmdir(rig.dir), 0);
}

static void a_door_without_the_right_is_shut(void **state)
{
    struct rig rig = {.dir = "/tmp/hikyaku-console-XXXXXX"};
    const struct hky_console_ops ops = {.ctx = &rig, .commands = commands, .rights = HKY_RIGHT_READ};
    struct hky_buf answer;
    struct hky_error e;

    (void)state;
    assert_non_null(mkdtemp(rig.dir));
    assert_int_equal(hky_loop_new(&rig.loop, &e), HKY_OK);
    assert_int_equal(hky_console_new(rig.loop, rig.dir, "", &ops, &rig.console, &e), HKY_OK);
    hky_buf_init(&answer, 1u << 20);
    ask(&rig, "{\"cmd\":\"queue list\",\"state\":\"held\"}", &answer);
    assert_non_null(strstr(hky_buf_z(&answer), "state=held"));
    snprintf(rig.seen, sizeof rig.seen, "not asked");
    ask(&rig, "{\"cmd\":\"queue hold\",\"state\":\"held\"}", &answer);
    assert_non_null(strstr(hky_buf_z(&answer), "\"code\":\"forbidden\""));
    assert_string_equal(rig.seen, "not asked");
    hky_buf_fini(&answer);
    hky_console_free(&rig.console);
    hky_loop_free(&rig.loop);
    assert_int_equal(rmdir(rig.dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_checked_in_one_place),
        cmocka_unit_test(a_door_without_the_right_is_shut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
