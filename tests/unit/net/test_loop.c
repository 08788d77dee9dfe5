#include "base/clock.h"
#include "net/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/wait.h"

struct counted {
    struct hky_task task;
    struct hky_loop *loop;
    unsigned id, *log, *n_log;
    bool again;
};

static void on_task(struct hky_task *task)
{
    struct counted *c = HKY_CONTAINER(task, struct counted, task);
    c->log[(*c->n_log)++] = c->id;
    if (c->again) {
        c->again = false;
        hky_loop_defer(c->loop, task);
    }
}

static struct hky_loop *loop_new(void)
{
    struct hky_loop *loop = NULL;
    struct hky_error e;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    return loop;
}

static void tasks_run_in_the_order_posted(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    unsigned log[8], n = 0;
    struct counted c[3];
    for (unsigned i = 0; i < 3; i++) {
        c[i] = (struct counted){.task = {.run = on_task}, .id = i, .log = log, .n_log = &n};
        hky_loop_post(loop, &c[i].task);
    }
    assert_int_equal(n, 0);
    hky_loop_turn(loop, 0);
    assert_int_equal(n, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(log[i], i);
    hky_loop_free(&loop);
    assert_null(loop);
}

static void a_deferred_task_runs_after_posted_ones_and_may_defer_again(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    unsigned log[8], n = 0;
    struct counted late = {.task = {.run = on_task}, .loop = loop, .id = 2, .log = log, .n_log = &n, .again = true};
    struct counted early = {.task = {.run = on_task}, .id = 1, .log = log, .n_log = &n};
    hky_loop_defer(loop, &late.task);
    hky_loop_post(loop, &early.task);
    hky_loop_turn(loop, 1000);
    assert_int_equal(n, 3);
    assert_int_equal(log[0], 1);
    assert_int_equal(log[1], 2);
    assert_int_equal(log[2], 2);
    hky_loop_free(&loop);
}

enum { POSTS = 20000 };
struct receiver {
    struct hky_loop *loop;
    unsigned n, last;
    bool is_ordered, is_mine;
};
struct letter {
    struct hky_task task;
    struct receiver *to;
    unsigned id;
};

static void on_letter(struct hky_task *task)
{
    struct letter *l = HKY_CONTAINER(task, struct letter, task);
    struct receiver *r = l->to;
    r->is_ordered = r->is_ordered && (r->n == 0 || l->id == r->last + 1);
    r->is_mine = r->is_mine && hky_loop_is_mine(r->loop);
    r->last = l->id;
    r->n++;
}

static void *runner(void *arg)
{
    hky_loop_run(((struct receiver *)arg)->loop);
    return NULL;
}

static void another_thread_posts_and_stop_comes_after_what_was_posted(void **state)
{
    (void)state;
    struct receiver r = {.loop = loop_new(), .is_ordered = true, .is_mine = true};
    struct letter *letters = calloc(POSTS, sizeof *letters);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, runner, &r), 0);
    for (unsigned i = 0; i < POSTS; i++) {
        letters[i] = (struct letter){.task = {.run = on_letter}, .to = &r, .id = i};
        hky_loop_post(r.loop, &letters[i].task);
        if (i % 1000 == 0)
            let_pass(200, "the loop falls asleep now and then, so that wakes are needed");
    }
    hky_loop_stop(r.loop);
    pthread_join(thread, NULL);
    assert_int_equal(r.n, POSTS);
    assert_true(r.is_ordered);
    assert_true(r.is_mine);
    assert_false(hky_loop_is_mine(r.loop));
    free(letters);
    hky_loop_free(&r.loop);
}

struct ticker {
    struct hky_timer timer;
    int64_t fired_at;
    unsigned n;
    char *order;
    char name;
};

static void on_tick(struct hky_timer *t)
{
    struct ticker *k = HKY_CONTAINER(t, struct ticker, timer);
    k->fired_at = hky_loop_now_ms(t->loop);
    k->n++;
    if (k->order != NULL)
        k->order[strlen(k->order)] = k->name;
}

static void timers_fire_in_order_never_early_and_can_be_moved_and_cancelled(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    char order[8] = "";
    struct ticker k[5];
    for (int i = 0; i < 5; i++) {
        memset(&k[i], 0, sizeof k[i]);
        hky_timer_init(&k[i].timer, loop, on_tick);
        k[i].order = order;
        k[i].name = (char)('a' + i);
    }
    int64_t start = hky_mono_ms();
    hky_timer_set(&k[0].timer, 30);
    hky_timer_set(&k[1].timer, 10);
    hky_timer_set(&k[2].timer, 1);
    hky_timer_set(&k[2].timer, 50); /* later */
    hky_timer_set(&k[3].timer, 5000);
    hky_timer_set(&k[3].timer, 20); /* earlier */
    hky_timer_set(&k[4].timer, 5);
    hky_timer_cancel(&k[4].timer);
    assert_false(hky_timer_is_set(&k[4].timer));
    assert_true(hky_timer_is_set(&k[2].timer));
    for (int i = 0; i < 200 && k[2].n == 0; i++)
        hky_loop_turn(loop, 100);
    assert_string_equal(order, "bdac");
    assert_true(k[0].fired_at - start >= 30);
    assert_true(k[1].fired_at - start >= 10);
    assert_true(k[2].fired_at - start >= 50);
    assert_false(hky_timer_is_set(&k[2].timer));
    hky_loop_free(&loop);
}

