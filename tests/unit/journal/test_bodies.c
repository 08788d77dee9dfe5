/* Bodies read back from the disk: what changed there is not given out as if it were the message. */
#define RIG_ON_DISK
#include "rig.h"

#define SMALL 4000u
#define LARGE (600u << 10)
#define BIG   (3u << 20)

static void on_read(struct hky_body_read *read)
{
    read->message = NULL;
}

/* Reads all of it as deliver does: how the last piece came back, and how many octets were given before. */
static enum hky_err read_whole(struct rig *r, struct hky_message *m, uint64_t *given)
{
    struct hky_body_read read = {.loop = r->loop, .done = on_read};

    *given = 0;
    while (*given < m->size) {
        enum hky_err result;
        size_t n;
        read.message = m;
        read.at = *given;
        if (!hky_journal_body(r->j, &read))
            for (int i = 0; i < 1000 && read.message != NULL; i++)
                hky_loop_turn(r->loop, 10);
        result = read.result;
        n = read.n;
        hky_body_read_release(&read);
        if (result != HKY_OK)
            return result;
        assert_true(n > 0);
        *given += n;
    }
    return HKY_OK;
}

static unsigned n_aside(struct rig *r)
{
    char path[100];
    unsigned n = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/damaged", r->dir);
    dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        n += strstr(d->d_name, ".body") != NULL;
    closedir(dir);
    return n;
}

static void set_up(struct rig *r)
{
    rig_init(r);
    r->params.segment_octets = 2 << 20;
    r->params.body_memory = 0;
    rig_open(r);
}

static void put_big(struct rig *r, uint64_t id, size_t size)
{
    struct hky_message *m = make_message(r, id, 1, size);
    struct hky_big *big;
    struct told t;

    told_init(r, &t);
    assert_int_equal(hky_journal_big_open(r->j, id, r->loop, NULL, NULL, &big), HKY_OK);
    for (size_t at = 0; at < size; at += 100000)
        hky_journal_big_write(big, m->body->p + at, size - at < 100000 ? size - at : 100000);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(r, &t);
    assert_int_equal(t.result, HKY_OK);
    hky_body_unref(&m->body);
    m->is_big = true;
    assert_int_equal(rig_accept(r, m), HKY_OK);
    assert_null(hky_idmap_put(&r->found, id, m));
}

static void flip(const char *path, off_t at)
{
    char c;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 0x20;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

/* Where in which segment file a body lies. */
static off_t find_body(struct rig *r, const struct hky_message *m, char path[120])
{
    snprintf(path, 120, "%s/journal/seg-%05u", r->dir, m->segment - 1);
    return (off_t)m->body_at;
}

static void an_octet_that_changed_in_a_segment_is_found(void **state)
{
    static const size_t sizes[] = {10, 100, SMALL, 256 << 10, (256 << 10) + 1, LARGE};

    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        size_t size = sizes[k], spots[] = {0, size / 2, size - 1};
        struct rig r;
        struct hky_message *m;
        char path[120];
        uint64_t given;
        off_t at;

        set_up(&r);
        rig_put(&r, 9, 1, size);
        rig_close(&r);
        rig_open(&r);
        m = hky_idmap_get(&r.found, 9);
        assert_non_null(m);
        at = find_body(&r, m, path);
        assert_int_equal(read_whole(&r, m, &given), HKY_OK);
        for (size_t s = 0; s < 3; s++) {
            flip(path, at + (off_t)spots[s]);
            assert_int_equal(read_whole(&r, m, &given), HKY_E_DAMAGED);
            assert_true(given < m->size); /* the last piece was not given out */
            assert_int_equal(n_aside(&r), 1);
            flip(path, at + (off_t)spots[s]);
            assert_int_equal(read_whole(&r, m, &given), HKY_OK);
        }
        rig_fini(&r);
    }
}

static void an_octet_that_changed_in_a_large_file_is_found(void **state)
{
    /* the first, some in the middle, the last, and each part of what stands behind the body */
    static const off_t spots[] = {0, 1 << 20, BIG - 1, BIG, BIG + 9, BIG + 17, BIG + 25, BIG + 31};
    struct rig r;
    char path[120], id[HKY_ID_TEXT];
    struct hky_message *m;
    uint64_t given;

    (void)state;
    set_up(&r);
    put_big(&r, 9, BIG);
    rig_close(&r);
    rig_open(&r);
    m = hky_idmap_get(&r.found, 9);
    hky_id_format(9, id);
    snprintf(path, sizeof path, "%s/big/%s", r.dir, id);
    for (size_t s = 0; s < sizeof spots / sizeof spots[0]; s++) {
        assert_int_equal(read_whole(&r, m, &given), HKY_OK);
        flip(path, spots[s]);
        assert_int_equal(read_whole(&r, m, &given), HKY_E_DAMAGED);
        assert_true(given < m->size);
        flip(path, spots[s]);
    }
    assert_int_equal(n_aside(&r), 1);
    rig_fini(&r);
}

