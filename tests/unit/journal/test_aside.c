/* What is set aside in damaged/ is durable there before its original may go. */
#include "rig.h"

#include <pthread.h>
#include <sys/uio.h>

enum { TRACE_MAX = 4096, TRACE_LINE = 160 };

/* The disk calls in their order, one line each: "sync damaged/seg-00000". */
struct trace {
    pthread_mutex_t lock;
    const char *dir;
    const char *full; /* the folder that no file can be made in */
    int n;
    char lines[TRACE_MAX][TRACE_LINE];
};

/* The path below the spool. */
static void path_of(const struct trace *t, int fd, const char *name, char out[TRACE_LINE])
{
    char link[32], path[TRACE_LINE];
    size_t below = strlen(t->dir);
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = '\0';
    if (strncmp(path, t->dir, below) != 0)
        below = 0; /* the folder that holds the spool */
    else if (path[below] == '/')
        below++;
    snprintf(out, TRACE_LINE, "%.80s%s%.70s", path + below, name != NULL ? "/" : "", name != NULL ? name : "");
}

static void trace_begin(struct trace *t)
{
    pthread_mutex_lock(&t->lock);
    assert_true(t->n < TRACE_MAX);
}

static void trace_end(struct trace *t, bool ok, const char *verb, const char *path, const char *to)
{
    int why = errno;

    if (ok)
        snprintf(t->lines[t->n++], TRACE_LINE, "%.8s %.70s%s%.70s", verb, path, to[0] != '\0' ? " " : "", to);
    pthread_mutex_unlock(&t->lock);
    errno = why;
}

static ssize_t trace_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    char path[TRACE_LINE];
    ssize_t wrote;

    trace_begin(ctx);
    path_of(ctx, fd, NULL, path);
    wrote = pwritev(fd, iov, n, at);
    trace_end(ctx, wrote >= 0, "write", path, "");
    return wrote;
}

static int trace_fdatasync(void *ctx, int fd)
{
    char path[TRACE_LINE];
    int rc;

    trace_begin(ctx);
    path_of(ctx, fd, NULL, path);
    rc = fdatasync(fd);
    trace_end(ctx, rc == 0, "sync", path, "");
    return rc;
}

static int trace_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    const struct trace *t = ctx;
    char path[TRACE_LINE];
    int fd;

    trace_begin(ctx);
    path_of(ctx, dir, name, path);
    fd = -1;
    if (t->full != NULL && (flags & O_CREAT) != 0 && strncmp(path, t->full, strlen(t->full)) == 0)
        errno = ENOSPC;
    else
        fd = openat(dir, name, flags, mode);
    trace_end(ctx, fd >= 0, (flags & O_CREAT) != 0 ? "make" : "open", path, "");
    return fd;
}

static int trace_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    char path[TRACE_LINE], to_path[TRACE_LINE];
    int rc;

    trace_begin(ctx);
    path_of(ctx, from_dir, from, path);
    path_of(ctx, to_dir, to, to_path);
    rc = renameat(from_dir, from, to_dir, to);
    trace_end(ctx, rc == 0, "rename", path, to_path);
    return rc;
}

static int trace_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    char path[TRACE_LINE];
    int rc;

    trace_begin(ctx);
    path_of(ctx, dir, name, path);
    rc = unlinkat(dir, name, flags);
    trace_end(ctx, rc == 0, "unlink", path, "");
    return rc;
}

static int trace_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    (void)ctx;
    return fallocate(fd, mode, at, n);
}

static struct hky_journal_io trace_io(struct trace *t)
{
    return (struct hky_journal_io){.ctx = t,
                                   .pwritev = trace_pwritev,
                                   .fdatasync = trace_fdatasync,
                                   .openat = trace_openat,
                                   .renameat = trace_renameat,
                                   .unlinkat = trace_unlinkat,
                                   .fallocate = trace_fallocate};
}

/* Where the first line from `from` on stands that begins so (is so, unless `is_start`); -1. */
static int line_of(struct trace *t, int from, const char *line, bool is_start)
{
    int at = -1;

    pthread_mutex_lock(&t->lock);
    for (int i = from; i < t->n && at < 0; i++)
        if (is_start ? strncmp(t->lines[i], line, strlen(line)) == 0 : strcmp(t->lines[i], line) == 0)
            at = i;
    pthread_mutex_unlock(&t->lock);
    return at;
}

/* The same, of "VERB PATH"; it must be there. */
static int after(struct trace *t, int from, const char *verb, const char *path)
{
    char line[TRACE_LINE];
    int at;

    snprintf(line, sizeof line, "%.8s %.140s", verb, path);
    at = line_of(t, from, line, false);
    if (at < 0) {
        for (int i = 0; i < t->n; i++)
            print_error("%d: %s\n", i, t->lines[i]);
        fail_msg("no \"%s\" from line %d on", line, from);
    }
    return at;
}