static void rearm(struct hky_timer *t)
{
    HKY_CONTAINER(t, struct ticker, timer)->n++;
    hky_timer_set(t, 0);
}

static void a_timer_set_to_now_in_itself_waits_for_the_next_turn(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    struct ticker k = {0};
    hky_timer_init(&k.timer, loop, rearm);
    hky_timer_set(&k.timer, 0);
    hky_loop_turn(loop, 0);
    assert_int_equal(k.n, 1);
    hky_loop_turn(loop, 1000);
    assert_int_equal(k.n, 2);
    hky_timer_cancel(&k.timer);
    hky_loop_free(&loop);
}

static void a_turn_waits_no_longer_than_told(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    int64_t start = hky_mono_ms();
    hky_loop_turn(loop, 20);
    int64_t took = hky_mono_ms() - start;
    assert_true(took >= 10 && took < 2000);
    hky_loop_free(&loop);
}

static void note_bits(void *ctx, int bits)
{
    *(int *)ctx |= bits;
}

static void a_level_watch_tells_as_long_as_it_lasts_an_edge_once(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    int a[2], b[2], level = 0, edge = 0;
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    struct hky_watch *wl = hky_watch_new_level(loop, a[0], HKY_READABLE, note_bits, &level);
    struct hky_watch *we = hky_watch_new_edge(loop, b[0], note_bits, &edge);
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    hky_loop_turn(loop, 100);
    assert_int_equal(level, HKY_READABLE);
    assert_true(edge & HKY_READABLE);
    level = edge = 0;
    hky_loop_turn(loop, 0);
    assert_int_equal(level, HKY_READABLE);
    assert_int_equal(edge, 0);
    hky_watch_free(&wl);
    hky_watch_free(&we);
    level = 0;
    hky_loop_turn(loop, 0);
    assert_int_equal(level, 0);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
    hky_loop_free(&loop);
}

static void note_signal(void *ctx, int signo)
{
    *(int *)ctx = signo;
}

static void signals_arrive_on_the_loop(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    int seen = 0;
    hky_loop_on_signal(loop, SIGUSR1, note_signal, &seen);
    kill(getpid(), SIGUSR1);
    for (int i = 0; i < 20 && seen == 0; i++)
        hky_loop_turn(loop, 50);
    assert_int_equal(seen, SIGUSR1);
    hky_loop_free(&loop);
}

/* The owners of tasks free them in any order once the loop is closed, and others still post. */
static void a_closed_loop_drops_what_is_posted(void **state)
{
    (void)state;
    struct hky_loop *loop = loop_new();
    unsigned log[8], n = 0;
    struct counted *c[4];
    for (unsigned i = 0; i < 4; i++) {
        c[i] = malloc(sizeof *c[i]);
        *c[i] = (struct counted){.task = {.run = on_task}, .id = i, .log = log, .n_log = &n};
    }
    hky_loop_post(loop, &c[0]->task);
    hky_loop_stop(loop);
    hky_loop_run(loop);
    assert_int_equal(n, 1);
    hky_loop_post(loop, &c[1]->task);
    assert_true(hky_loop_has_work(loop));
    hky_loop_close(loop);
    assert_false(hky_loop_has_work(loop));
    for (unsigned i = 2; i < 4; i++) { /* each task is freed before the next is posted */
        free(c[i - 1]);
        hky_loop_post(loop, &c[i]->task);
    }
    assert_false(hky_loop_has_work(loop));
    free(c[3]);
    free(c[0]);
    hky_loop_free(&loop);
    assert_int_equal(n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_loop_drops_what_is_posted),
        cmocka_unit_test(tasks_run_in_the_order_posted),
        cmocka_unit_test(a_deferred_task_runs_after_posted_ones_and_may_defer_again),
        cmocka_unit_test(another_thread_posts_and_stop_comes_after_what_was_posted),
        cmocka_unit_test(timers_fire_in_order_never_early_and_can_be_moved_and_cancelled),
        cmocka_unit_test(a_timer_set_to_now_in_itself_waits_for_the_next_turn),
        cmocka_unit_test(a_turn_waits_no_longer_than_told),
        cmocka_unit_test(a_level_watch_tells_as_long_as_it_lasts_an_edge_once),
        cmocka_unit_test(signals_arrive_on_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
