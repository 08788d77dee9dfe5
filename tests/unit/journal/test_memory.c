/* The journal in memory keeps the contract of the one on disk, as far as a submitter can see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hikyaku/journal_memory.h"

struct told {
    struct hky_commit commit;
    unsigned n;
    bool has_token;
    enum hky_err result;
};

static void on_done(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    struct told *t = HKY_CONTAINER(c, struct told, commit);
    t->n++;
    t->has_token = durable != NULL;
    t->result = result;
}

static struct hky_message *message_of(const char *text)
{
    struct hky_rcpt_draft rcpt = {.address = HKY_STR("a@example.com")};
    struct hky_message_draft d = {
        .id = 7, .size = strlen(text), .header_octets = 14, .recipients = &rcpt, .n_recipients = 1};
    struct hky_message *m = hky_message_new(&d);
    m->body = hky_body_new(strdup(text), strlen(text), strlen(text) + 1);
    return m;
}

static void a_commit_is_told_in_a_later_turn(void **state)
{
    struct hky_journal *j = hky_journal_memory_new();
    struct hky_message *m = message_of("Subject: a\r\n\r\nbody\r\n");
    struct told told = {.commit.done = on_done};
    struct hky_journal_stats stats;
    struct hky_loop *loop;
    struct hky_error e;
    (void)state;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    told.commit.loop = loop;
    hky_journal_accept(j, m, &told.commit);
    assert_int_equal(told.n, 0); /* never from inside */
    hky_loop_turn(loop, 0);
    assert_true(told.n == 1 && told.has_token && told.result == HKY_OK);

    hky_journal_memory_set_health(j, HKY_E_IO);
    assert_int_equal(hky_journal_room(j, 10), HKY_E_IO);
    hky_journal_accept(j, m, &told.commit);
    hky_loop_turn(loop, 0);
    assert_true(told.n == 2 && !told.has_token && told.result == HKY_E_IO);
    hky_journal_stats(j, &stats);
    assert_int_equal(stats.accepts, 2);
    assert_int_equal(stats.write_errors, 1);

    hky_journal_close(&j);
    assert_null(j);
    hky_message_unref(&m);
    hky_loop_free(&loop);
}

static void header_and_body_come_from_the_message(void **state)
{
    struct hky_journal *j = hky_journal_memory_new();
    struct hky_message *m = message_of("Subject: a\r\n\r\nbody\r\n");
    struct hky_body_read read = {.message = m, .at = 14};
    struct hky_body *body;
    struct hky_str header;
    (void)state;
    assert_true(hky_journal_header(j, m, &body, &header));
    assert_true(hky_str_eq(header, HKY_STR("Subject: a\r\n\r\n")));
    hky_body_unref(&body);
    hky_journal_body_drop(j, m);
    assert_true(hky_journal_body(j, &read));
    assert_true(read.result == HKY_OK && hky_str_eq(hky_str_of(read.p, read.n), HKY_STR("body\r\n")));
    hky_body_read_release(&read);
    read.at = m->size;
    assert_true(hky_journal_body(j, &read));
    assert_int_equal(read.n, 0);
    hky_body_read_release(&read);
    assert_int_equal(hky_journal_room(j, HKY_BIG_BODY + 1), HKY_E_FULL);
    hky_journal_close(&j);
    hky_message_unref(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_is_told_in_a_later_turn),
        cmocka_unit_test(header_and_body_come_from_the_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
