/* Readers of events: numbers, cursors, budgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include <cmocka.h>

#include "rig.h"

static struct hky_loop *loop;
static int n_calls;

static uint64_t min_free;

static struct hky_record *open_record(void)
{
    struct hky_record_params p = {
        .dir = dir, .n_workers = 2, .segment_octets = SEGMENT, .min_free = min_free, .clock = &the_clock};
    struct hky_record *r;
    struct hky_error e;

    assert_int_equal(hky_record_open(&p, &r, &e), HKY_OK);
    return r;
}

/* A loop that runs has called what was posted to it before the record goes. */
static void close_record(struct hky_record **r)
{
    hky_loop_turn(loop, 0);
    hky_record_close(r);
}

static int set_up(void **state)
{
    struct hky_error e;

    return make_dir(state) != 0 || hky_loop_new(&loop, &e) != HKY_OK;
}

static int tear_down(void **state)
{
    hky_loop_free(&loop);
    return remove_dir(state);
}

static void on_ready(void *ctx)
{
    (void)ctx;
    n_calls++;
}

static struct hky_record_reader *open_reader(struct hky_record *r, const char *name, uint64_t lag)
{
    struct hky_record_reader_params p = {.name = name, .loop = loop, .on_ready = on_ready, .lag_octets = lag};
    struct hky_record_reader *reader;
    struct hky_error e;

    assert_int_equal(hky_record_reader_open(r, &p, &reader, &e), HKY_OK);
    return reader;
}

/* All that is there now: how many; their numbers rise. */
static int read_all(struct hky_record_reader *reader, uint64_t *first, uint64_t *last)
{
    struct hky_event_view v[7];
    uint64_t before = 0;
    size_t n;
    int all = 0;

    while ((n = hky_record_reader_read(reader, v, 7)) > 0)
        for (size_t i = 0; i < n; i++, all++) {
            assert_true(v[i].number > before);
            before = v[i].number;
            if (all == 0)
                *first = before;
            *last = before;
        }
    return all;
}

static void an_event_comes_with_its_facts(void **state)
{
    struct hky_rcpt_draft rcpt = {HKY_STR("a..b@docomo.ne.jp"), HKY_STR(""), 0};
    struct hky_message_draft d = {.id = 77, .size = 10, .recipients = &rcpt, .n_recipients = 1};
    struct hky_outcome o = {.class = HKY_CLASS_BLOCKED_IP, .scope = HKY_SCOPE_PATH, .stage = HKY_STAGE_DOT};
    struct hky_record *r = open_record();
    struct hky_record_reader *reader = open_reader(r, "history", 0);
    struct hky_event_view v[2];
    struct hky_message *m;

    (void)state;
    d.facts[HKY_FACT_SCENARIO] = HKY_STR("spring");
    d.facts[HKY_FACT_SENDER] = HKY_STR("news@shop.example");
    m = hky_message_new(&d);
    hky_reply_from_text(&o.reply, HKY_STR("550 5.7.515 blocked"));
    hky_record_event(r, 0,
                     &(struct hky_event){.kind = HKY_EVENT_DEFERRED,
                                         .at_ms = 1764000000123,
                                         .message = m,
                                         .recipient = &m->recipients[0],
                                         .outcome = &o,
                                         .relay = "own",
                                         .next_at_ms = 1764000300000});
    hky_message_unref(&m);
    assert_int_equal(hky_record_reader_read(reader, v, 2), 1);
    assert_int_equal(v[0].number, 1);
    assert_int_equal(v[0].kind, HKY_EVENT_DEFERRED);
    assert_int_equal(v[0].at_ms, 1764000000123);
    assert_int_equal(v[0].value[HKY_EVENT_KEY_ID], 77);
    assert_true(hky_str_eq(v[0].text[HKY_EVENT_KEY_RCPT], HKY_STR("a..b@docomo.ne.jp")));
    assert_true(hky_str_eq(v[0].text[HKY_EVENT_KEY_SCENARIO], HKY_STR("spring")));
    assert_true(hky_str_eq(v[0].text[HKY_EVENT_KEY_RELAY], HKY_STR("own")));
    assert_int_equal(v[0].value[HKY_EVENT_KEY_CODE], 550);
    assert_int_equal(v[0].value[HKY_EVENT_KEY_CLASS], HKY_CLASS_BLOCKED_IP);
    assert_int_equal(v[0].value[HKY_EVENT_KEY_ENHANCED], INT64_C(5) << 32 | 7 << 16 | 515);
    assert_int_equal(v[0].value[HKY_EVENT_KEY_NEXT_AT], 1764000300000);
    assert_false(hky_event_has(&v[0], HKY_EVENT_KEY_SENDER)); /* said once, when it was accepted */
    assert_false(hky_event_has(&v[0], HKY_EVENT_KEY_UNTIL));
    assert_int_equal(hky_record_reader_read(reader, v, 2), 0);
    hky_record_reader_close(&reader);
    close_record(&r);
}

