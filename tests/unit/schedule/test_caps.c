#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "schedule/caps.h"

#define ACCOUNT "shop@smtp.rental.example:587"
#define START   INT64_C(900000000000) /* early enough for both readings of a stopped clock to be this */
#define JOBS    256
#define STAMPS  200000

/* A server, a disk and a clock around the caps; random, and the same again for the same seed. */
struct world {
    struct caps *caps;
    struct caps_account *account;
    struct hky_relay relay;
    uint64_t random;
    int64_t now_ns, now_ms;            /* the second is the first, cut as the engine's clock cuts it */
    struct hky_clock clock;            /* stands wherever it likes: no test of its own but for records */
    struct hky_buf durable, under_way; /* the newest record on disk; one being written */
    bool is_written;
    bool is_reserving;
    unsigned n_free_again, n_records, n_crashes;
    struct {
        struct caps_slots slots;
        int64_t taken_ns;
    } jobs[JOBS];
    unsigned n_jobs;
    struct stamp {
        int64_t at_ns;
        uint32_t n;
    } * stamps; /* what the server saw */
    size_t n_stamps;
};

static uint32_t pick(struct world *w, uint32_t n)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % n;
}

static void pass_ns(struct world *w, int64_t ns)
{
    w->now_ns += ns;
    w->now_ms = w->now_ns / 1000000;
}

static void go_to(struct world *w, int64_t ms)
{
    w->now_ns = ms * 1000000;
    w->now_ms = ms;
}

static void reserve(void *ctx, struct caps_account *a, unsigned worker, struct hky_str key, struct hky_str value)
{
    struct world *w = ctx;
    (void)worker;
    assert_true(hky_str_eq(key, HKY_STR(ACCOUNT)));
    assert_false(w->is_reserving);
    w->is_reserving = true;
    w->account = a;
    w->n_records++;
    hky_buf_clear(&w->under_way);
    hky_buf_add_str(&w->under_way, value);
}

static void free_again(void *ctx, struct caps_account *a)
{
    (void)a;
    ((struct world *)ctx)->n_free_again++;
}

static void start(struct world *w)
{
    w->caps = schedule_caps_new(&(struct caps_ops){w, reserve, free_again}, &w->clock);
    if (w->is_written)
        schedule_caps_restore(w->caps, HKY_STR(ACCOUNT), hky_buf_str(&w->durable), w->now_ms);
    w->account = schedule_caps_set(w->caps, &w->relay, ACCOUNT);
    w->is_reserving = false;
}

static void world_init(struct world *w, uint64_t seed, const struct hky_cap *caps, unsigned n)
{
    memset(w, 0, sizeof *w);
    w->random = seed * 2654435761u + 1;
    w->clock.stopped_at_ms = START;
    go_to(w, START);
    w->relay.n_caps = (uint8_t)n;
    memcpy(w->relay.caps, caps, n * sizeof *caps);
    hky_buf_init(&w->durable, 1 << 20);
    hky_buf_init(&w->under_way, 1 << 20);
    w->stamps = calloc(STAMPS, sizeof *w->stamps);
    start(w);
}

static void world_fini(struct world *w)
{
    schedule_caps_free(&w->caps);
    hky_buf_fini(&w->durable);
    hky_buf_fini(&w->under_way);
    free(w->stamps);
}

static void reach_disk(struct world *w)
{
    hky_buf_clear(&w->durable);
    hky_buf_add_str(&w->durable, hky_buf_str(&w->under_way));
    w->is_written = true;
}

static void commit(struct world *w)
{
    if (!w->is_reserving)
        return;
    w->is_reserving = false;
    bool is_good = pick(w, 8) != 0;
    if (is_good)
        reach_disk(w);
    schedule_caps_reserved(w->caps, w->account, is_good);
}

