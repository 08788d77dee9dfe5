/* Segments that grow: a spool that holds little takes little of the disk. */
#define RIG_ON_DISK
#include "rig.h"

#include <stdatomic.h>
#include <sys/statvfs.h>

#define FIRST (4u << 20)
#define MOST  (64u << 20)
#define LARGE (1536u << 10) /* streamed to a file of its own */

/* The disk of the journal: what its files leave of `octets`. 0: as much as anybody wants. */
static struct {
    atomic_ullong octets;
    _Atomic(struct rig *) rig;
} disk;

/* Of the journal's files: octets of all, and of the largest segment. */
struct files {
    uint64_t octets, largest;
};

static struct files look_at_files(struct rig *r)
{
    struct files files = {0};
    char path[400];
    struct stat st;
    DIR *dir;

    snprintf(path, sizeof path, "%s/journal", r->dir);
    dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        snprintf(path, sizeof path, "%s/journal/%s", r->dir, d->d_name);
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) /* it may just have been removed */
            continue;
        files.octets += (uint64_t)st.st_size;
        if (strncmp(d->d_name, "seg-", 4) == 0 && (uint64_t)st.st_size > files.largest)
            files.largest = (uint64_t)st.st_size;
    }
    closedir(dir);
    return files;
}

static uint64_t octets_of_files(struct rig *r)
{
    return look_at_files(r).octets;
}

static uint64_t largest_file(struct rig *r)
{
    return look_at_files(r).largest;
}

/* In place of the C library's. */
int fstatvfs(int fd, struct statvfs *fs)
{
    uint64_t octets = atomic_load(&disk.octets), used = octets > 0 ? octets_of_files(atomic_load(&disk.rig)) : 0;

    (void)fd;
    *fs = (struct statvfs){.f_frsize = 4096};
    fs->f_bavail = octets == 0 ? UINT64_C(1) << 40 : octets > used ? (octets - used) / 4096 : 0;
    return 0;
}

static uint64_t taken(struct rig *r)
{
    struct hky_journal_stats s;

    hky_journal_stats(r->j, &s);
    return s.octets;
}

static void set_up(struct rig *r)
{
    rig_init(r);
    r->params.segment_octets = 0; /* the default */
    rig_open(r);
}

static void put_megabytes(struct rig *r, uint64_t first_id, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rig_put(r, first_id + i, 1, 1 << 20);
}

static void an_idle_engine_takes_little(void **state)
{
    struct hky_journal_stats s;
    struct rig r;

    (void)state;
    set_up(&r);
    rig_put(&r, 1, 1, 1000);
    do
        hky_journal_stats(r.j, &s);
    while (s.free_segments < 2); /* the reserve is there all the same */
    assert_true(taken(&r) <= 5 * FIRST);
    rig_fini(&r);
}

static void segments_grow_with_what_comes_in(void **state)
{
    struct rig r;

    (void)state;
    set_up(&r);
    put_megabytes(&r, 1, 3);
    assert_int_equal(largest_file(&r), FIRST);
    put_megabytes(&r, 10, 40);
    wait_until(largest_file(&r) > FIRST);
    put_megabytes(&r, 100, 60);
    wait_until(largest_file(&r) == MOST);
    rig_close(&r);
    rig_open(&r);
    assert_int_equal(r.report.messages, 103);
    for (uint64_t id = 1; id <= 3; id++)
        rig_check_body(&r, hky_idmap_get(&r.found, id));
    rig_fini(&r);
}

static void a_message_larger_than_the_first_segments_gets_a_larger_one(void **state)
{
    struct rig r;
    struct hky_message *m;

    (void)state;
    set_up(&r);
    m = rig_put(&r, 7, 1, 6 << 20); /* accept never gives one: it stands for one with thousands of recipients */
    hky_journal_body_drop(r.j, m);
    rig_check_body(&r, m);
    rig_close(&r);
    rig_open(&r);
    rig_check_body(&r, hky_idmap_get(&r.found, 7));
    rig_fini(&r);
}

static void a_restart_keeps_the_size_and_drops_other_spares(void **state)
{
    struct hky_journal_stats s;
    struct rig r;

    (void)state;
    set_up(&r);
    put_megabytes(&r, 1, 30); /* fills several: the next ones are of the largest size */
    wait_until(largest_file(&r) == MOST);
    rig_close(&r);
    r.params.segment_octets = FIRST; /* an operator makes them small again */
    rig_open(&r);
    assert_int_equal(r.report.messages, 30);
    hky_journal_stats(r.j, &s);
    put_megabytes(&r, 50, 10);
    for (uint64_t id = 50; id < 60; id++)
        assert_true(hky_idmap_get(&r.found, id) != NULL);
    rig_close(&r);
    rig_open(&r);
    assert_int_equal(r.report.messages, 40);
    for (uint64_t id = 1; id <= 30; id++)
        rig_check_body(&r, hky_idmap_get(&r.found, id));
    rig_fini(&r);
}

