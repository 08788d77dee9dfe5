/* Hostile scripts: each is stopped in time, raises a plain error, and leaves the state usable. */
#include "fixture.h"

#include "route/table/pattern.h"

#include <time.h>

#define CPU_MS 4000 /* under sanitizers, with 300 ms allowed: instructions decide, not the clock */

static const struct {
    const char *name, *body; /* of function(r) */
    const char *text;        /* part of the error; NULL: must give true */
} scripts[] = {
    {"U01 loop", "while true do end", "policy.lua:5: used up its instructions"},
    {"U01 loop in pcall", "while true do pcall(function() while true do end end) end", "used up its instructions"},
    {"U02 xpcall recursion",
     "local function h(e) return xpcall(error, h, e) end while true do xpcall(error, h, 'x') end", "policy.lua:5: "},
    {"U02 no closing", "local c <close> = {}", "closable"},
    {"U04 no coroutines", "return coroutine.create(function() end)", "coroutine is not defined"},
    {"U04 no resume", "return coroutine.resume", "coroutine is not defined"},
    {"U05 no closing of coroutines", "return coroutine.close(coroutine.running())", "coroutine is not defined"},
    {"U06 catastrophic find", "return (('a'):rep(26)):find(('a-'):rep(26) .. 'b')", "too many steps"},
    {"U07 quadratic find", "return (('a'):rep(65536)):find('.-b')", "too many steps"},
    {"U07 nested match", "return (('x'):rep(100000)):match('.-.-.-.-y$')", "too many steps"},
    {"U07 caught and repeated", "while true do pcall(string.find, ('a'):rep(65536), '.-b') end", "used up"},
    {"U07 long set", "return (('b'):rep(65536)):find('[' .. ('a'):rep(60000) .. ']*$')", "too many steps"},
    {"U07 many sets", "return (('b'):rep(65536)):find(('[' .. ('a'):rep(900) .. ']-'):rep(60) .. 'c')",
     "too many steps"},
    {"U07 long frontier", "return (('b'):rep(65536)):find('%f[' .. ('a'):rep(60000) .. ']')", "too many steps"},
    {"U07 numbers of blanks", "local s = (' '):rep(1000000) while true do tonumber(s) end", ""},
    {"U08 move", "table.move({}, 1, 2^53|0, 1, {})", "too many elements"},
    {"U08 concat", "return table.concat({}, 'x', 1, 2^53|0)", "too many elements"},
    {"U08 unpack", "return table.unpack({}, 1, 2^53|0)", "too many results"},
    {"U08 sort with a bad order",
     "local t = {} for i = 1, 3000 do t[i] = i % 7 end table.sort(t, function() return true end)",
     "used up its instructions"},
    {"U09 rep of nothing", "return ('').rep('', 2^53|0) == ''", NULL},
    {"U09 rep too much", "return ('x'):rep(2^40|0)", "too large"},
    {"U10 doubling", "local s = 'x' while true do s = s .. s end", ""},
    {"U10 table", "local t = {} while true do t[#t + 1] = {} end", ""},
    {"U10 format", "return string.format('%99d', 1):rep(1000000)", "too large"},
    {"U10 no pack", "return string.pack('c2147483647', '')", "nil value"},
    {"U10 json", "local s = '[' .. ('1,'):rep(500000) .. '1]' while true do json.decode(s) end", ""},
    {"U11 comparing long strings",
     "local a, b = ('x'):rep(1000000) .. '1', ('x'):rep(1000000) .. '1' while true do local c = a == b end", "used up"},
    {"U11 appending", "local s = '' for i = 1, 1e5 do s = s .. 'xxxxxxxxxx' end", ""},
    {"U11 gsub growing", "local s = 'x' while true do s = s:gsub('.', '%0%0') end", ""},
    {"U11 repeated rep", "for i = 1, 2000 do pcall(string.rep, 'x', 1000000) end", ""},
    {"U13 no setmetatable", "return setmetatable({}, {})", "setmetatable is not defined"},
    {"U14 no getmetatable", "return getmetatable('')", "getmetatable is not defined"},
    {"U14 string is sealed", "string.format = 3", "string is read-only"},
    {"U14 sealed against table.insert", "table.insert(string, 3)", "read-only"},
    {"U16 recursion", "local function f() return 1 + f() end return f()", ""},
    {"U16 gsub recursion", "local function f() return (('x'):gsub('x', f)) end return f()", ""},
    {"U16 deep table as a plan", "local t = {} for i = 1, 1000 do t = { t } end return t", NULL},
    {"U16 deep table to json", "local t = {} for i = 1, 1000 do t = { t } end return json.encode(t)",
     "not a value of JSON"},
    {"U16 json of a tree that shares", "local t = 'x' for i = 1, 30 do t = { t, t } end return json.encode(t)",
     "used up its instructions"},
    {"U16 json of a million numbers that are shared",
     "local t, u = {}, {} for i = 1, 1000 do t[i] = 1 end for i = 1, 1000 do u[i] = t end return json.encode(u)",
     "used up its instructions"},
    {"U16 json of shared long strings",
     "local s, t = ('x'):rep(100000), {} for i = 1, 300 do t[i] = s end return json.encode(t)", "above 1048576 octets"},
    {"U16 no load", "return load('return 1')", "load is not defined"},
    {"U17 error with a table", "error({})", "error needs a text"},
    {"U17 error with nil", "error()", "error needs a text"},
    {"U17 error of an error", "xpcall(error, function(e) error(e) end, 'x') return true", "policy.lua:5: x"},
    {"U19 wrong arguments", "return r:hash({})", "string expected"},
    {"U19 a header's name with a line end", "return r.message:header('X\\r\\nY') == nil", NULL},
    {"U19 nothing to write to", "r.message:set_header('X', 'v')", "there is no \"set_header\" here"},
    {"U19 no recipients to add", "r:add_rcpt('x@y.example')", "there is no \"add_rcpt\" here"},
    {"U19 a method on something else", "return r.hash({}, 'x')", "with a colon"},
    {"U19 not a number", "return r.attempts[0/0] == nil and r.attempts[2^63] == nil and r.attempts['\\0'] == nil",
     NULL},
    {"U19 a relay's name of a million letters", "return relays[('a'):rep(1000000)]", "no relay"},
    {"U20 no require", "return require 'x'", "require is not defined"},
    {"U20 no files", "return dofile('/etc/passwd')", "dofile is not defined"},
    {"U20 no loadfile", "return loadfile('/etc/passwd')", "loadfile is not defined"},
    {"U20 no package", "return package.path", "package is not defined"},
    {"U20 print is note", "print('x') return true", NULL},
    {"U20 no environment", "return _G ~= nil", "_G is not defined"},
    {"U20 no io", "return io.open('/etc/passwd')", "io is not defined"},
    {"U20 no os", "os.exit()", "os is not defined"},
    {"U20 no debug", "debug.sethook()", "debug is not defined"},
    {"U20 no collectgarbage", "collectgarbage('stop')", "collectgarbage is not defined"},
    {"U20 no rawset", "rawset(string, 'x', 1)", "rawset is not defined"},
    {"U20 no dump", "return string.dump(function() end)", "nil value"},
    {"U20 no address", "return tostring({}) == 'table' and not pcall(string.format, '%p', {})", NULL},
    {"globals stay frozen", "x = 1", "assignment to the global"},
    {"globals through _ENV", "_ENV.relay = nil", "assignment to the global"},
    {"no declarations in functions", "relay 'z' { mx = true }", "while loading only"},
    {"r is read-only", "r.address = 'x'", "r is read-only"},
    {"r has no such field", "return r.adress", "did you mean \"address\"?"},
    {"an earlier r is refused", "if not kept.r then kept.r = r return true end return kept.r.address", NULL},
    {"pcall still works", "return not pcall(error, 'x') and select(2, pcall(error, 'x', 0)) == 'x'", NULL},
    {"xpcall still works", "return select(2, xpcall(error, function(e) return e .. '!' end, 'x', 0)) == 'x!'", NULL},
    {"patterns work",
     "return ('key = value'):match('^(%w+)%s*=%s*(%w+)$') == 'key' and ('a,b,,c'):gsub(',', ';') == 'a;b;;c' and "
     "('THE (quick) fox'):find('%((%a+)%)') == 5 and ('x'):rep(3, '-') == 'x-x-x' and "
     "('f(a(b)c)d'):match('%b()') == '(a(b)c)' and ('THE (q) fox'):gsub('%f[%a]%a+', string.lower) == 'the (q) fox'",
     NULL},
    {"zero is a class", "return ('a\\0b'):find('%z') == 2 and ('a\\0b'):match('%Z+') == 'a'", NULL},
    {"gmatch and captures",
     "local n = 0 for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do n = n + v end return n == 3 and "
     "('hello'):find('l', 1, true) == 3 and ('abc'):gsub('%w', '%0%0') == 'aabbcc' and ('abc'):match('()b()') == 2 and "
     "('x'):gsub('', '-') == '-x-'",
     NULL},
    {"random works",
     "local x = math.random() return x >= 0 and x < 1 and math.random(3) <= 3 and math.random(5, 5) == 5", NULL},
    {"tables work",
     "local t = { 3, 1, 2 } table.sort(t) table.insert(t, 1, 0) table.remove(t) return table.concat(t, ',') == '0,1,2' "
     "and "
     "select('#', table.unpack(t)) == 3",
     NULL},
    {"time works", "return time.date(r.now).year == 2026 and time.days_since('2026-11-30') == 1", NULL},
    {"json works",
     "return json.decode('{\"a\":[1,2,{\"b\":true}]}').a[3].b and json.encode({ x = { 1, 2 } }) == '{\"x\":[1,2]}'",
     NULL},
    {"json too deep", "return json.decode(('['):rep(100) .. (']'):rep(100))", "nested more than 64 deep"},
    {"json of a cycle", "local t = {} t.t = t return json.encode(t)", "not a value of JSON"},
    {"hash is in [0,1)", "return r:hash 'x' >= 0 and r:hash 'x' < 1 and r:hash 'x' ~= r:hash 'y'", NULL},
    {"pairs of tags", "local n = 0 for k, v in pairs(r.tags) do n = n + 1 end return n == 1 and r.tags.one", NULL},
};

