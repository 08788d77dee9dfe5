#include "rig.h"

#include <sys/uio.h>

#define SEG (64u << 10)

/* A segment built by hand. */
struct built {
    char p[SEG];
    struct segment_head head;
    uint64_t at[64], end;
    unsigned n;
};

static void build_sized(struct built *b, uint64_t epoch, uint64_t octets)
{
    b->head = (struct segment_head){.version = FORMAT_VERSION,
                                    .epoch = epoch,
                                    .first_seq = 10,
                                    .octets = octets,
                                    .state = SEGMENT_HOT,
                                    .salt = (uint32_t)epoch * 77};
    journal_segment_head_encode(&b->head, b->p);
    b->end = SEGMENT_HEADER;
    b->n = 0;
}

static void build_begin(struct built *b, uint64_t epoch)
{
    build_sized(b, epoch, SEG);
}

static void build_add(struct built *b, uint64_t synced_seq, size_t body_n)
{
    char meta[30], *body = b->p + b->end + JOURNAL_RECORD_HEADER;
    struct journal_record r = {.type = JOURNAL_RECORD_CAP,
                               .meta_n = sizeof meta,
                               .body_n = (uint32_t)body_n,
                               .epoch = b->head.epoch,
                               .seq = 10 + b->n,
                               .synced_seq = synced_seq,
                               .key = b->n};

    memset(meta, 'm', sizeof meta);
    memset(body, (int)('a' + b->n % 26), body_n);
    memcpy(body + body_n, meta, sizeof meta);
    r.body_crc = hky_crc32c(0, body, body_n);
    r.meta_crc = hky_crc32c(0, meta, sizeof meta);
    journal_record_encode(&r, b->head.salt, b->p + b->end);
    b->at[b->n++] = b->end;
    b->end += journal_record_octets(&r);
    assert_true(b->end < SEG);
}

struct damage {
    unsigned n;
    uint64_t octets;
};

static void on_damage(void *ctx, uint64_t at, uint64_t octets)
{
    struct damage *d = ctx;

    (void)at;
    d->n++;
    d->octets += octets;
}

static unsigned scan(const struct built *b, uint64_t floor, uint64_t cut, struct scan_report *out)
{
    struct damage d = {0};
    struct hky_buf foot;
    struct hky_cursor c;
    unsigned n = 0;

    hky_buf_init(&foot, 1 << 20);
    journal_segment_scan(b->p, b->head.octets, &b->head, floor, cut, &foot, on_damage, &d, out);
    c = (struct hky_cursor){.p = foot.p, .n = foot.n};
    for (struct foot_entry f; journal_foot_next(&c, &f);)
        n++;
    assert_false(c.is_bad);
    assert_int_equal(d.n > 0, out->damaged > 0);
    hky_buf_fini(&foot);
    return n;
}

static void a_recycled_segment_cut_at_every_record_shows_nothing_old(void **state)
{
    static struct built old, fresh, both;
    struct scan_report report;

    (void)state;
    build_begin(&old, 5);
    build_begin(&fresh, 6);
    for (int i = 0; i < 40; i++) {
        build_add(&old, 9 + (uint64_t)i, 700);
        build_add(&fresh, 9 + (uint64_t)i, 700);
    }
    for (unsigned cut = 0; cut <= 40; cut++) {
        size_t upto = cut < 40 ? fresh.at[cut] : fresh.end;
        both = old;
        both.head = fresh.head;
        memcpy(both.p, fresh.p, upto);
        assert_int_equal(scan(&both, 0, 0, &report), cut);
        assert_int_equal(report.damaged, 0);
        assert_int_equal(report.next_seq, 10 + cut);
    }
}

static void a_torn_tail_of_any_length_loses_only_the_torn(void **state)
{
    enum { N = 16 };
    static struct built b;
    struct scan_report report;

    (void)state;
    build_sized(&b, 6, 16 << 10);
    for (int i = 0; i < N; i++)
        build_add(&b, 9, 300 + (size_t)i * 3);
    assert_true(b.end - b.at[0] > 4096 + 1000);
    for (uint64_t k = 1; k <= 4096; k++) {
        unsigned whole = 0;
        b.p[b.end - k] = 0; /* behind it, all is 0 already */
        /* the pad of a record is no part of it */
        while (whole < N && b.at[whole] + JOURNAL_RECORD_HEADER + 300 + whole * 3 + 30 <= b.end - k)
            whole++;
        assert_int_equal(scan(&b, 0, 0, &report), whole);
        assert_int_equal(report.damaged, 0);
    }
}