/* The server's own time for a message: anywhere from the take to the end, mostly at the ends. */
static void stamp(struct world *w, int64_t taken_ns, uint32_t n)
{
    int64_t span = w->now_ns - taken_ns;
    uint32_t where = pick(w, 3);
    int64_t at = where == 0   ? taken_ns
                 : where == 1 ? w->now_ns
                              : taken_ns + (int64_t)((double)span * pick(w, 1000) / 1000);
    if (w->n_stamps < STAMPS)
        w->stamps[w->n_stamps++] = (struct stamp){at, n};
}

static bool take(struct world *w, uint32_t want)
{
    struct caps_slots slots;
    int64_t until_ms = 0;
    if (w->n_jobs == JOBS ||
        schedule_caps_take(w->caps, w->account, 0, want, w->now_ms, &slots, &until_ms) != CAPS_TAKEN)
        return false;
    assert_true(slots.n_recipients >= 1 && slots.n_recipients <= want);
    w->jobs[w->n_jobs].slots = slots;
    w->jobs[w->n_jobs++].taken_ns = w->now_ns;
    return true;
}

static void end_one(struct world *w)
{
    if (w->n_jobs == 0)
        return;
    unsigned i = pick(w, w->n_jobs);
    struct caps_slots slots = w->jobs[i].slots;
    int64_t taken_ns = w->jobs[i].taken_ns;
    w->jobs[i] = w->jobs[--w->n_jobs];
    if (pick(w, 5) == 0) {
        schedule_caps_give_back(w->caps, &slots, w->now_ms);
        return;
    }
    stamp(w, taken_ns, slots.n_recipients);
    schedule_caps_done(w->caps, &slots, w->now_ms);
}

/* Nobody takes any more; the newest record says so. */
static void settle(struct world *w)
{
    if (w->is_reserving)
        reach_disk(w);
    w->is_reserving = false;
    schedule_caps_settle(w->caps);
    if (w->is_reserving)
        reach_disk(w);
}

static void crash(struct world *w)
{
    w->n_crashes++;
    if (pick(w, 3) == 0)
        settle(w);
    for (; w->n_jobs > 0; w->n_jobs--) /* the server may have seen them, before the end */
        stamp(w, w->jobs[w->n_jobs - 1].taken_ns, w->jobs[w->n_jobs - 1].slots.n_recipients);
    if (w->is_reserving && pick(w, 2) == 0)
        reach_disk(w); /* on disk, and nobody was told any more */
    schedule_caps_free(&w->caps);
    pass_ns(w, pick(w, 3) == 0 ? pick(w, 5000) * INT64_C(1000000) + pick(w, 1000000) : 0);
    start(w);
}