/* Of this thread: what else runs on the machine does not count. */
static int64_t cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void hostile_scripts_are_stopped(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        char text[1200], got[400];
        struct hky_policy *p;
        struct hky_vm *vm;
        struct hky_decision d;
        int64_t start;
        print_message("  %s\n", scripts[i].name);
        snprintf(text, sizeof text,
                 "engine { bounds = { lua_ms = 300 } } " RELAYS
                 "local kept = {} route 'bad' { to = 'bad.example', via = 'a', when = function(r)\n%s\nend }\n"
                 "route 'good' { to = 'good.example', when = function(r) return true end, via = 'b' }\n",
                 scripts[i].body);
        p = load_text(text);
        vm = vm_of(p);
        start = cpu_ms();
        decide(vm, &(struct mail){.to = "x@bad.example", .tag = "one"}, &d);
        assert_true(cpu_ms() - start < CPU_MS);
        decision_text(&d, got);
        if (scripts[i].text == NULL && d.kind != HKY_DECIDED)
            fail_msg("%s: %s", scripts[i].name, got);
        if (scripts[i].text != NULL && (d.kind != HKY_POLICY_ERROR || strstr(d.text, scripts[i].text) == NULL ||
                                        strncmp(d.text, "policy.lua:", 11) != 0 || d.place.line == 0))
            fail_msg("%s: got \"%s\"", scripts[i].name, d.kind == HKY_POLICY_ERROR ? d.text : got);
        decision_fini(&d);
        expect_decision(vm, &(struct mail){.to = "x@good.example"}, "good: b");
        hky_vm_free(&vm);
        hky_policy_unref(&p);
    }
}