static void pages_that_came_in_another_order_are_the_tail_too(void **state)
{
    static struct built b;
    struct scan_report report;

    (void)state;
    build_begin(&b, 6);
    for (int i = 0; i < 20; i++)
        build_add(&b, i < 10 ? 9 + (uint64_t)i : 19, 300); /* the last ten: one commit, never synced */
    memset(b.p + b.at[12], 0, 100);
    assert_int_equal(scan(&b, 0, 0, &report), 12);
    assert_int_equal(report.damaged, 0);
    assert_true(report.torn_octets > 0);
    /* the next segment exists: then all of this one was durable, and the hole is damage */
    assert_int_equal(scan(&b, 29, 0, &report), 19);
    assert_int_equal(report.damaged, 1);
    /* unless a cut said that it ended there */
    assert_int_equal(scan(&b, 29, 22, &report), 12);
    assert_int_equal(report.damaged, 0);
}

static void every_flipped_bit_is_seen_and_the_rest_loads(void **state)
{
    static struct built b;
    struct scan_report report;

    (void)state;
    build_sized(&b, 6, 8 << 10);
    for (int i = 0; i < 8; i++)
        build_add(&b, 9 + (uint64_t)i, 90);
    assert_true(b.end < b.head.octets);
    for (uint64_t at = b.at[3]; at < b.at[4]; at++)
        for (int bit = 0; bit < 8; bit++) {
            bool is_pad = at >= b.at[3] + JOURNAL_RECORD_HEADER + 90 + 30;
            b.p[at] = (char)(b.p[at] ^ 1 << bit);
            assert_int_equal(scan(&b, 0, 0, &report), is_pad ? 8 : 7);
            assert_int_equal(report.damaged, is_pad ? 0 : 1);
            b.p[at] = (char)(b.p[at] ^ 1 << bit);
        }
}

static void records_written_into_a_message_are_not_records(void **state)
{
    static struct built b, inner;
    struct scan_report report;

    (void)state;
    build_begin(&inner, 6);
    for (int i = 0; i < 10; i++)
        build_add(&inner, 12 + (uint64_t)i, 20);
    build_begin(&b, 6);
    b.head.salt = 4711; /* who writes the message does not know it */
    for (int i = 0; i < 3; i++)
        build_add(&b, 9 + (uint64_t)i, 4000);
    memcpy(b.p + b.at[1] + JOURNAL_RECORD_HEADER + 8, inner.p + SEGMENT_HEADER, 2000);
    b.p[b.at[1]] ^= 1;
    assert_int_equal(scan(&b, 0, 0, &report), 2);
    assert_int_equal(report.damaged, 1);
}

static void a_header_is_read_from_whichever_copy_is_sound(void **state)
{
    struct segment_head h = {.version = FORMAT_VERSION,
                             .number = 3,
                             .salt = 0x1234567,
                             .epoch = 77,
                             .first_seq = 10,
                             .octets = SEG,
                             .previous = 76,
                             .state = SEGMENT_HOT};
    char p[SEGMENT_HEADER], whole[SEGMENT_HEADER];
    struct segment_head got;

    (void)state;
    journal_segment_head_encode(&h, whole);
    for (size_t at = 0; at < HEAD_COPY; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(p, whole, sizeof p);
            p[at] = (char)(p[at] ^ 1 << bit);
            assert_int_equal(journal_segment_head_decode(p, &got), HKY_OK);
            journal_segment_head_encode(&got, p);
            assert_memory_equal(p, whole, sizeof p);
        }
    memset(p, 0, HEAD_COPY);
    assert_int_equal(journal_segment_head_decode(p, &got), HKY_OK);
    p[HEAD_COPY + 20] ^= 1;
    assert_int_equal(journal_segment_head_decode(p, &got), HKY_E_SYNTAX);
}

static void put_number(char *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (char)(v >> (8 * i));
}

/* As format 1 had it: no previous, the checksum behind the salt, no copy. */
static void make_format_1(char p[SEGMENT_HEADER])
{
    put_number(p + 8, 1, 4);
    put_number(p + 48, hky_crc32c(0, p, 48), 4);
    memset(p + 52, 0, SEGMENT_HEADER - 52);
}

static void destroy_first_copy(char p[SEGMENT_HEADER])
{
    memset(p, 0xff, 512);
}

static void change_headers(const char *dir, void (*change)(char p[SEGMENT_HEADER]))
{
    char path[500], journal[128], p[SEGMENT_HEADER];
    int n = 0;
    DIR *d;

    snprintf(journal, sizeof journal, "%s/journal", dir);
    d = opendir(journal);
    assert_non_null(d);
    for (struct dirent *it; (it = readdir(d)) != NULL;) {
        int fd;
        if (strncmp(it->d_name, "seg-", 4) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", journal, it->d_name);
        fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, p, sizeof p, 0), sizeof p);
        change(p);
        assert_int_equal(pwrite(fd, p, sizeof p, 0), sizeof p);
        close(fd);
        n++;
    }
    closedir(d);
    assert_true(n > 1);
}