/* The segment that has the body of a message; overwritten there with `n` octets, at `at` or in the body. */
static void spoil(const struct rig *r, uint64_t id, off_t at, const void *with, size_t n, char name[32])
{
    char path[128], needle[40], *p = malloc(r->params.segment_octets), *hit = NULL;
    int fd = -1;

    for (size_t i = 0; i < sizeof needle; i++)
        needle[i] = body_octet(id, 500 + i);
    for (unsigned k = 0; hit == NULL; k++) { /* numbers are left out where maintenance is making a file */
        ssize_t got;
        assert_true(k < 64);
        if (fd >= 0)
            close(fd);
        snprintf(name, 32, "seg-%05u", k);
        snprintf(path, sizeof path, "%s/journal/%s", r->dir, name);
        if ((fd = open(path, O_RDWR)) < 0)
            continue;
        got = pread(fd, p, r->params.segment_octets, 0);
        assert_true(got >= 0);
        hit = memmem(p, (size_t)got, needle, sizeof needle);
    }
    assert_int_equal(pwrite(fd, with, n, at >= 0 ? at : hit - p), n);
    close(fd);
    free(p);
}

static bool holds_body(const struct rig *r, const char *name, uint64_t id)
{
    char path[200], needle[40], *p = malloc(r->params.segment_octets);
    ssize_t n;
    bool is_there;
    int fd;

    for (size_t i = 0; i < sizeof needle; i++)
        needle[i] = body_octet(id, 600 + i);
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    n = read(fd, p, r->params.segment_octets);
    is_there = n > 0 && memmem(p, (size_t)n, needle, sizeof needle) != NULL;
    close(fd);
    free(p);
    return is_there;
}

static void a_copy_of_the_damaged_is_durable_before_its_segment_is_touched(void **state)
{
    static struct trace t;
    struct hky_journal_io io = trace_io(&t);
    struct rig r, crashed;
    char segment[32], original[64], copy[80], line[200];
    int at, written, synced, named, in_folder;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    for (uint64_t id = 1; id <= 12; id++)
        rig_put(&r, id, 1, 1000);
    rig_init(&crashed);
    copy_spool(r.dir, crashed.dir);
    rig_fini(&r);
    spoil(&crashed, 7, -1, "#", 1, segment);
    t = (struct trace){.lock = PTHREAD_MUTEX_INITIALIZER, .dir = crashed.dir};
    crashed.params.io = &io;
    rig_open(&crashed);
    assert_int_equal(crashed.report.damaged_records, 1);
    for (uint64_t id = 1; id <= 12; id++)
        if (id != 7)
            rig_finish(&crashed, hky_idmap_get(&crashed.found, id), 0);
    hky_journal_flush(crashed.j);
    snprintf(original, sizeof original, "journal/%s", segment);
    snprintf(line, sizeof line, "unlink %s", original);
    wait_until(line_of(&t, 0, line, false) >= 0); /* damaged: not used again */
    snprintf(line, sizeof line, "make damaged/%s-", segment);
    at = line_of(&t, 0, line, true);
    assert_true(at >= 0);
    snprintf(line, sizeof line, "%s", t.lines[at] + strlen("make "));
    snprintf(copy, sizeof copy, "%.*s", (int)(strlen(line) - strlen(".new")), line);
    written = after(&t, at, "write", line);
    synced = after(&t, written, "sync", line);
    snprintf(line, sizeof line, "%s.new %s", copy, copy);
    named = after(&t, synced, "rename", line);
    in_folder = after(&t, named, "sync", "damaged");
    assert_true(after(&t, 0, "write", original) > in_folder);
    assert_true(after(&t, 0, "unlink", original) > in_folder);
    assert_true(holds_body(&crashed, copy, 7));
    rig_close(&crashed);
    crashed.params.io = NULL;
    rig_fini(&crashed);
}

static void what_cannot_be_copied_goes_to_damaged_whole(void **state)
{
    static struct trace t;
    struct hky_journal_io io = trace_io(&t);
    struct rig r, crashed;
    char segment[32], line[200];
    int moved;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    for (uint64_t id = 1; id <= 12; id++)
        rig_put(&r, id, 1, 1000);
    rig_init(&crashed);
    copy_spool(r.dir, crashed.dir);
    rig_fini(&r);
    spoil(&crashed, 7, -1, "#", 1, segment);
    t = (struct trace){.lock = PTHREAD_MUTEX_INITIALIZER, .dir = crashed.dir, .full = "damaged/"};
    crashed.params.io = &io;
    rig_open(&crashed);
    assert_int_equal(crashed.report.damaged_records, 1);
    snprintf(line, sizeof line, "journal/%s damaged/%s", segment, segment);
    assert_int_equal(line_of(&t, 0, line, false), -1); /* there is mail in it */
    for (uint64_t id = 1; id <= 12; id++)
        if (id != 7)
            rig_finish(&crashed, hky_idmap_get(&crashed.found, id), 0);
    hky_journal_flush(crashed.j);
    snprintf(line, sizeof line, "rename journal/%s damaged/%s", segment, segment);
    wait_until(line_of(&t, 0, line, false) >= 0);
    moved = line_of(&t, 0, line, false);
    wait_until(line_of(&t, moved, "sync damaged", false) >= 0);
    wait_until(line_of(&t, moved, "sync journal", false) >= 0);
    snprintf(line, sizeof line, "unlink journal/%s", segment);
    assert_int_equal(line_of(&t, 0, line, false), -1);
    snprintf(line, sizeof line, "damaged/%s", segment);
    assert_true(holds_body(&crashed, line, 7));
    rig_close(&crashed);
    crashed.params.io = NULL;
    rig_fini(&crashed);
}