static void step(struct world *w, uint32_t most_ms, uint32_t want)
{
    switch (pick(w, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        while (take(w, 1 + pick(w, want)) && pick(w, 4) != 0) {
        }
        break;
    case 4:
    case 5:
    case 6:
        end_one(w);
        break;
    case 7:
    case 8:
        commit(w);
        break;
    case 9:
        if (pick(w, 60) == 0)
            crash(w);
        break;
    default:
        pass_ns(w, pick(w, most_ms) * INT64_C(1000000) + pick(w, 1000000));
    }
}

static int by_time(const void *a, const void *b)
{
    const struct stamp *x = a, *y = b;
    return x->at_ns < y->at_ns ? -1 : x->at_ns > y->at_ns;
}

/* The most that any window of this length holds. */
static uint64_t fullest(struct world *w, const struct hky_cap *cap)
{
    qsort(w->stamps, w->n_stamps, sizeof *w->stamps, by_time);
    uint64_t most = 0, in = 0;
    size_t from = 0;
    for (size_t i = 0; i < w->n_stamps; i++) {
        in += cap->counts_recipients ? w->stamps[i].n : 1;
        while (w->stamps[i].at_ns - w->stamps[from].at_ns >= (int64_t)cap->window_sec * 1000000000) {
            in -= cap->counts_recipients ? w->stamps[from].n : 1;
            from++;
        }
        most = in > most ? in : most;
    }
    return most;
}

static const struct {
    const char *name;
    struct hky_cap caps[3];
    unsigned n;
    uint32_t most_ms, want, seeds;
} KINDS[] = {
    {"10/min, evenly", {{10, 60, false, true, "10/min"}}, 1, 4000, 1, 12},
    {"10/min, not evenly", {{10, 60, false, false, "10/min"}}, 1, 4000, 1, 12},
    {"3/s", {{3, 1, false, true, "3/s"}}, 1, 300, 1, 12},
    {"200/min by batches of 10", {{200, 60, false, false, "200/min"}}, 1, 300, 1, 8},
    {"300/2s in joined runs", {{300, 2, false, false, "300/2s"}}, 1, 6, 1, 6},
    {"40 recipients/min", {{40, 60, true, false, "40 recipients/min"}}, 1, 3000, 7, 12},
    {"both kinds and two windows",
     {{6, 10, false, true, "6/10s"}, {20, 120, false, false, "20/2m"}, {30, 60, true, false, "30 recipients/min"}},
     3,
     2500,
     5,
     12},
};

static void no_window_is_ever_over(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof KINDS / sizeof KINDS[0]; k++) {
        for (uint64_t seed = 1; seed <= KINDS[k].seeds; seed++) {
            struct world w;
            world_init(&w, seed + 1000 * k, KINDS[k].caps, KINDS[k].n);
            for (int i = 0; i < 20000; i++)
                step(&w, KINDS[k].most_ms, KINDS[k].want);
            assert_true(w.n_crashes > 3 && w.n_stamps > 20);
            for (unsigned c = 0; c < KINDS[k].n; c++) {
                uint64_t most = fullest(&w, &KINDS[k].caps[c]);
                if (most > KINDS[k].caps[c].n) {
                    fail_msg("%s, seed %llu: %llu in a window of %s", KINDS[k].name, (unsigned long long)seed,
                             (unsigned long long)most, KINDS[k].caps[c].text);
                }
            }
            world_fini(&w);
        }
    }
}

/* Nothing is lost either: with quick replies and a quick disk the whole cap is used. */
static void the_whole_cap_is_used(void **state)
{
    (void)state;
    static const struct hky_cap CAPS[] = {
        {10, 60, false, true, "10/min"}, {1000, 1, false, true, "1000/s"}, {300, 3600, false, true, "300/h"}};
    static const struct {
        int64_t for_ms, step_ms;
        unsigned least;
    } RUN[] = {{600000, 100, 99}, {10000, 1, 9900}, {7200000, 1000, 595}};
    for (unsigned k = 0; k < 3; k++) {
        struct world w;
        world_init(&w, 1, &CAPS[k], 1);
        unsigned n = 0;
        for (int64_t t = 0; t < RUN[k].for_ms; t += RUN[k].step_ms) {
            go_to(&w, START + t);
            for (int again = 0; again < 8; again++) {
                while (take(&w, 1)) {
                    schedule_caps_done(w.caps, &w.jobs[--w.n_jobs].slots, w.now_ms);
                    n++;
                }
                if (w.is_reserving) {
                    w.is_reserving = false;
                    reach_disk(&w);
                    schedule_caps_reserved(w.caps, w.account, true);
                }
            }
        }
        if (n < RUN[k].least)
            fail_msg("%s: %u sent, at least %u expected", CAPS[k].text, n, RUN[k].least);
        world_fini(&w);
    }
}

static void ten_a_minute_is_one_every_six_seconds(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, (const struct hky_cap[]){{10, 60, false, true, "10/min"}}, 1);
    assert_false(take(&w, 1)); /* not before the reservation is durable */
    reach_disk(&w);
    w.is_reserving = false;
    schedule_caps_reserved(w.caps, w.account, true);
    assert_int_equal(w.n_free_again, 1);
    assert_true(take(&w, 1));
    w.is_reserving = false;
    schedule_caps_reserved(w.caps, w.account, true);
    pass_ns(&w, 5999 * INT64_C(1000000));
    assert_false(take(&w, 1));
    pass_ns(&w, 1000000);
    assert_true(take(&w, 1));
    assert_true(schedule_caps_eta(w.caps, w.account, 5, w.now_ms) >= w.now_ms + 36000);
    world_fini(&w);
}

