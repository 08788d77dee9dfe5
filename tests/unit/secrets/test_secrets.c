/* The store of secrets, with readings that the test lets go on. */
#include "hikyaku/secrets.h"

#include "base/clock.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define PATIENCE_MS 20000

struct rig {
    struct hky_loop *loop;
    struct hky_secrets *secrets;
    struct hky_policy policy;
    atomic_int n_read;   /* readings that have begun: the next secret is "1", "2", ... */
    atomic_bool is_shut; /* readings of the key "slow" wait until this is false, or until the end */
    bool fails;
};

struct asker {
    char secret[40]; /* "-" and the error's text when there is none */
    bool is_told;
};

static void read_one(void *ctx, struct hky_secret_reading *r, const atomic_bool *is_over)
{
    struct rig *rig = ctx;
    char text[20];

    snprintf(text, sizeof text, "%d", atomic_fetch_add(&rig->n_read, 1) + 1);
    while (hky_str_eq(r->key, HKY_STR("slow")) && atomic_load(&rig->is_shut) && !atomic_load(is_over))
        poll(NULL, 0, 1);
    if (rig->fails)
        hky_error_set(&r->error, HKY_E_MISSING, "no secret %s", text);
    else
        r->found = hky_secret_new(hky_str_z(text));
}

static void on_secret(void *arg, struct hky_secret *s, const struct hky_error *e)
{
    struct asker *a = arg;

    assert_false(a->is_told);
    a->is_told = true;
    if (s != NULL)
        snprintf(a->secret, sizeof a->secret, HKY_STR_FMT, HKY_STR_ARG(hky_secret_value(s)));
    else
        snprintf(a->secret, sizeof a->secret, "-%.30s", e->text);
    hky_secret_unref(&s);
}

static void open_rig(struct rig *rig)
{
    struct hky_secrets_ops ops = {.ctx = rig, .read = read_one};
    struct hky_error e;

    *rig = (struct rig){.policy = {.refs = 100}};
    assert_int_equal(hky_loop_new(&rig->loop, &e), HKY_OK);
    assert_int_equal(hky_secrets_new(rig->loop, 2, &ops, &rig->secrets, &e), HKY_OK);
}

static void close_rig(struct rig *rig)
{
    hky_secrets_stop(rig->secrets);
    hky_loop_free(&rig->loop);
    hky_secrets_free(&rig->secrets);
    assert_int_equal(rig->policy.refs, 100);
}

static void ask(struct rig *rig, const char *key, const char *refused, struct asker *a)
{
    struct hky_secret *old = refused != NULL ? hky_secret_new(hky_str_z(refused)) : NULL;

    *a = (struct asker){0};
    hky_secrets_ask(rig->secrets, &(struct hky_secrets_question){.key = hky_str_z(key),
                                                                 .policy = &rig->policy,
                                                                 .refused = old,
                                                                 .loop = rig->loop,
                                                                 .done = on_secret,
                                                                 .arg = a});
    hky_secret_unref(&old);
}

static void wait_for(struct rig *rig, const struct asker *a)
{
    for (int64_t until = hky_mono_ms() + PATIENCE_MS; !a->is_told && hky_mono_ms() < until;)
        hky_loop_turn(rig->loop, 5);
    assert_true(a->is_told);
}

/* Until the questions have arrived, and the reading has begun. */
static void wait_for_reading(struct rig *rig, int n)
{
    for (int64_t until = hky_mono_ms() + PATIENCE_MS; atomic_load(&rig->n_read) < n && hky_mono_ms() < until;)
        hky_loop_turn(rig->loop, 5);
    assert_int_equal(atomic_load(&rig->n_read), n);
}