/* What was read and not committed comes again after a restart, what was committed does not. */
static void a_cursor_is_kept(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader *reader = open_reader(r, "history", 0);
    uint64_t first, last;

    (void)state;
    emit(r, 1, 100);
    assert_int_equal(read_all(reader, &first, &last), 100);
    hky_record_reader_commit(reader, 60);
    hky_record_reader_close(&reader);
    close_record(&r);
    r = open_record();
    emit(r, 101, 110);
    reader = open_reader(r, "history", 0);
    assert_int_equal(hky_record_reader_cursor(reader), 60);
    assert_int_equal(read_all(reader, &first, &last), 50);
    assert_int_equal(first, 61);
    assert_int_equal(last, 110);
    assert_int_equal(hky_record_reader_missed(reader), 0);
    hky_record_reader_close(&reader);
    close_record(&r);
}

static void numbers_grow_over_restarts_and_kills(void **state)
{
    struct hky_record *r;
    struct hky_record_reader *reader;
    uint64_t first = 0, last = 0, seen = 0;

    (void)state;
    for (int i = 0; i < 6; i++) {
        if (i % 2 == 0) {
            pid_t pid = fork();
            if (pid == 0) {
                r = open_record();
                emit(r, 1, 50);
                raise(SIGKILL);
            }
            waitpid(pid, NULL, 0);
        } else {
            r = open_record();
            emit(r, 1, 50);
            close_record(&r);
        }
        r = open_record();
        reader = open_reader(r, "history", 0);
        assert_int_equal(read_all(reader, &first, &last), 50);
        assert_int_equal(first, seen + 1);
        assert_int_equal(last, seen + 50);
        hky_record_reader_commit(reader, last);
        seen = last;
        hky_record_reader_close(&reader);
        close_record(&r);
    }
}

/* After a power cut pages may be missing: the numbers that were on them are not used again. */
static void numbers_grow_over_a_power_cut(void **state)
{
    struct hky_record *r;
    struct hky_record_reader *reader;
    uint64_t first = 0, last = 0;
    char command[256];
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        r = open_record();
        emit(r, 1, 50);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    snprintf(command, sizeof command,
             "cd %s/events && rm -f 0 1 2 ../events.jsonl && printf another | dd of=cursors bs=1 seek=16 conv=notrunc "
             "status=none",
             dir);
    assert_int_equal(system(command), 0);
    r = open_record();
    reader = open_reader(r, "history", 0);
    emit(r, 1, 1);
    assert_int_equal(read_all(reader, &first, &last), 1);
    assert_true(first > 50);
    hky_record_reader_close(&reader);
    close_record(&r);
}

/* Reads on and commits; which events there were. */
static void follow(struct hky_record_reader *reader, uint64_t n_of[HKY_EVENT_N])
{
    struct hky_event_view v[64];
    size_t n;

    while ((n = hky_record_reader_read(reader, v, 64)) > 0)
        for (size_t k = 0; k < n; k++) {
            n_of[v[k].kind]++;
            hky_record_reader_commit(reader, v[k].number);
        }
}

static bool was_told(struct hky_record_reader *reader, uint64_t n_of[HKY_EVENT_N])
{
    follow(reader, n_of);
    return n_of[HKY_EVENT_DROPPED] > 0;
}