static void a_large_file_that_is_cut_or_gone_is_damaged(void **state)
{
    struct rig r;
    char path[120], id[HKY_ID_TEXT];
    struct hky_message *m;
    struct hky_journal_stats stats;
    uint64_t given;

    (void)state;
    set_up(&r);
    put_big(&r, 9, BIG);
    m = hky_idmap_get(&r.found, 9);
    hky_id_format(9, id);
    snprintf(path, sizeof path, "%s/big/%s", r.dir, id);
    assert_int_equal(truncate(path, BIG), 0); /* as an older engine wrote it: there is nothing to compare with */
    assert_int_equal(read_whole(&r, m, &given), HKY_OK);
    assert_int_equal(truncate(path, BIG - 1), 0);
    assert_int_equal(read_whole(&r, m, &given), HKY_E_DAMAGED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(read_whole(&r, m, &given), HKY_E_DAMAGED);
    assert_int_equal(given, 0);
    hky_journal_stats(r.j, &stats);
    assert_int_equal(stats.damaged, 2);
    rig_fini(&r);
}

/* A relay refuses a message while it is sent: its last recipient ends, and its body is freed under the reader. */
static void a_body_that_is_not_needed_any_more_is_not_damaged(void **state)
{
    struct rig r;
    struct hky_message *m, *kept;
    struct stat st;
    char path[120], id[HKY_ID_TEXT];
    enum hky_err err = HKY_OK;
    uint64_t given, next = 1000;

    (void)state;
    set_up(&r);
    put_big(&r, 9, BIG);
    kept = hky_message_ref(hky_idmap_get(&r.found, 9));
    rig_finish(&r, kept, 0);
    hky_journal_flush(r.j);
    hky_id_format(9, id);
    snprintf(path, sizeof path, "%s/big/%s", r.dir, id);
    wait_until(stat(path, &st) < 0);
    assert_int_equal(read_whole(&r, kept, &given), HKY_E_MISSING);
    hky_message_unref(&kept);

    kept = hky_message_ref(rig_put(&r, 10, 1, SMALL));
    rig_finish(&r, kept, 0);
    for (; err == HKY_OK && next < 2000; next++) { /* until its segment holds others */
        m = rig_put(&r, next, 1, 200000);
        rig_finish(&r, m, 0);
        err = read_whole(&r, kept, &given);
    }
    assert_int_equal(err, HKY_E_MISSING);
    hky_message_unref(&kept);
    assert_int_equal(rig_stats(&r).damaged, 0);
    assert_int_equal(n_aside(&r), 0);
    rig_fini(&r);
}

static void a_header_of_a_damaged_body_is_not_given(void **state)
{
    struct rig r;
    struct hky_message *m;
    struct hky_body *body = NULL;
    struct hky_str header;
    char path[120];
    off_t at;

    (void)state;
    set_up(&r);
    rig_put(&r, 9, 1, SMALL);
    rig_close(&r);
    rig_open(&r);
    m = hky_idmap_get(&r.found, 9);
    at = find_body(&r, m, path);
    assert_true(hky_journal_header(r.j, m, &body, &header)); /* it was written a moment ago: in the page cache */
    assert_int_equal(header.n, m->header_octets);
    hky_body_unref(&body);
    flip(path, at + 3);
    assert_false(hky_journal_header(r.j, m, &body, &header));
    flip(path, at + 3);
    flip(path, at + SMALL - 1);
    assert_false(hky_journal_header(r.j, m, &body, &header));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_octet_that_changed_in_a_segment_is_found),
        cmocka_unit_test(an_octet_that_changed_in_a_large_file_is_found),
        cmocka_unit_test(a_large_file_that_is_cut_or_gone_is_damaged),
        cmocka_unit_test(a_body_that_is_not_needed_any_more_is_not_damaged),
        cmocka_unit_test(a_header_of_a_damaged_body_is_not_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