static void a_window_added_by_a_reload_needs_a_record_of_its_own(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, (const struct hky_cap[]){{1000, 60, false, false, "1000/min"}}, 1);
    take(&w, 1);
    w.is_reserving = false;
    reach_disk(&w);
    schedule_caps_reserved(w.caps, w.account, true);
    assert_true(take(&w, 1));
    w.relay.caps[w.relay.n_caps++] = (struct hky_cap){5, 3600, false, false, "5/h"};
    schedule_caps_set(w.caps, &w.relay, ACCOUNT);
    assert_false(take(&w, 1));
    assert_true(w.is_reserving);
    w.is_reserving = false;
    reach_disk(&w);
    schedule_caps_reserved(w.caps, w.account, true);
    assert_true(take(&w, 1));
    crash(&w);
    struct hky_relay_cap shown[HKY_CAPS_MAX];
    unsigned n = schedule_caps_show(w.caps, w.account, w.now_ms, shown);
    assert_int_equal(n, 2);
    for (unsigned i = 0; i < n; i++)
        assert_int_not_equal(shown[i].used, 0);
    world_fini(&w);
}

/* As many as an account keeps, all of an earlier policy: the new one takes the place of one of them. */
static void a_window_that_takes_the_place_of_another_is_new(void **state)
{
    (void)state;
    struct world w;
    struct hky_cap caps[HKY_CAPS_MAX];
    for (unsigned i = 0; i < HKY_CAPS_MAX; i++)
        caps[i] = (struct hky_cap){1000, 60 + i, false, false, "1000/min"};
    world_init(&w, 1, caps, HKY_CAPS_MAX);
    take(&w, 1);
    w.is_reserving = false;
    reach_disk(&w);
    schedule_caps_reserved(w.caps, w.account, true);
    assert_true(take(&w, 1));
    schedule_caps_done(w.caps, &w.jobs[--w.n_jobs].slots, w.now_ms);
    w.relay.n_caps = 1;
    w.relay.caps[0] = (struct hky_cap){5, 50, false, false, "5/50s"};
    schedule_caps_set(w.caps, &w.relay, ACCOUNT);
    struct hky_relay_cap shown[HKY_CAPS_MAX];
    assert_int_equal(schedule_caps_show(w.caps, w.account, w.now_ms, shown), 1);
    assert_int_equal(shown[0].used, 1); /* what the longer ones know */
    assert_false(take(&w, 1));          /* the record that was reserved by has no such window */
    assert_true(w.is_reserving);
    world_fini(&w);
}

static void the_next_slot_of_a_full_cap_is_told(void **state)
{
    static const struct {
        const char *name;
        struct hky_cap cap;
        unsigned n_sent;
        int64_t later_ms, next_ms; /* from START; next_ms 0: there is room */
    } CASES[] = {
        {"room", {2, 60, false, false, "2/min"}, 1, 0, 0},
        {"full", {2, 60, false, false, "2/min"}, 2, 0, 60001},
        {"full, half a window later", {2, 60, false, false, "2/min"}, 2, 30000, 60001},
        {"a window later", {2, 60, false, false, "2/min"}, 2, 60001, 0},
        {"evenly spread", {2, 60, false, true, "2/min"}, 1, 0, 30000},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct world w;
        struct hky_relay_cap shown[HKY_CAPS_MAX];
        world_init(&w, 1, &CASES[i].cap, 1);
        for (unsigned k = 0; k < CASES[i].n_sent;) {
            struct caps_slots slots;
            int64_t until_ms;
            if (schedule_caps_take(w.caps, w.account, 0, 1, w.now_ms, &slots, &until_ms) == CAPS_TAKEN) {
                schedule_caps_done(w.caps, &slots, w.now_ms);
                k++;
            }
            if (w.is_reserving) {
                w.is_reserving = false;
                schedule_caps_reserved(w.caps, w.account, true);
            }
        }
        pass_ns(&w, CASES[i].later_ms * 1000000);
        print_message("%s\n", CASES[i].name);
        assert_int_equal(schedule_caps_show(w.caps, w.account, w.now_ms, shown), 1);
        assert_int_equal(shown[0].next_at_ms, CASES[i].next_ms != 0 ? START + CASES[i].next_ms : 0);
        assert_int_equal(schedule_caps_free_at(w.caps, w.account, w.now_ms),
                         CASES[i].next_ms != 0 ? START + CASES[i].next_ms : w.now_ms);
        world_fini(&w);
    }
}