static bool is_log_written(struct hky_record *r)
{
    uint64_t done = 0;

    pthread_mutex_lock(&r->store.lock);
    for (unsigned i = 0; i < RECORD_NAMES; i++)
        if (strcmp(r->store.cursors->names[i].name, "event_log") == 0)
            done = __atomic_load_n(&r->store.cursors->names[i].done, __ATOMIC_ACQUIRE);
    bool is = done + 1 == r->store.next;
    pthread_mutex_unlock(&r->store.lock);
    return is;
}

/* A reader that has read and committed the last event of a file needs nothing of that file; it stands in it all the
 * same, and goes on from there, however many files come and go meanwhile. */
static void one_at_the_end_of_a_file_goes_on_in_the_next(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader *rests = open_reader(r, "rests", 0), *reads = open_reader(r, "reads", 0);
    struct hky_event_view v;
    uint64_t first, last, end = 0, stood;

    (void)state;
    emit(r, 1, 3000); /* some files */
    assert_int_equal(hky_record_reader_read(rests, &v, 1), 1);
    end = rests->at->head->first + rests->at->n - 1;
    assert_true(end > 1 && end < 3000);
    for (stood = v.number; stood < end; stood = v.number)
        assert_int_equal(hky_record_reader_read(rests, &v, 1), 1);
    hky_record_reader_commit(rests, stood);
    assert_true(read_all(reads, &first, &last) > 0);
    hky_record_reader_commit(reads, last);
    wait_until(is_log_written(r)); /* now nobody needs that file */
    for (int i = 3000; i < 20000; i += 50) {
        wait_until(has_spares(r, RECORD_SPARES));
        emit(r, i + 1, i + 50);
        assert_true(read_all(reads, &first, &last) >= 50);
        hky_record_reader_commit(reads, last);
    }
    assert_int_equal(read_all(rests, &first, &last), 20000 - stood);
    assert_int_equal(first, stood + 1);
    assert_int_equal(last, 20000);
    hky_record_reader_close(&rests);
    hky_record_reader_close(&reads);
    close_record(&r);
}

/* One that reads nothing holds up nobody; it loses the oldest, which is counted and told. */
static void one_that_lags_skips(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader *slow = open_reader(r, "slow", 3 * SEGMENT), *good = open_reader(r, "good", 0);
    struct hky_event_view v;
    uint64_t first, last, n_of[HKY_EVENT_N] = {0}, n_slow, missed;

    (void)state;
    assert_int_equal(hky_record_reader_read(slow, &v, 1), 0);
    for (int i = 0; i < 20000; i += 50) {
        emit(r, i + 1, i + 50);
        follow(good, n_of);
        wait_until(has_spares(r, RECORD_SPARES));
    }
    wait_until(was_told(good, n_of));
    assert_int_equal(n_of[HKY_EVENT_FAILED], 20000);
    assert_int_equal(hky_record_reader_missed(good), 0);
    missed = hky_record_reader_missed(slow);
    assert_true(missed > 1000);
    n_slow = (uint64_t)read_all(slow, &first, &last);
    assert_int_equal(n_slow + missed, last); /* what it did not miss it has */
    hky_record_reader_commit(slow, last);
    hky_record_reader_close(&slow);
    hky_record_reader_close(&good);
    close_record(&r);
    r = open_record();
    slow = open_reader(r, "slow", 0);
    assert_int_equal(hky_record_reader_missed(slow), missed); /* the count is kept with the name */
    hky_record_reader_close(&slow);
    close_record(&r);
}

/* A file whose pages are there already comes before those that have not been written to. */
static void files_that_were_read_are_used_first(void **state)
{
    struct hky_record *r = open_record();
    uint64_t files = 0;

    (void)state;
    for (int round = 0; round < 20; round++) {
        emit(r, 1, SEGMENT / 50);
        wait_until(is_log_written(r));
        pthread_mutex_lock(&r->store.lock);
        files |= UINT64_C(1) << (TAILQ_LAST(&r->store.segments, record_segments)->file % 64);
        pthread_mutex_unlock(&r->store.lock);
    }
    assert_true(__builtin_popcountll(files) >= 2);
    assert_true(__builtin_popcountll(files) <= 6); /* of ten that there are */
    close_record(&r);
}

