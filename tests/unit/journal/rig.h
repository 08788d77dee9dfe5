/*
 * rig -- a spool in a folder of its own, messages to put in, a picture of what a restart finds.
 */
#ifndef TESTS_JOURNAL_RIG_H
#define TESTS_JOURNAL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/map.h"
#include "hikyaku/journal.h"
#include "journal/format.h"
#include "support/scratch.h"
#include "support/wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct rig {
    char dir[64];
    struct hky_journal_params params;
    struct hky_clock clock;
    struct hky_loop *loop;
    struct hky_journal *j;
    struct hky_journal_report report;
    struct hky_error error;
    struct hky_idmap found; /* id -> struct hky_message */
    struct hky_map caps;    /* key -> value */
    struct hky_plan *plan, *other_plan;
};

struct told {
    struct hky_commit commit;
    bool is_done, has_token;
    enum hky_err result;
};

static inline void on_told(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    struct told *t = HKY_CONTAINER(c, struct told, commit);

    t->is_done = true;
    t->has_token = durable != NULL;
    t->result = result;
}

static inline struct hky_plan *make_plan(const char *relay)
{
    struct hky_plan draft = {.route = "main", .file = "policy.lua", .line = 3, .n_steps = 1};
    struct hky_plan *plan;
    struct hky_error e;

    draft.expire_sec = HKY_UNSET_SEC;
    draft.steps[0] =
        (struct hky_step){.relay = relay, .account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC};
    assert_int_equal(hky_plan_new(&draft, &plan, &e), HKY_OK);
    return plan;
}

/* In memory, but for tests that define RIG_ON_DISK: they want the page cache and the sizes of a disk. */
static inline const char *rig_folder(void)
{
#ifdef RIG_ON_DISK
    return "/tmp";
#else
    return scratch_in_memory();
#endif
}

static inline void rig_init(struct rig *r)
{
    *r = (struct rig){.clock = HKY_CLOCK_REAL};
    snprintf(r->dir, sizeof r->dir, "%s/hky-journal-XXXXXX", rig_folder());
    assert_non_null(mkdtemp(r->dir));
    r->params = (struct hky_journal_params){.dir = r->dir,
                                            .segment_octets = 64 << 10,
                                            .body_memory = 64 << 20,
                                            .upkeep_ms = 10,
                                            .retry_after_ms = 20,
                                            .clock = &r->clock};
    assert_int_equal(hky_loop_new(&r->loop, &r->error), HKY_OK);
    hky_idmap_init(&r->found);
    hky_map_init(&r->caps);
    r->plan = make_plan("relay-a");
    r->other_plan = make_plan("relay-b");
}

static inline void rig_found(void *ctx, struct hky_message *m)
{
    struct rig *r = ctx;

    assert_null(hky_idmap_put(&r->found, m->id, m));
}

static inline void rig_cap(void *ctx, struct hky_str key, struct hky_str value)
{
    struct rig *r = ctx;

    free(hky_map_put(&r->caps, key, hky_str_dup(value)));
}

static inline uint32_t n_unfinished(const struct hky_message *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n_recipients; i++)
        n += !hky_recipient_state_is_final((enum hky_recipient_state)m->recipients[i].state);
    return n;
}

static inline enum hky_err rig_try_open(struct rig *r)
{
    struct hky_journal_replay cb = {.ctx = r, .on_message = rig_found, .on_cap = rig_cap};

    return hky_journal_open(&r->params, &cb, &r->j, &r->report, &r->error);
}

static inline void rig_open(struct rig *r)
{
    enum hky_err err = rig_try_open(r);

    if (err != HKY_OK)
        print_error("open: %s\n", r->error.text);
    assert_int_equal(err, HKY_OK);
}

/* Drop what replay found: one reference a live recipient. */
static inline void rig_forget(struct rig *r)
{
    size_t at = 0;

    for (struct hky_idmap_entry *e; (e = hky_idmap_next(&r->found, &at)) != NULL;) {
        struct hky_message *m = e->value;
        for (uint32_t n = n_unfinished(m); n > 0; n--) {
            struct hky_message *one = m;
            hky_message_unref(&one);
        }
    }
    hky_idmap_fini(&r->found);
    hky_idmap_init(&r->found);
    at = 0;
    for (struct hky_map_entry *c; (c = hky_map_next(&r->caps, &at)) != NULL;)
        free(c->value);
    hky_map_fini(&r->caps);
    hky_map_init(&r->caps);
}

static inline void rig_close(struct rig *r)
{
    rig_forget(r);
    hky_journal_close(&r->j);
}

static inline void rig_fini(struct rig *r)
{
    rig_close(r);
    hky_plan_unref(&r->plan);
    hky_plan_unref(&r->other_plan);
    hky_loop_free(&r->loop);
    hky_idmap_fini(&r->found);
    hky_map_fini(&r->caps);
    scratch_remove(r->dir);
}

static inline char body_octet(uint64_t id, size_t i)
{
    uint64_t x = (id * UINT64_C(0x9e3779b97f4a7c15)) ^ (i * UINT64_C(0xbf58476d1ce4e5b9));

    return (char)('a' + (x ^ x >> 31) * UINT64_C(0x94d049bb133111eb) % 26);
}