static void a_segment_is_durable_in_damaged_before_another_takes_its_name(void **state)
{
    static struct trace t;
    struct hky_journal_io io = trace_io(&t);
    char segment[32], line[200], junk[SEGMENT_HEADER];
    int moved, in_damaged, in_journal;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    rig_put(&r, 1, 1, 1000);
    rig_close(&r);
    memset(junk, 0xff, sizeof junk);
    spoil(&r, 1, 0, junk, sizeof junk, segment);
    t = (struct trace){.lock = PTHREAD_MUTEX_INITIALIZER, .dir = r.dir};
    r.params.io = &io;
    rig_open(&r);
    for (uint64_t id = 10; id < 20; id++) /* over more segments than there were */
        rig_put(&r, id, 1, 20000);
    snprintf(line, sizeof line, "make journal/%s.new", segment);
    wait_until(line_of(&t, 0, line, false) >= 0);
    snprintf(line, sizeof line, "journal/%s damaged/%s", segment, segment);
    moved = after(&t, 0, "rename", line);
    in_damaged = after(&t, moved, "sync", "damaged");
    in_journal = after(&t, in_damaged, "sync", "journal");
    assert_true(line_of(&t, moved, "make journal/", true) > in_journal);
    snprintf(line, sizeof line, "damaged/%s", segment);
    assert_true(holds_body(&r, line, 1));
    rig_close(&r);
    r.params.io = NULL;
    rig_fini(&r);
}

static void the_body_of_a_damaged_large_message_is_kept(void **state)
{
    char segment[32], junk[SEGMENT_HEADER], name[HKY_ID_TEXT], path[64];
    struct hky_message *m;
    struct hky_big *big;
    struct told t;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    rig_put(&r, 1, 1, 1000);
    m = make_message(&r, 7, 1, 1000);
    assert_int_equal(hky_journal_big_open(r.j, 7, r.loop, NULL, NULL, &big), HKY_OK);
    hky_journal_big_write(big, m->body->p, m->body->n);
    m->is_big = true;
    hky_body_unref(&m->body);
    told_init(&r, &t);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(&r, &t);
    assert_int_equal(rig_accept(&r, m), HKY_OK);
    hky_message_unref(&m);
    rig_close(&r);
    memset(junk, 0xff, sizeof junk);
    spoil(&r, 1, 0, junk, sizeof junk, segment); /* the record that names it goes to damaged/ with its segment */
    rig_open(&r);
    assert_int_equal(r.report.damaged_records, 1);
    hky_id_format(7, name);
    snprintf(path, sizeof path, "damaged/%s", name);
    assert_true(holds_body(&r, path, 7));
    rig_close(&r);
    rig_open(&r);
    assert_true(holds_body(&r, path, 7));
    rig_fini(&r);
}

/* Sound octets that this engine cannot read may be read by another: they are never written over. */
static void a_segment_with_facts_that_cannot_be_read_is_kept(void **state)
{
    char segment[32], path[64], again[128];
    struct rig r, crashed;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    rig_put(&r, 1, 1, 5); /* its header is longer than the whole: refused when it is read */
    rig_put(&r, 2, 1, 1000);
    rig_init(&crashed);
    copy_spool(r.dir, crashed.dir);
    rig_fini(&r);
    spoil(&crashed, 2, 64000, "", 0, segment);
    for (int restart = 0; restart < 3; restart++) { /* without a footer, and with one */
        rig_open(&crashed);
        assert_int_equal(crashed.report.damaged_records, 1);
        if (restart == 2)
            rig_finish(&crashed, hky_idmap_get(&crashed.found, 2), 0);
        hky_journal_flush(crashed.j);
        rig_rounds(&crashed, 2);
        if (restart < 2)
            rig_close(&crashed);
    }
    snprintf(path, sizeof path, "damaged/%s", segment);
    snprintf(again, sizeof again, "%s/%s", crashed.dir, path);
    wait_until(access(again, F_OK) == 0);
    assert_true(holds_body(&crashed, path, 2));
    rig_fini(&crashed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_of_the_damaged_is_durable_before_its_segment_is_touched),
        cmocka_unit_test(what_cannot_be_copied_goes_to_damaged_whole),
        cmocka_unit_test(a_segment_is_durable_in_damaged_before_another_takes_its_name),
        cmocka_unit_test(the_body_of_a_damaged_large_message_is_kept),
        cmocka_unit_test(a_segment_with_facts_that_cannot_be_read_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