/* Takes n and ends them at once. */
static void send_at(struct world *w, int64_t at_ms, unsigned n)
{
    go_to(w, at_ms);
    for (unsigned i = 0; i < n;) {
        struct caps_slots slots;
        int64_t until_ms;
        enum caps_answer answer = schedule_caps_take(w->caps, w->account, 0, 1, w->now_ms, &slots, &until_ms);
        assert_int_not_equal(answer, CAPS_WAIT);
        if (answer == CAPS_TAKEN) {
            schedule_caps_done(w->caps, &slots, w->now_ms);
            i++;
        }
        if (w->is_reserving) {
            w->is_reserving = false;
            reach_disk(w);
            schedule_caps_reserved(w->caps, w->account, true);
        }
    }
}

/* After a stop in order a start knows how many slots are used, and when each ends; after a kill it counts all that may
 * have been taken, from its own time on. */
static void a_stop_in_order_uses_up_no_slot(void **state)
{
    static const struct hky_cap TWO = {2, 60, false, false, "2/min"};
    static const struct {
        const char *name;
        unsigned n_sent;
        bool is_in_order;
        uint32_t used;
        int64_t next_ms; /* from START; 0: there is room */
    } CASES[] = {
        {"one sent, stopped in order", 1, true, 1, 0},
        {"one sent, killed", 1, false, 2, 90001},
        {"full, stopped in order", 2, true, 2, 60001},
        {"full, killed", 2, false, 3, 90001},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct world w;
        struct hky_relay_cap shown[HKY_CAPS_MAX];
        world_init(&w, 1, &TWO, 1);
        send_at(&w, START, CASES[i].n_sent);
        print_message("%s\n", CASES[i].name);
        pass_ns(&w, INT64_C(30) * 1000000000);
        if (CASES[i].is_in_order)
            settle(&w);
        schedule_caps_free(&w.caps);
        start(&w);
        assert_int_equal(schedule_caps_show(w.caps, w.account, w.now_ms, shown), 1);
        assert_int_equal(shown[0].used, CASES[i].used);
        assert_int_equal(shown[0].next_at_ms, CASES[i].next_ms != 0 ? START + CASES[i].next_ms : 0);
        world_fini(&w);
    }
}

/* Beyond 256 slots those that end close together are kept as one, which ends with the last of them. */
static void joined_slots_end_with_the_last_of_them(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 1, (const struct hky_cap[]){{300, 2, false, false, "300/2s"}}, 1);
    send_at(&w, START, 1);
    send_at(&w, START + 5, 299);
    assert_int_equal(schedule_caps_free_at(w.caps, w.account, START + 5), START + 2006);
    go_to(&w, START + 2005);
    assert_false(take(&w, 1));
    go_to(&w, START + 2006);
    assert_true(take(&w, 1));
    world_fini(&w);
}

/* A reply in the last moment of a millisecond: the next message comes a whole window later, not almost one. */
static void a_window_is_whole_to_the_nanosecond(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 1, (const struct hky_cap[]){{1, 1, false, false, "1/s"}}, 1);
    send_at(&w, START, 1); /* it was START and 999,999 ns */
    go_to(&w, START + 1000);
    assert_false(take(&w, 1));
    go_to(&w, START + 1001);
    assert_true(take(&w, 1));
    world_fini(&w);
}