static void those_who_ask_for_the_same_are_answered_by_one_reading(void **state)
{
    struct asker a[5], other;
    struct rig rig;

    (void)state;
    open_rig(&rig);
    rig.is_shut = true;
    for (int i = 0; i < 5; i++)
        ask(&rig, "slow", NULL, &a[i]);
    wait_for_reading(&rig, 1);
    ask(&rig, "other", NULL, &other); /* one that hangs holds up no other */
    wait_for(&rig, &other);
    assert_string_equal(other.secret, "2");
    rig.is_shut = false;
    for (int i = 0; i < 5; i++) {
        wait_for(&rig, &a[i]);
        assert_string_equal(a[i].secret, "1");
    }
    assert_int_equal(rig.n_read, 2);
    close_rig(&rig);
}

static void what_was_read_is_remembered_until_it_is_refused_or_forgotten(void **state)
{
    static const struct {
        const char *name, *refused, *secret;
        bool fails, is_forgotten;
    } CASES[] = {
        {"the first", NULL, "1"},
        {"remembered", NULL, "1"},
        {"refused: read again", "1", "2"},
        {"another was refused the old one", "1", "2"},
        {"a failure", "2", "-no secret 3", .fails = true},
        {"is not remembered", NULL, "4"},
        {"forgotten", NULL, "5", .is_forgotten = true},
    };
    struct asker a;
    struct rig rig;

    (void)state;
    open_rig(&rig);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        rig.fails = CASES[i].fails;
        if (CASES[i].is_forgotten)
            hky_secrets_forget(rig.secrets);
        ask(&rig, "key", CASES[i].refused, &a);
        wait_for(&rig, &a);
        if (strcmp(a.secret, CASES[i].secret) != 0)
            fail_msg("%s: %s", CASES[i].name, a.secret);
    }
    close_rig(&rig);
}

static void who_waits_is_answered_though_it_was_forgotten_meanwhile(void **state)
{
    struct asker first, second;
    struct rig rig;

    (void)state;
    open_rig(&rig);
    rig.is_shut = true;
    ask(&rig, "slow", NULL, &first);
    wait_for_reading(&rig, 1);
    hky_secrets_forget(rig.secrets);
    ask(&rig, "slow", NULL, &second); /* after a reload: not by the reading that began before it */
    wait_for_reading(&rig, 2);
    rig.is_shut = false;
    wait_for(&rig, &first);
    wait_for(&rig, &second);
    assert_string_not_equal(first.secret, second.secret);
    close_rig(&rig);
}

static void a_secret_of_the_policy_itself_waits_for_no_reading(void **state)
{
    const struct hky_secret_ref literal = {.literal = "open sesame"}, none = {0};
    struct asker hung[3], a, b = {0};
    struct rig rig;

    (void)state;
    open_rig(&rig);
    rig.is_shut = true;
    for (int i = 0; i < 3; i++)
        ask(&rig, "slow", NULL, &hung[i]);
    a = (struct asker){0};
    hky_secrets_give(
        rig.secrets,
        &(struct hky_secrets_question){.policy = &rig.policy, .loop = rig.loop, .done = on_secret, .arg = &a},
        &literal);
    hky_secrets_give(
        rig.secrets,
        &(struct hky_secrets_question){.policy = &rig.policy, .loop = rig.loop, .done = on_secret, .arg = &b}, &none);
    wait_for(&rig, &a);
    wait_for(&rig, &b);
    assert_string_equal(a.secret, "open sesame");
    assert_int_equal(b.secret[0], '-');
    wait_for_reading(&rig, 1);
    close_rig(&rig); /* the command that hangs is given up, and those who wait for it are never told */
    assert_false(hung[0].is_told || hung[1].is_told || hung[2].is_told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_who_ask_for_the_same_are_answered_by_one_reading),
        cmocka_unit_test(what_was_read_is_remembered_until_it_is_refused_or_forgotten),
        cmocka_unit_test(who_waits_is_answered_though_it_was_forgotten_meanwhile),
        cmocka_unit_test(a_secret_of_the_policy_itself_waits_for_no_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
