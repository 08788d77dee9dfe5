/* Files that policies and rows name: which are read, which never, and what is told of them. */
#include "fixture.h"

#include "support/wait.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define KEY_LINE "s3cr3t-key-line"

static void folder_make(struct folder *f)
{
    char path[200];

    folder_open(f);
    snprintf(path, sizeof path, "%s/secrets", f->path);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/lists", f->path);
    assert_int_equal(mkdir(path, 0700), 0);
    folder_write(f, "secrets/gmail", KEY_LINE "\n");
    folder_write(f, "lists/vip.txt", "x.example\n");
}

static void link_to(const struct folder *f, const char *to, const char *name)
{
    char path[200];

    snprintf(path, sizeof path, "%s/%s", f->path, name);
    assert_int_equal(symlink(to, path), 0);
}

/* Every problem of the policy of `f` as one text; it must have errors. */
static void problems_of(const struct folder *f, char out[4000])
{
    struct hky_problems problems = {0};
    struct hky_policy *p = load_folder(f, &problems);
    size_t n = 0;

    out[0] = 0;
    for (size_t i = 0; i < problems.n; i++)
        n += (size_t)snprintf(out + n, 4000 - n, "%s:%u: %s\n", problems.items[i].place.file,
                              problems.items[i].place.line, problems.items[i].text);
    if (p != NULL)
        fail_msg("it loads: %s", out);
    hky_problems_fini(&problems);
}

/* A name of a file in each place where a policy or its rows can name one. */
static const char *const places[] = {
    RELAYS "route 'r' { to = list '%s', via = 'a' }",
    RELAYS "rows { { name = 'r', host = 'h.example', to = '@list/%s' } }",
    RELAYS "include '%s'",
    RELAYS "rows '%s'",
};

static void refused_everywhere(const struct folder *f, const char *name, const char *why)
{
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char policy[600], said[4000];
        int64_t begun_ms = wait_now_ms();
        snprintf(policy, sizeof policy, places[i], name, name);
        folder_write(f, "policy.lua", policy);
        problems_of(f, said);
        if (strstr(said, why) == NULL)
            fail_msg("%s as %s: said \"%s\", not \"%s\"", name, policy, said, why);
        if (strstr(said, KEY_LINE) != NULL)
            fail_msg("%s as %s: tells the secret: %s", name, policy, said);
        assert_true(wait_now_ms() - begun_ms < WAIT_MOST_SEC * 1000);
    }
}

static void secrets_are_no_lists_rows_or_scripts(void **state)
{
    struct folder f;

    (void)state;
    folder_make(&f);
    link_to(&f, "secrets/gmail", "inside.txt");
    link_to(&f, "../secrets", "lists/more");
    refused_everywhere(&f, "secrets/gmail", "by secret \"name\" only");
    refused_everywhere(&f, "./secrets/gmail", "by secret \"name\" only");
    refused_everywhere(&f, "secrets//gmail", "by secret \"name\" only");
    refused_everywhere(&f, "inside.txt", "by secret \"name\" only");
    refused_everywhere(&f, "lists/more/gmail", "by secret \"name\" only");
    refused_everywhere(&f, "lists/../secrets/gmail", "inside the policy's folder");
    folder_close(&f);
}

static void a_folder_of_secrets_that_is_a_link_is_one(void **state)
{
    struct folder f;
    char from[200], to[200];

    (void)state;
    folder_make(&f);
    snprintf(from, sizeof from, "%s/secrets", f.path);
    snprintf(to, sizeof to, "%s/kept", f.path);
    assert_int_equal(rename(from, to), 0);
    link_to(&f, "kept", "secrets");
    refused_everywhere(&f, "kept/gmail", "by secret \"name\" only");
    refused_everywhere(&f, "secrets/gmail", "by secret \"name\" only");
    folder_close(&f);
}