static void a_clock_that_goes_back_gives_no_slot_early(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 1, (const struct hky_cap[]){{1, 60, false, false, "1/min"}}, 1);
    go_to(&w, START + 50000);
    (void)take(&w, 1);
    w.is_reserving = false;
    schedule_caps_reserved(w.caps, w.account, true);
    assert_true(take(&w, 1));
    go_to(&w, START);
    schedule_caps_done(w.caps, &w.jobs[--w.n_jobs].slots, w.now_ms);
    assert_int_equal(schedule_caps_free_at(w.caps, w.account, START), START + 50000 + 60001);
    go_to(&w, START + 60001);
    assert_false(take(&w, 1));
    go_to(&w, START + 50000 + 60001);
    send_at(&w, START + 50000 + 60001, 1);
    world_fini(&w);
}

/* Records hold the time of the wall clock: a restart under a clock that was set to another day in between waits for a
 * window at most, and one under a right clock for what is left of it. */
static void a_restart_knows_the_wall_clock(void **state)
{
    static const struct {
        const char *name;
        int64_t clock_set_ms, free_ms; /* after the restart, by the time gone by */
    } CASES[] = {{"right", 0, 59001}, {"a day earlier", -86400000, 60001}, {"six hours later", 6 * 3600000, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct world w;
        world_init(&w, 1, (const struct hky_cap[]){{4, 60, false, false, "4/min"}}, 1);
        w.clock.wall_shift_ms = 7000000; /* the two clocks have nothing in common */
        send_at(&w, START, 2);
        if (!w.is_reserving)
            (void)take(&w, 1);
        assert_true(w.is_reserving); /* a record with two that were sent, one under way, one to be taken */
        reach_disk(&w);
        schedule_caps_free(&w.caps);
        w.clock.wall_shift_ms += CASES[i].clock_set_ms;
        go_to(&w, START + 1000);
        w.clock.stopped_at_ms = START + 1000;
        start(&w);
        int64_t free_ms = schedule_caps_free_at(w.caps, w.account, w.now_ms) - w.now_ms;
        if (free_ms > CASES[i].free_ms + 1 || free_ms < CASES[i].free_ms - 1)
            fail_msg("%s: free after %lld ms", CASES[i].name, (long long)free_ms);
        world_fini(&w);
    }
}

static void hostile_records_are_refused(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 7, (const struct hky_cap[]){{10, 60, false, false, "10/min"}}, 1);
    for (int i = 0; i < 2000; i++) {
        char junk[64];
        for (size_t k = 0; k < sizeof junk; k++)
            junk[k] = (char)pick(&w, 256);
        junk[0] = 1;
        junk[9] = (char)pick(&w, 9);
        schedule_caps_restore(w.caps, HKY_STR(ACCOUNT), hky_str_of(junk, pick(&w, sizeof junk + 1)), w.now_ms);
    }
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_a_minute_is_one_every_six_seconds),
        cmocka_unit_test(no_window_is_ever_over),
        cmocka_unit_test(the_whole_cap_is_used),
        cmocka_unit_test(a_window_added_by_a_reload_needs_a_record_of_its_own),
        cmocka_unit_test(a_window_that_takes_the_place_of_another_is_new),
        cmocka_unit_test(the_next_slot_of_a_full_cap_is_told),
        cmocka_unit_test(a_stop_in_order_uses_up_no_slot),
        cmocka_unit_test(joined_slots_end_with_the_last_of_them),
        cmocka_unit_test(a_window_is_whole_to_the_nanosecond),
        cmocka_unit_test(a_clock_that_goes_back_gives_no_slot_early),
        cmocka_unit_test(a_restart_knows_the_wall_clock),
        cmocka_unit_test(hostile_records_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