/* It is called on its own loop, once for many events, and only after it found nothing. */
static void a_reader_is_called(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader *reader = open_reader(r, NULL, 0);
    uint64_t first, last;

    (void)state;
    n_calls = 0;
    hky_loop_turn(loop, 0);
    assert_int_equal(n_calls, 1); /* at the open, for what is there already */
    emit(r, 1, 10);
    hky_loop_turn(loop, 0);
    assert_int_equal(n_calls, 1); /* it has not read yet */
    assert_int_equal(read_all(reader, &first, &last), 10);
    emit(r, 11, 20);
    hky_loop_turn(loop, 1000);
    assert_int_equal(n_calls, 2);
    assert_int_equal(read_all(reader, &first, &last), 10);
    emit(r, 21, 22);
    hky_record_reader_close(&reader);
    hky_loop_turn(loop, 0);
    assert_int_equal(n_calls, 2); /* none after the close */
    close_record(&r);
}

static void a_name_is_open_once_and_names_are_bounded(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader *reader = open_reader(r, "history", 0), *other[40] = {0};
    struct hky_record_reader_params p = {.name = "history", .loop = loop, .on_ready = on_ready};
    struct hky_error e;
    char name[16];
    int n = 0;

    (void)state;
    assert_int_equal(hky_record_reader_open(r, &p, &other[0], &e), HKY_E_STATE);
    p.name = name;
    for (; n < 40; n++) {
        snprintf(name, sizeof name, "r%d", n);
        if (hky_record_reader_open(r, &p, &other[n], &e) != HKY_OK)
            break;
    }
    assert_int_equal(n, 30); /* 32 with the event log and history */
    while (n-- > 0)
        hky_record_reader_close(&other[n]);
    hky_record_reader_close(&reader);
    close_record(&r);
}

/* No room for another file at the start: the old one is gone on with, and what finds no place is counted. */
static void a_start_on_a_full_disk(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader *reader = open_reader(r, "history", 0);
    uint64_t first = 0, last = 0;

    (void)state;
    emit(r, 1, 10);
    hky_record_reader_close(&reader);
    close_record(&r);
    min_free = UINT64_MAX / 4;
    r = open_record();
    min_free = 0;
    emit(r, 11, 5000);
    reader = open_reader(r, "history", 0);
    assert_in_range(read_all(reader, &first, &last), 20, 4000);
    assert_int_equal(first, 1);
    assert_true(hky_record_dropped(r) > 0);
    hky_record_reader_close(&reader);
    close_record(&r);
}

/* A live view goes on behind the number that it has shown. */
static void a_view_begins_where_it_says(void **state)
{
    struct hky_record *r = open_record();
    struct hky_record_reader_params p = {.loop = loop, .on_ready = on_ready, .after = 7};
    struct hky_record_reader *reader;
    struct hky_error e;
    uint64_t first = 0, last = 0;

    (void)state;
    emit(r, 1, 10);
    assert_int_equal(hky_record_reader_open(r, &p, &reader, &e), HKY_OK);
    assert_int_equal(read_all(reader, &first, &last), 3);
    assert_int_equal(first, 8);
    hky_record_reader_close(&reader);
    p.after = 0;
    p.is_from_now = true;
    assert_int_equal(hky_record_reader_open(r, &p, &reader, &e), HKY_OK);
    assert_int_equal(read_all(reader, &first, &last), 0);
    emit(r, 11, 11);
    assert_int_equal(read_all(reader, &first, &last), 1);
    assert_int_equal(first, 11);
    hky_record_reader_close(&reader);
    close_record(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_event_comes_with_its_facts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cursor_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_grow_over_restarts_and_kills, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_grow_over_a_power_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_at_the_end_of_a_file_goes_on_in_the_next, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_lags_skips, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_that_were_read_are_used_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reader_is_called, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_is_open_once_and_names_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_start_on_a_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_view_begins_where_it_says, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