static void files_outside_are_not_read(void **state)
{
    struct folder f;

    (void)state;
    folder_make(&f);
    link_to(&f, "/etc/passwd", "absolute.txt");
    link_to(&f, "../../../../etc/passwd", "relative.txt");
    link_to(&f, "/etc", "lists/etc");
    link_to(&f, "/proc/self/root/etc/passwd", "magic.txt");
    link_to(&f, "loop.txt", "loop.txt");
    refused_everywhere(&f, "absolute.txt", "leads out of the policy's folder");
    refused_everywhere(&f, "relative.txt", "leads out of the policy's folder");
    refused_everywhere(&f, "lists/etc/passwd", "leads out of the policy's folder");
    refused_everywhere(&f, "magic.txt", "leads out of the policy's folder");
    refused_everywhere(&f, "loop.txt", "leads out of the policy's folder");
    refused_everywhere(&f, "/etc/passwd", "inside the policy's folder");
    refused_everywhere(&f, "..", "inside the policy's folder");
    refused_everywhere(&f, "lists/../../x", "inside the policy's folder");
    folder_close(&f);
}

static void what_is_no_file_is_not_waited_for(void **state)
{
    struct folder f;
    char path[200];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), huge;

    (void)state;
    folder_make(&f);
    snprintf(path, sizeof path, "%s/pipe", f.path);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(at.sun_path, sizeof at.sun_path, "%s/socket", f.path);
    assert_int_equal(bind(s, (struct sockaddr *)&at, sizeof at), 0);
    snprintf(path, sizeof path, "%s/huge", f.path);
    huge = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(huge, (off_t)1 << 40), 0);
    close(huge);
    refused_everywhere(&f, "pipe", "it is not a regular file");
    refused_everywhere(&f, "socket", "it is not a regular file");
    refused_everywhere(&f, "lists", "it is not a regular file");
    refused_everywhere(&f, "huge", "the file is larger than");
    close(s);
    folder_close(&f);
}

static void lines_of_a_list_are_not_shown(void **state)
{
    static const char *const bad[] = {
        KEY_LINE " x", "*@" KEY_LINE ".example", KEY_LINE "*@x.example", "<" KEY_LINE ">", KEY_LINE "@", "@" KEY_LINE};
    struct folder f;
    char said[4000];

    (void)state;
    folder_make(&f);
    folder_write(&f, "policy.lua", RELAYS "rows { { name = 'r', host = 'h.example', to = '@list/keys' } }");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[200];
        snprintf(text, sizeof text, "x.example\n%s\n", bad[i]);
        folder_write(&f, "keys", text);
        problems_of(&f, said);
        if (strstr(said, "keys:2: ") == NULL || strstr(said, KEY_LINE) != NULL)
            fail_msg("\"%s\": %s", bad[i], said);
    }
    folder_close(&f);
}