/* The load that filled the disk made the files large; once it is over, files that fit take mail again. */
static void a_small_disk_that_was_full_takes_mail_again(void **state)
{
    enum hky_err err = HKY_OK;
    uint64_t id = 1;
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 0;
    r.params.min_free = 8 << 20;
    atomic_store(&disk.rig, &r);
    atomic_store(&disk.octets, 64 << 20);
    rig_open(&r);
    while (err == HKY_OK && id < 200) {
        struct hky_message *m = make_message(&r, id, 1, 1 << 20);
        err = rig_accept(&r, m);
        if (err == HKY_OK)
            assert_null(hky_idmap_put(&r.found, id++, m));
        else
            hky_message_unref(&m);
    }
    assert_int_equal(err, HKY_E_FULL);
    assert_int_equal(rig_stats(&r).health, HKY_E_FULL);
    assert_int_equal(hky_journal_takes_results(r.j), HKY_OK); /* there is room for results */
    for (uint64_t k = 1; k < id; k++)
        rig_finish(&r, hky_idmap_get(&r.found, k), 0);
    hky_journal_flush(r.j);
    wait_until(hky_journal_room(r.j, 1 << 20) == HKY_OK);
    put_megabytes(&r, 1000, 3);
    assert_true(octets_of_files(&r) <= 56 << 20);
    rig_close(&r);
    rig_open(&r);
    assert_int_equal(r.report.messages, 3);
    rig_fini(&r);
    atomic_store(&disk.octets, 0);
}

/* Small mail up to the bound, then all of it done: its files, written anew, must not keep large mail out. */
static void fill_and_empty(struct rig *r)
{
    enum hky_err err = HKY_OK;
    uint64_t id = 1;

    while (err == HKY_OK && id < 2000) {
        struct hky_message *m = make_message(r, id, 1, 4000);
        err = rig_accept(r, m);
        if (err == HKY_OK)
            assert_null(hky_idmap_put(&r->found, id++, m));
        else
            hky_message_unref(&m);
    }
    assert_int_equal(err, HKY_E_FULL);
    assert_int_equal(hky_journal_room(r->j, LARGE), HKY_E_FULL);
    for (uint64_t k = 1; k < id; k++)
        rig_finish(r, hky_idmap_get(&r->found, k), 0);
    hky_journal_flush(r->j);
    wait_until(hky_journal_room(r->j, 4000) == HKY_OK);
}

static void recycled_files_keep_no_large_mail_out(uint64_t spool_max, uint64_t disk_octets, uint64_t min_free)
{
    struct rig r;

    rig_init(&r);
    r.params.segment_octets = 64 << 10;
    r.params.spool_max = spool_max;
    r.params.min_free = min_free;
    atomic_store(&disk.rig, &r);
    atomic_store(&disk.octets, disk_octets);
    rig_open(&r);
    for (int round = 0; round < 2; round++) {
        fill_and_empty(&r);
        wait_until(hky_journal_room(r.j, LARGE) == HKY_OK);
        rig_rounds(&r, 3);
        assert_int_equal(hky_journal_room(r.j, LARGE), HKY_OK); /* no new spares took it */
        assert_true(rig_stats(&r).free_segments >= 2);
        rig_close(&r);
        rig_open(&r);
        wait_until(hky_journal_room(r.j, LARGE) == HKY_OK);
    }
    rig_fini(&r);
    atomic_store(&disk.octets, 0);
}

static void recycled_files_leave_large_mail_its_part_of_spool_max(void **state)
{
    (void)state;
    recycled_files_keep_no_large_mail_out(2 << 20, 0, 0);
}

static void recycled_files_leave_large_mail_its_part_of_the_disk(void **state)
{
    (void)state;
    recycled_files_keep_no_large_mail_out(0, 4 << 20, 2 << 20);
}