static inline struct hky_message *make_message(struct rig *r, uint64_t id, uint32_t n_recipients, size_t size)
{
    struct hky_rcpt_draft rcpts[64];
    struct hky_message_draft d = {.id = id,
                                  .accepted_at_ms = 1000 + (int64_t)id,
                                  .size = size,
                                  .header_octets = 10,
                                  .n_recipients = n_recipients,
                                  .recipients = rcpts};
    struct hky_message *m;
    char addresses[64][32], *p = malloc(size > 0 ? size : 1);

    assert_true(n_recipients <= 64);
    for (uint32_t i = 0; i < n_recipients; i++) {
        snprintf(addresses[i], sizeof addresses[i], "user%u@example.jp", i);
        rcpts[i] = (struct hky_rcpt_draft){.address = hky_str_z(addresses[i]), .orcpt = HKY_STR("")};
    }
    d.facts[HKY_FACT_SENDER] = HKY_STR("shop@example.com");
    d.facts[HKY_FACT_SUBJECT] = HKY_STR("subject");
    m = hky_message_new(&d);
    for (size_t i = 0; i < size; i++)
        p[i] = body_octet(id, i);
    m->body = hky_body_new(p, size, size);
    for (uint32_t i = 0; i < n_recipients; i++)
        m->recipients[i].plan = hky_plan_ref(i % 2 == 0 ? r->plan : r->other_plan);
    return m;
}

static inline void told_init(struct rig *r, struct told *t)
{
    *t = (struct told){.commit = {.loop = r->loop, .done = on_told}};
}

static inline void told_wait(struct rig *r, struct told *t)
{
    for (int64_t until_ms = wait_now_ms() + WAIT_MOST_SEC * 1000; !t->is_done && wait_now_ms() < until_ms;)
        hky_loop_turn(r->loop, 10);
    assert_true(t->is_done);
}

static inline enum hky_err rig_accept(struct rig *r, struct hky_message *m)
{
    struct told t;

    told_init(r, &t);
    hky_journal_accept(r->j, m, &t.commit);
    told_wait(r, &t);
    assert_int_equal(t.has_token, t.result == HKY_OK);
    return t.result;
}

/* Accept a message and keep it in r->found like one that replay gave. */
static inline struct hky_message *rig_put(struct rig *r, uint64_t id, uint32_t n_recipients, size_t size)
{
    struct hky_message *m = make_message(r, id, n_recipients, size);

    assert_int_equal(rig_accept(r, m), HKY_OK);
    for (uint32_t i = 1; i < n_recipients; i++)
        hky_message_ref(m);
    assert_null(hky_idmap_put(&r->found, id, m));
    return m;
}

static inline void rig_finish(struct rig *r, struct hky_message *m, uint32_t index)
{
    struct hky_message *one = m;

    m->recipients[index].state = HKY_RCPT_DELIVERED;
    hky_journal_finish(r->j, &m->recipients[index], NULL, NULL);
    if (n_unfinished(m) == 0)
        hky_idmap_remove(&r->found, m->id);
    hky_message_unref(&one);
}

static inline struct hky_journal_stats rig_stats(struct rig *r)
{
    struct hky_journal_stats s;

    hky_journal_stats(r->j, &s);
    return s;
}

/* Until maintenance has looked at everything n times more. */
static inline void rig_rounds(struct rig *r, unsigned n)
{
    uint64_t was = rig_stats(r).upkeep_rounds;

    wait_until(rig_stats(r).upkeep_rounds > was + n); /* one may have been under way */
}

/* Until maintenance has made its spares: the next call that fails is not one of its own then. */
static inline void rig_at_rest(struct rig *r)
{
    wait_until(rig_stats(r).free_segments >= 3);
    rig_rounds(r, 2);
}

/* Body of `m` as the journal gives it, compared with what was made. */
static inline void rig_on_body(struct hky_body_read *read)
{
    read->message = NULL;
}

static inline void rig_check_body(struct rig *r, struct hky_message *m)
{
    struct hky_body_read read = {.loop = r->loop, .done = rig_on_body};
    uint64_t at = 0;

    while (at < m->size) {
        read.message = m;
        read.at = at;
        if (!hky_journal_body(r->j, &read))
            for (int i = 0; i < 1000 && read.message != NULL; i++)
                hky_loop_turn(r->loop, 10);
        assert_int_equal(read.result, HKY_OK);
        assert_true(read.n > 0);
        for (size_t i = 0; i < read.n; i++)
            if (read.p[i] != body_octet(m->id, (size_t)at + i))
                fail_msg("octet %llu of message %llu is not what was accepted", (unsigned long long)(at + i),
                         (unsigned long long)m->id);
        at += read.n;
        hky_body_read_release(&read);
    }
}

static inline void copy_spool(const char *from, const char *to)
{
    char command[300];

    snprintf(command, sizeof command, "rm -rf %s && cp -a %s %s", to, from, to);
    wait_until(system(command) == 0); /* it fails when a file was given its name meanwhile */
}

#endif