static void links_inside_the_folder_are_followed(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;

    (void)state;
    folder_make(&f);
    link_to(&f, "lists/vip.txt", "vip.txt");
    link_to(&f, "../lists", "lists/same");
    folder_write(&f, "policy.lua",
                 RELAYS "route 'r' { to = { list 'vip.txt', list 'lists/same/vip.txt', '*' }, via = 'a' }");
    p = load_folder(&f, &problems);
    problems_print(&problems);
    assert_non_null(p);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

/* --- lists without entries --- */

static void a_list_without_entries_warns_where_it_stops_mail(void **state)
{
    static const struct {
        const char *policy, *text, *warning; /* "" none */
    } cases[] = {
        {"engine { only_to = list 'l.txt' } route 'r' { to = '*', via = 'a' }", "",
         "engine: only_to: the file \"l.txt\" has no entries, so that all mail is held"},
        {"route 'r' { to = list 'l.txt', via = 'a' } route 'rest' { to = '*', via = 'a' }", "# none yet\n",
         "route \"r\": to: the file \"l.txt\" has no entries, so that nobody matches it"},
        {"route 'r' { to = { list 'l.txt', list 'm.txt' }, via = 'a' } route 'rest' { to = '*', via = 'a' }", "",
         "route \"r\": to: the file \"l.txt\" and the other lists have no entries"},
        {"rows { { name = 'r', relay = 'a', to = '*', sender = list 'l.txt' } } route 'rest' { to = '*', via = 'a' }",
         "\n", "row \"r\": sender: the file \"l.txt\" has no entries"},
        {"route 'r' { to = '*', author = list 'l.txt', via = 'a' } route 'rest' { to = '*', via = 'a' }", "",
         "route \"r\": author: the file"},
        {"route 'r' { to = '*', except = list 'l.txt', via = 'a' } route 'rest' { to = '*', via = 'a' }", "", ""},
        {"route 'r' { to = { list 'l.txt', 'x.example' }, via = 'a' } route 'rest' { to = '*', via = 'a' }", "", ""},
        {"engine { only_to = { 'x.example', list 'l.txt' } } route 'r' { to = '*', via = 'a' }", "", ""},
        {"route 'r' { to = '*', sender = list 'l.txt', via = 'a' } route 'rest' { to = '*', via = 'a' }", "<>\n", ""},
        {"route 'r' { to = list 'l.txt', via = 'a' } route 'rest' { to = '*', via = 'a' }", "x.example\n", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        char text[1000];

        folder_open(&f);
        snprintf(text, sizeof text, RELAYS "%s", cases[i].policy);
        folder_write(&f, "policy.lua", text);
        folder_write(&f, "l.txt", cases[i].text);
        folder_write(&f, "m.txt", "");
        p = load_folder(&f, &problems);
        problems_print(&problems);
        assert_non_null(p);
        assert_int_equal(problems.n, cases[i].warning[0] != '\0');
        if (problems.n > 0) {
            assert_int_equal(problems.items[0].level, HKY_PROBLEM_WARNING);
            assert_ptr_equal(strstr(problems.items[0].text, cases[i].warning), problems.items[0].text);
            assert_true(problems.items[0].place.line > 0);
        }
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

/* --- lists that change --- */

struct lists {
    struct folder f;
    struct hky_problems problems;
    struct hky_policy *p;
    struct hky_lists_news news;
};

static void lists_open(struct lists *l, const char *text)
{
    *l = (struct lists){0};
    folder_open(&l->f);
    folder_write(&l->f, "policy.lua",
                 "engine { only_to = list 'vip.txt' }\n" RELAYS "route 'r' { to = '*', via = 'a' }");
    folder_write(&l->f, "vip.txt", text);
    l->p = load_folder(&l->f, &l->problems);
    assert_non_null(l->p);
}

static void lists_close(struct lists *l)
{
    hky_policy_unref(&l->p);
    hky_problems_fini(&l->problems);
    folder_close(&l->f);
}

static bool is_on(const struct lists *l, const char *address)
{
    struct hky_message *m = message_of(&(struct mail){.to = address});
    bool is = l->p->engine.reaches(l->p, &m->recipients[0]);

    hky_message_unref(&m);
    return is;
}

static unsigned look(struct lists *l, int64_t mono_ms)
{
    hky_policy_refresh_lists(l->p, mono_ms, &l->news);
    return l->news.n_taken;
}

static void a_list_that_is_being_written_does_not_count(void **state)
{
    struct lists l;

    (void)state;
    lists_open(&l, "one.example\ntwo.example\nthree.example\n");
    assert_int_equal(look(&l, 0), 0);
    folder_write(&l.f, "vip.txt", "one.example\ntwo.example\n"); /* in place: the rest is to come */
    assert_int_equal(look(&l, 1000), 0);
    assert_int_equal(l.news.n_waiting, 1);
    assert_true(is_on(&l, "u@three.example"));
    folder_write(&l.f, "vip.txt", "one.example\ntwo.example\nthree.example\nfour.example\n");
    assert_int_equal(look(&l, 4000), 0); /* another one than before: it has to be still once more */
    assert_int_equal(look(&l, 5000), 0);
    assert_true(is_on(&l, "u@three.example") && !is_on(&l, "u@four.example"));
    assert_int_equal(look(&l, 6000), 1);
    assert_true(is_on(&l, "u@three.example") && is_on(&l, "u@four.example"));
    assert_int_equal(look(&l, 7000), 0);
    assert_int_equal(l.news.n_waiting, 0);
    lists_close(&l);
}

static void octets_count_where_time_and_size_stay(void **state)
{
    struct lists l;
    struct timespec times[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000}};
    char path[200];

    (void)state;
    lists_open(&l, "one.example\ntwo.example\n");
    snprintf(path, sizeof path, "%s/vip.txt", l.f.path);
    folder_write(&l.f, "vip.txt", "six.example\ntwo.example\n");
    utimensat(AT_FDCWD, path, times, 0);
    assert_int_equal(look(&l, 0), 0);
    folder_write(&l.f, "vip.txt", "one.example\nsix.example\n");
    utimensat(AT_FDCWD, path, times, 0);
    assert_int_equal(look(&l, 3000), 0); /* the same file, other octets */
    assert_int_equal(look(&l, 6000), 1);
    assert_true(is_on(&l, "u@one.example") && is_on(&l, "u@six.example") && !is_on(&l, "u@two.example"));
    lists_close(&l);
}

static void a_list_that_shrinks_by_more_than_half_warns(void **state)
{
    struct lists l;

    (void)state;
    lists_open(&l, "one.example\ntwo.example\nthree.example\nfour.example\n");
    folder_write(&l.f, "vip.txt", "one.example\n");
    assert_int_equal(look(&l, 0), 0);
    assert_int_equal(look(&l, 3000), 0);
    assert_int_equal(l.news.n_waiting, 1);
    assert_non_null(strstr(l.news.warning.text, "vip.txt has lost more than half of its entries (1 are left of 4)"));
    assert_true(is_on(&l, "u@two.example"));
    assert_int_equal(look(&l, 4000), 0);
    assert_int_equal(l.news.warning.code, HKY_OK); /* once a change */
    assert_int_equal(look(&l, 15000), 1);
    assert_false(is_on(&l, "u@two.example"));
    folder_write(&l.f, "vip.txt", "");
    (void)look(&l, 20000);
    (void)look(&l, 22000);
    assert_non_null(strstr(l.news.warning.text, "0 are left of 1"));
    lists_close(&l);
}

/* Written in place it may be written slowly; renamed to its place it is whole. */
static void a_list_that_shrinks_in_place_waits_longer(void **state)
{
    struct lists l;
    char from[200], to[200];

    (void)state;
    lists_open(&l, "one.example\ntwo.example\nthree.example\nfour.example\n");
    folder_write(&l.f, "vip.txt", "one.example\ntwo.example\nthree.example\n");
    (void)look(&l, 0);
    assert_int_equal(look(&l, 14000), 0);
    assert_true(is_on(&l, "u@four.example"));
    assert_int_equal(l.news.warning.code, HKY_OK); /* it is not half of it */
    assert_int_equal(look(&l, 15000), 1);
    assert_false(is_on(&l, "u@four.example"));
    assert_string_equal(l.news.fewer.text, "vip.txt has 3 entries, 4 before");
    folder_write(&l.f, "vip.txt", "one.example\ntwo.example\nthree.exa");
    (void)look(&l, 20000);
    assert_int_equal(look(&l, 30000), 0);
    assert_true(is_on(&l, "u@three.example")); /* its last line may be the beginning of another one */
    snprintf(from, sizeof from, "%s/new.txt", l.f.path);
    snprintf(to, sizeof to, "%s/vip.txt", l.f.path);
    folder_write(&l.f, "new.txt", "one.example\ntwo.example\n");
    assert_int_equal(rename(from, to), 0);
    (void)look(&l, 40000);
    assert_int_equal(look(&l, 42000), 1);
    assert_string_equal(l.news.fewer.text, "vip.txt has 2 entries, 3 before");
    folder_write(&l.f, "vip.txt", "one.example\ntwo.example\nthree.example\n");
    (void)look(&l, 50000);
    assert_int_equal(look(&l, 52000), 1);
    assert_int_equal(l.news.fewer.code, HKY_OK); /* it grew */
    lists_close(&l);
}

/* --- lists whose files change while the policy is loaded again --- */

/* The policy is loaded again as a reload does it: at `mono_ms`, and `after_ms` later than now by the time of day. */
static unsigned reload(struct lists *l, int64_t mono_ms, int64_t after_ms)
{
    struct hky_policy *before = l->p;
    const char *first;
    unsigned n;

    l->p = load_folder(&l->f, &l->problems);
    assert_non_null(l->p);
    n = hky_policy_succeed_lists(l->p, before, mono_ms, hky_clock_now_ms(&HKY_CLOCK_REAL) + after_ms, &first);
    if (n > 0)
        assert_string_equal(first, "vip.txt");
    else
        assert_null(first);
    hky_policy_unref(&before);
    return n;
}

static const char three[] = "one.example\ntwo.example\nthree.example\n";

static void a_reload_takes_no_half_written_list(void **state)
{
    static const struct {
        const char *before, *text;
        bool is_renamed;
        int64_t counts_after_ms; /* 0: at once */
    } cases[] = {
        {three, "", false, 15000},
        {three, "one.example\n", false, 15000},
        {three, "one.example\n", true, 15000},
        {three, "one.example\ntwo.example\n", false, 15000},
        {three, "one.example\ntwo.example\n", true, 2000},
        {three, "one.example\nfour.example\nfive.example\nsix.example\n", false, 2000},
        {three, "one.example\ntwo.example\nthree.example\nfour.exam", false, 15000},
        {three, "one.example\ntwo.example\nthree.example\nfour.exam", true, 2000},
        {three, "four.example\nthree.example\ntwo.example\none.example\n", false, 0},
        {three, "# of today\none.example\ntwo.example\nthree.example\n", false, 0},
        {"", "one.example\ntwo.example\n", false, 0},
        {"u@one.example\n", "one.example\n", false, 0},
        {"one.example\n", "u@one.example\n", false, 2000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lists l;
        char from[200], to[200];
        bool had = cases[i].before == three, has = strstr(cases[i].text, "three.example") != NULL;

        lists_open(&l, cases[i].before);
        assert_int_equal(look(&l, 0), 0);
        folder_write(&l.f, cases[i].is_renamed ? "new.txt" : "vip.txt", cases[i].text);
        snprintf(from, sizeof from, "%s/new.txt", l.f.path);
        snprintf(to, sizeof to, "%s/vip.txt", l.f.path);
        if (cases[i].is_renamed)
            assert_int_equal(rename(from, to), 0);
        if (reload(&l, 1000, 0) != (cases[i].counts_after_ms > 0))
            fail_msg("case %zu: the list %s", i, cases[i].counts_after_ms > 0 ? "counts at once" : "waits");
        if (cases[i].counts_after_ms > 0) {
            assert_int_equal(is_on(&l, "u@three.example"), had);
            assert_int_equal(look(&l, 1000 + cases[i].counts_after_ms - 1), 0);
            assert_int_equal(l.news.n_waiting, 1);
            assert_int_equal(is_on(&l, "u@three.example"), had);
            if (look(&l, 1000 + cases[i].counts_after_ms) != 1)
                fail_msg("case %zu: the list does not count after %d ms", i, (int)cases[i].counts_after_ms);
        }
        assert_int_equal(is_on(&l, "u@three.example"), has);
        assert_int_equal(look(&l, 60000), 0);
        assert_int_equal(l.news.n_waiting, 0);
        lists_close(&l);
    }
}

static void a_list_that_has_been_still_counts_at_a_reload(void **state)
{
    struct lists l;

    (void)state;
    lists_open(&l, three);
    folder_write(&l.f, "vip.txt", "four.example\nfive.example\nsix.example\n");
    assert_int_equal(reload(&l, 0, 1500), 1);
    assert_true(is_on(&l, "u@three.example") && !is_on(&l, "u@four.example"));
    assert_int_equal(reload(&l, 500, 2500), 0); /* unchanged for two seconds by its times */
    assert_true(!is_on(&l, "u@three.example") && is_on(&l, "u@four.example"));
    folder_write(&l.f, "vip.txt", "");
    assert_int_equal(reload(&l, 10000, 14000), 1);
    assert_true(is_on(&l, "u@four.example"));
    assert_int_equal(reload(&l, 10500, 16000), 0);
    assert_false(is_on(&l, "u@four.example"));
    lists_close(&l);
}

/* Reloads one after the other put the change off no further than the first look at it. */
static void reloads_do_not_put_a_change_of_a_list_off(void **state)
{
    struct lists l;

    (void)state;
    lists_open(&l, three);
    folder_write(&l.f, "vip.txt", "one.example\n");
    assert_int_equal(look(&l, 0), 0);
    assert_int_equal(reload(&l, 1000, 0), 1);
    assert_int_equal(look(&l, 3000), 0);
    assert_non_null(strstr(l.news.warning.text, "vip.txt has lost more than half of its entries"));
    assert_int_equal(reload(&l, 14000, 0), 1);
    assert_int_equal(look(&l, 14500), 0);
    assert_int_equal(l.news.warning.code, HKY_OK); /* once a change */
    assert_int_equal(look(&l, 15000), 1);
    assert_false(is_on(&l, "u@two.example"));
    folder_write(&l.f, "vip.txt", "five.example\n"); /* and back to what counts */
    assert_int_equal(reload(&l, 20000, 0), 1);
    folder_write(&l.f, "vip.txt", "one.example\n");
    assert_int_equal(reload(&l, 21000, 0), 0);
    assert_int_equal(look(&l, 22000), 0);
    assert_int_equal(l.news.n_waiting, 0);
    assert_true(is_on(&l, "u@one.example"));
    lists_close(&l);
}

static void a_list_that_becomes_a_secret_is_not_read(void **state)
{
    struct lists l;
    char path[200];

    (void)state;
    lists_open(&l, "one.example\n");
    snprintf(path, sizeof path, "%s/secrets", l.f.path);
    assert_int_equal(mkdir(path, 0700), 0);
    folder_write(&l.f, "secrets/gmail", "two.example\n");
    snprintf(path, sizeof path, "%s/vip.txt", l.f.path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(look(&l, 0), 0);
    assert_non_null(strstr(l.news.error.text, "vip.txt: no such file"));
    link_to(&l.f, "secrets/gmail", "vip.txt");
    assert_int_equal(look(&l, 60000), 0);
    assert_non_null(strstr(l.news.error.text, "by secret \"name\" only"));
    assert_true(is_on(&l, "u@one.example") && !is_on(&l, "u@two.example"));
    lists_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_no_lists_rows_or_scripts),
        cmocka_unit_test(a_folder_of_secrets_that_is_a_link_is_one),
        cmocka_unit_test(files_outside_are_not_read),
        cmocka_unit_test(what_is_no_file_is_not_waited_for),
        cmocka_unit_test(lines_of_a_list_are_not_shown),
        cmocka_unit_test(links_inside_the_folder_are_followed),
        cmocka_unit_test(a_list_without_entries_warns_where_it_stops_mail),
        cmocka_unit_test(a_list_that_is_being_written_does_not_count),
        cmocka_unit_test(octets_count_where_time_and_size_stay),
        cmocka_unit_test(a_list_that_shrinks_by_more_than_half_warns),
        cmocka_unit_test(a_list_that_shrinks_in_place_waits_longer),
        cmocka_unit_test(a_reload_takes_no_half_written_list),
        cmocka_unit_test(a_list_that_has_been_still_counts_at_a_reload),
        cmocka_unit_test(reloads_do_not_put_a_change_of_a_list_off),
        cmocka_unit_test(a_list_that_becomes_a_secret_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