static void u19_an_earlier_r_is_refused(void **state)
{
    struct hky_policy *p = load_text(RELAYS "local kept = {}\nroute 'x' { to = '*', via = 'a', when = function(r)\n"
                                            "  kept[#kept + 1] = r\n  return kept[1].address end }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_decision d;

    (void)state;
    expect_decision(vm, &(struct mail){.to = "x@y.example"}, "x: a");
    decide(vm, &(struct mail){.to = "x@y.example"}, &d);
    assert_int_equal(d.kind, HKY_POLICY_ERROR);
    assert_non_null(strstr(d.text, "valid in the call only"));
    assert_int_equal(d.place.line, 7);
    decision_fini(&d);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void a_function_over_budget_ten_times_is_suspended(void **state)
{
    struct hky_policy *p = load_text("engine { bounds = { lua_instructions = 2000 } }\n" RELAYS
                                     "route 'x' { to = '*', via = 'a', when = function(r) while true do end end }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_decision d;

    (void)state;
    for (int i = 0; i < 10; i++) {
        decide(vm, &(struct mail){.to = "x@y.example"}, &d);
        assert_non_null(strstr(d.text, "used up"));
        decision_fini(&d);
    }
    decide(vm, &(struct mail){.to = "x@y.example"}, &d);
    assert_int_equal(d.kind, HKY_POLICY_ERROR);
    assert_non_null(strstr(d.text, "suspended until reload"));
    decision_fini(&d);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void wrong_answers_of_via_are_errors(void **state)
{
    static const struct {
        const char *via, *text;
    } answers[] = {
        {"return 'nobody'", "no relay \"nobody\""},
        {"return 42", "route \"x\": via: 42 is no relay and no step"},
        {"return {}", "at least one step"},
        {"return { 'a', {} }", "is no relay and no step"},
        {"return { step 'a' }", "no braces"},
        {"return { step 'a' { trys = 1 } }", "did you mean \"tries\"?"},
        {"local t = {} for i = 1, 17 do t[i] = 'a' end return t", "at most 16 steps"},
        {"return { 'a', x = 1 }", "has no place in it"},
        {"local t = {} t[1] = t return t", "is no relay and no step"},
        {"return carriers.docomo", "is no relay and no step"},
        {"local t = 'a' for i = 1, 1000 do t = { t } end return t", "is no relay and no step"}, /* U16 */
        {"return { ('a'):rep(1000000) }", "no relay \"aaaa"},                                   /* U19 */
        {"return { step 'a' { within = 0/0 } }", "within"},
        {"return { step 'a' { tries = 2^63 } }", "tries"},
        {"return { [1] = 'a', [3] = 'b' }", "has a hole"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        char text[600];
        struct hky_policy *p;
        struct hky_vm *vm;
        struct hky_decision d;
        snprintf(text, sizeof text,
                 "engine { bounds = { lua_ms = 300 } } " RELAYS "route 'x' { to = '*', via = function(r) %s end }\n",
                 answers[i].via);
        p = load_text(text);
        vm = vm_of(p);
        decide(vm, &(struct mail){.to = "x@y.example"}, &d);
        if (d.kind != HKY_POLICY_ERROR || strstr(d.text, answers[i].text) == NULL)
            fail_msg("%s: got \"%s\"", answers[i].via, d.text);
        decision_fini(&d);
        hky_vm_free(&vm);
        hky_policy_unref(&p);
    }
}

/* U16, while loading: the compiler's own depth, not the C stack's. */
static void u16_a_deep_source_is_a_problem(void **state)
{
    static const char *const texts[] = {"(", "{", "- ", "not ", "function() return ", "a.b[", "f("};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        char *text = hky_calloc(1, 100000 * strlen(texts[i]) + 100);
        size_t n = (size_t)sprintf(text, "local x = ");
        for (size_t k = 0; k < 100000; k++, n += strlen(texts[i]))
            memcpy(text + n, texts[i], strlen(texts[i]));
        folder_open(&f);
        folder_write(&f, "policy.lua", text);
        p = load_folder(&f, &problems);
        assert_null(p);
        assert_int_equal(problems.n_errors, 1);
        assert_string_equal(problems.items[0].place.file, "policy.lua");
        if (strstr(problems.items[0].text, "nested too deep") == NULL)
            fail_msg("%s: %s", texts[i], problems.items[0].text);
        hky_problems_fini(&problems);
        folder_close(&f);
        free(text);
    }
}

static void plans_of_functions_follow_what_the_function_says(void **state)
{
    struct hky_policy *p =
        load_text(RELAYS "local plan = { 'a' }\nroute 'x' { to = '*', expire = '1h', via = function(r)\n"
                         "  plan[1] = r.tags.b and 'b' or 'a'\n  return plan end }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_decision d, e;

    (void)state;
    expect_decision(vm, &(struct mail){.to = "x@y.example"}, "x: a");
    expect_decision(vm, &(struct mail){.to = "x@y.example", .tag = "b"}, "x: b");
    decide(vm, &(struct mail){.to = "x@y.example"}, &d);
    decide(vm, &(struct mail){.to = "z@y.example"}, &e);
    assert_ptr_equal(d.plan, e.plan);
    assert_true(d.plan->is_from_function);
    assert_int_equal(d.plan->expire_sec, 3600);
    decision_fini(&d);
    decision_fini(&e);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void split_given_by_a_function(void **state)
{
    struct hky_policy *p = load_text(RELAYS "local ab = split 'ab' { { arm = 'one', share = 0, via = 'a' }, { arm = "
                                            "'two', share = 'rest', via = { 'b', 'own' } } }\n"
                                            "route 'x' { to = '*', via = function(r) return ab end }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_decision d;

    (void)state;
    decide(vm, &(struct mail){.to = "x@y.example"}, &d);
    assert_int_equal(d.kind, HKY_DECIDED);
    assert_memory_equal(d.arms, "ab\0two", 7);
    assert_int_equal(d.plan->n_steps, 2);
    decision_fini(&d);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

/* A set is looked through for what stands before and for what stands here. */
static void a_frontier_costs_what_its_sets_cost(void **state)
{
    static struct hky_pattern m;
    char pattern[8100], subject[] = "b";

    (void)state;
    snprintf(pattern, sizeof pattern, "%%f[%08000d]", 0);
    m = (struct hky_pattern){.subject = hky_str_z(subject), .pattern = hky_str_z(pattern), .steps_max = 1000000};
    assert_null(hky_pattern_at(&m, m.subject.p, m.pattern.p));
    assert_null(m.fault);
    assert_true(m.steps >= 3 * 8000 / 8); /* and once to find its end */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_scripts_are_stopped),
        cmocka_unit_test(u19_an_earlier_r_is_refused),
        cmocka_unit_test(a_function_over_budget_ten_times_is_suspended),
        cmocka_unit_test(u16_a_deep_source_is_a_problem),
        cmocka_unit_test(wrong_answers_of_via_are_errors),
        cmocka_unit_test(plans_of_functions_follow_what_the_function_says),
        cmocka_unit_test(split_given_by_a_function),
        cmocka_unit_test(a_frontier_costs_what_its_sets_cost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