static void changed_headers_lose_nothing(void (*change)(char p[SEGMENT_HEADER]))
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    for (uint64_t id = 1; id <= 8; id++)
        rig_put(&r, id, 1, 20000);
    rig_close(&r);
    change_headers(r.dir, change);
    for (int k = 0; k < 2; k++) {
        rig_open(&r);
        assert_int_equal(r.report.damaged_records, 0);
        assert_int_equal(r.report.messages, 8);
        for (uint64_t id = 1; id <= 8; id++)
            rig_check_body(&r, hky_idmap_get(&r.found, id));
        rig_close(&r);
    }
    rig_fini(&r);
}

static void a_segment_whose_first_sector_is_gone_loses_nothing(void **state)
{
    (void)state;
    changed_headers_lose_nothing(destroy_first_copy);
}

static void segments_of_format_1_are_read(void **state)
{
    (void)state;
    changed_headers_lose_nothing(make_format_1);
}

static void destroy_both_copies(char p[SEGMENT_HEADER])
{
    memset(p, 0xff, SEGMENT_HEADER);
}

static unsigned n_files(const char *dir, const char *folder)
{
    char path[128];
    unsigned n = 0;
    DIR *d;

    snprintf(path, sizeof path, "%s/%s", dir, folder);
    d = opendir(path);
    assert_non_null(d);
    for (struct dirent *it; (it = readdir(d)) != NULL;)
        n += strncmp(it->d_name, "seg-", 4) == 0;
    closedir(d);
    return n;
}

static void a_second_segment_of_a_number_leaves_the_first_in_damaged(void **state)
{
    unsigned n_aside = 0;
    struct rig r;

    (void)state;
    rig_init(&r);
    for (int k = 0; k < 3; k++) {
        rig_open(&r);
        assert_int_equal(r.report.damaged_records, 0);
        rig_put(&r, (uint64_t)k + 1, 1, 500);
        rig_close(&r);
        n_aside += n_files(r.dir, "journal");
        change_headers(r.dir, destroy_both_copies);
        rig_open(&r);
        rig_close(&r);
        assert_int_equal(n_files(r.dir, "damaged"), n_aside);
    }
    rig_fini(&r);
}

static ssize_t plain_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    (void)ctx;
    return pwritev(fd, iov, n, at);
}

static int plain_fdatasync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd);
}

static int plain_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    (void)ctx;
    return openat(dir, name, flags, mode);
}

static int plain_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    (void)ctx;
    return unlinkat(dir, name, flags);
}

static int plain_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    (void)ctx;
    return fallocate(fd, mode, at, n);
}

static int no_renames_aside(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    (void)ctx;
    errno = EIO;
    return from_dir == to_dir ? renameat(from_dir, from, to_dir, to) : -1;
}

static void what_cannot_be_moved_aside_is_not_written_over(void **state)
{
    struct hky_journal_io io;
    char path[160], first[4] = "";
    struct rig r;
    int fd;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    rig_put(&r, 1, 1, 500);
    rig_close(&r);
    change_headers(r.dir, destroy_both_copies);
    io = (struct hky_journal_io){.pwritev = plain_pwritev,
                                 .fdatasync = plain_fdatasync,
                                 .openat = plain_openat,
                                 .renameat = no_renames_aside,
                                 .unlinkat = plain_unlinkat,
                                 .fallocate = plain_fallocate};
    r.params.io = &io;
    rig_open(&r);
    assert_true(r.report.damaged_records > 0);
    rig_put(&r, 2, 1, 500);
    rig_close(&r);
    snprintf(path, sizeof path, "%s/journal/seg-00000", r.dir);
    fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, first, sizeof first, 0), sizeof first);
    close(fd);
    assert_memory_equal(first, "\xff\xff\xff\xff", sizeof first);
    r.params.io = NULL;
    rig_fini(&r);
}

static void flip(const char *dir, const char *needle)
{
    char path[500], journal[128], *p = malloc(SEG);
    DIR *d;

    snprintf(journal, sizeof journal, "%s/journal", dir);
    d = opendir(journal);
    for (struct dirent *it; (it = readdir(d)) != NULL;) {
        char *hit;
        int fd;
        if (strncmp(it->d_name, "seg-", 4) != 0 || strchr(it->d_name, '.') != NULL) /* spares in the making */
            continue;
        snprintf(path, sizeof path, "%s/%s", journal, it->d_name);
        fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, p, SEG, 0), SEG);
        hit = memmem(p, SEG, needle, strlen(needle));
        if (hit != NULL) {
            *hit ^= 4;
            assert_int_equal(pwrite(fd, hit, 1, hit - p), 1);
        }
        close(fd);
    }
    closedir(d);
    free(p);
}