static void the_smallest_spool_max_has_room_for_large_mail_when_idle(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 2 << 20;
    r.params.spool_max = 8 << 20;
    rig_open(&r);
    for (uint64_t id = 1; id <= 40; id++) { /* some files */
        struct hky_message *m = make_message(&r, id, 1, 200000);
        wait_until(rig_accept(&r, m) == HKY_OK); /* all of them are more than spool_max: files must come free */
        assert_null(hky_idmap_put(&r.found, id, m));
        rig_finish(&r, m, 0);
        hky_journal_flush(r.j);
    }
    wait_until(hky_journal_room(r.j, LARGE) == HKY_OK);
    rig_rounds(&r, 3);
    assert_int_equal(hky_journal_room(r.j, LARGE), HKY_OK);
    rig_fini(&r);
}

/* Without it, one message that is larger than the disk would take the spares from all mail after it. */
static void what_has_no_room_without_spares_either_leaves_them_alone(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 64 << 10;
    r.params.min_free = 2 << 20;
    atomic_store(&disk.rig, &r);
    atomic_store(&disk.octets, 8 << 20);
    rig_open(&r);
    rig_at_rest(&r);
    assert_int_equal(hky_journal_room(r.j, 100 << 20), HKY_E_FULL);
    rig_rounds(&r, 3);
    assert_true(rig_stats(&r).free_segments >= 3);
    for (uint64_t id = 1; id <= 60; id++)
        rig_put(&r, id, 1, 10000);
    for (uint64_t id = 1; id <= 60; id++)
        rig_finish(&r, hky_idmap_get(&r.found, id), 0);
    hky_journal_flush(r.j);
    wait_until(rig_stats(&r).free_segments > 5);
    rig_fini(&r);
    atomic_store(&disk.octets, 0);
}

static unsigned n_logged(FILE *log, const char *words)
{
    char text[4096];
    ssize_t n = pread(fileno(log), text, sizeof text - 1, 0);
    unsigned n_found = 0;

    assert_in_range(n, 0, sizeof text - 1);
    text[n] = '\0';
    for (const char *at = text; (at = strstr(at, words)) != NULL; at++)
        n_found++;
    return n_found;
}

/* A body of which nobody knows the size before it is written whole. */
static void write_large(struct rig *r, uint64_t id)
{
    static char octets[LARGE];
    struct hky_big *big;
    struct told t;

    told_init(r, &t);
    assert_int_equal(hky_journal_big_open(r->j, id, r->loop, NULL, NULL, &big), HKY_OK);
    hky_journal_big_write(big, octets, sizeof octets);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(r, &t);
    assert_int_equal(t.result, HKY_OK);
}

/* The size is that of the message alone: the disk never has room for it, but has for the large mail after it. */
static void what_never_has_room_does_not_end_the_log_of_refusals(void **state)
{
    FILE *file = tmpfile();
    struct rig r;

    (void)state;
    assert_non_null(file);
    rig_init(&r);
    r.params.segment_octets = 64 << 10;
    r.params.min_free = 2 << 20;
    r.params.log = hky_log_new(fileno(file), HKY_LOG_INFO);
    atomic_store(&disk.rig, &r);
    atomic_store(&disk.octets, 8 << 20);
    rig_open(&r);
    rig_at_rest(&r);
    for (unsigned n = 1; n <= 3; n++) {
        for (int i = 0; i < 2; i++) /* a state is logged once */
            assert_int_equal(hky_journal_room(r.j, 100 << 20), HKY_E_FULL);
        rig_rounds(&r, 3);
        wait_until(n_logged(file, "state=low") == n);
        assert_int_equal(n_logged(file, "state=room_for_large"), n - 1);
        if (n < 3)
            assert_int_equal(hky_journal_room(r.j, LARGE), HKY_OK);
        else
            write_large(&r, 7);
        wait_until(n_logged(file, "state=room_for_large") == n);
    }
    assert_int_equal(n_logged(file, "state=low"), 3);
    rig_fini(&r);
    hky_log_free(&r.params.log);
    fclose(file);
    atomic_store(&disk.octets, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_engine_takes_little),
        cmocka_unit_test(segments_grow_with_what_comes_in),
        cmocka_unit_test(a_message_larger_than_the_first_segments_gets_a_larger_one),
        cmocka_unit_test(a_restart_keeps_the_size_and_drops_other_spares),
        cmocka_unit_test(a_small_disk_that_was_full_takes_mail_again),
        cmocka_unit_test(recycled_files_leave_large_mail_its_part_of_spool_max),
        cmocka_unit_test(recycled_files_leave_large_mail_its_part_of_the_disk),
        cmocka_unit_test(what_has_no_room_without_spares_either_leaves_them_alone),
        cmocka_unit_test(what_never_has_room_does_not_end_the_log_of_refusals),
        cmocka_unit_test(the_smallest_spool_max_has_room_for_large_mail_when_idle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