static void a_damaged_message_is_set_aside_and_reported(void **state)
{
    struct rig r, crashed;
    char needle[128];
    int n = 0;
    DIR *d;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    for (uint64_t id = 1; id <= 12; id++)
        rig_put(&r, id, 1, 1000);
    rig_init(&crashed);
    copy_spool(r.dir, crashed.dir);
    for (int i = 0; i < 40; i++)
        needle[i] = body_octet(7, 500 + (size_t)i);
    needle[40] = '\0';
    flip(crashed.dir, needle);
    rig_open(&crashed);
    assert_int_equal(crashed.report.damaged_records, 1);
    assert_int_equal(crashed.report.messages, 11);
    assert_null(hky_idmap_get(&crashed.found, 7));
    for (uint64_t id = 8; id <= 12; id++)
        rig_check_body(&crashed, hky_idmap_get(&crashed.found, id));
    snprintf(needle, sizeof needle, "%s/damaged", crashed.dir);
    d = opendir(needle);
    for (struct dirent *it; (it = readdir(d)) != NULL;)
        n += it->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, 1);
    rig_close(&crashed);
    rig_open(&crashed); /* said once */
    assert_int_equal(crashed.report.damaged_records, 0);
    assert_int_equal(crashed.report.messages, 11);
    rig_fini(&crashed);
    rig_fini(&r);
}

static void a_body_that_rotted_later_is_an_error_not_mail(void **state)
{
    struct rig r;
    struct hky_body_read read;
    char needle[41];
    struct hky_message *m;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    m = rig_put(&r, 7, 1, 1000);
    hky_journal_body_drop(r.j, m);
    for (int i = 0; i < 40; i++)
        needle[i] = body_octet(7, 500 + (size_t)i);
    needle[40] = '\0';
    flip(r.dir, needle);
    read = (struct hky_body_read){.loop = r.loop, .message = m, .done = rig_on_body};
    if (!hky_journal_body(r.j, &read))
        for (int i = 0; i < 1000 && read.message != NULL; i++)
            hky_loop_turn(r.loop, 10);
    assert_int_equal(read.result, HKY_E_DAMAGED);
    hky_body_read_release(&read);
    rig_fini(&r);
}

static void a_dropped_tail_stays_dropped(void **state)
{
    struct rig r, crashed;
    char needle[41];

    (void)state;
    rig_init(&r);
    rig_open(&r);
    for (uint64_t id = 1; id <= 5; id++)
        rig_put(&r, id, 1, 1000);
    rig_init(&crashed);
    copy_spool(r.dir, crashed.dir);
    for (int i = 0; i < 40; i++)
        needle[i] = body_octet(5, 500 + (size_t)i);
    needle[40] = '\0';
    flip(crashed.dir, needle); /* the last record: nothing says that it was durable */
    rig_open(&crashed);
    assert_int_equal(crashed.report.messages, 4);
    assert_int_equal(crashed.report.damaged_records, 0);
    assert_true(crashed.report.torn_tail_octets > 0);
    rig_put(&crashed, 50, 1, 1000);
    needle[0] ^= 4;
    flip(crashed.dir, needle); /* the page arrives after all */
    rig_close(&crashed);
    rig_open(&crashed);
    assert_int_equal(crashed.report.messages, 5);
    assert_null(hky_idmap_get(&crashed.found, 5));
    assert_non_null(hky_idmap_get(&crashed.found, 50));
    rig_fini(&crashed);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read_from_whichever_copy_is_sound),
        cmocka_unit_test(a_segment_whose_first_sector_is_gone_loses_nothing),
        cmocka_unit_test(segments_of_format_1_are_read),
        cmocka_unit_test(a_second_segment_of_a_number_leaves_the_first_in_damaged),
        cmocka_unit_test(what_cannot_be_moved_aside_is_not_written_over),
        cmocka_unit_test(a_recycled_segment_cut_at_every_record_shows_nothing_old),
        cmocka_unit_test(a_torn_tail_of_any_length_loses_only_the_torn),
        cmocka_unit_test(pages_that_came_in_another_order_are_the_tail_too),
        cmocka_unit_test(every_flipped_bit_is_seen_and_the_rest_loads),
        cmocka_unit_test(records_written_into_a_message_are_not_records),
        cmocka_unit_test(a_damaged_message_is_set_aside_and_reported),
        cmocka_unit_test(a_body_that_rotted_later_is_an_error_not_mail),
        cmocka_unit_test(a_dropped_tail_stays_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
