/* What keeps the past from coming back, and the present from going too early: each test fails when one line of that is
 * broken. */
#include "rig.h"

#include "journal/internal.h"

#define SEGMENT (64 << 10)

/* ---- a disk whose calls are watched ---- */

struct disk {
    atomic_int syncs_that_fail, writes_that_fail; /* the next ones */
    pthread_mutex_t gate;                         /* whoever holds it holds up syncs */
    atomic_uint n_at_gate;
    atomic_bool fails_writes_after_sync; /* a failed sync makes the next write fail, too */
    atomic_bool has_no_room_for_copies;  /* of damaged parts of segments */
    atomic_ulong part_inode; /* of the large body; a descriptor's number goes to another file after close() */
    atomic_bool is_part_synced, was_renamed_unsynced;
    atomic_int name_dir;        /* where it was given its name */
    atomic_bool is_name_synced; /* that folder, after that */
};

static bool takes_one(atomic_int *n)
{
    int was = atomic_load(n);

    while (was > 0)
        if (atomic_compare_exchange_weak(n, &was, was - 1))
            return true;
    return false;
}

static unsigned long inode_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static ssize_t disk_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    struct disk *d = ctx;

    if (takes_one(&d->writes_that_fail)) {
        errno = EIO;
        return -1;
    }
    if (inode_of(fd) == atomic_load(&d->part_inode))
        atomic_store(&d->is_part_synced, false);
    return pwritev(fd, iov, n, at);
}

static int disk_fdatasync(void *ctx, int fd)
{
    struct disk *d = ctx;

    if (takes_one(&d->syncs_that_fail)) {
        if (atomic_load(&d->fails_writes_after_sync))
            atomic_store(&d->writes_that_fail, 1);
        errno = EIO;
        return -1;
    }
    atomic_fetch_add(&d->n_at_gate, 1);
    pthread_mutex_lock(&d->gate);
    pthread_mutex_unlock(&d->gate);
    atomic_fetch_sub(&d->n_at_gate, 1);
    if (inode_of(fd) == atomic_load(&d->part_inode))
        atomic_store(&d->is_part_synced, true);
    if (fd == atomic_load(&d->name_dir))
        atomic_store(&d->is_name_synced, true);
    return fdatasync(fd);
}

static bool is_part(const char *name)
{
    size_t n = strlen(name);

    return n > 5 && strcmp(name + n - 5, ".part") == 0;
}

static int disk_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    struct disk *d = ctx;
    int fd;

    if (atomic_load(&d->has_no_room_for_copies) && strncmp(name, "seg-", 4) == 0 &&
        name[strspn(name + 4, "0123456789") + 4] == '-') {
        errno = ENOSPC;
        return -1;
    }
    fd = openat(dir, name, flags, mode);
    if (is_part(name))
        atomic_store(&d->part_inode, inode_of(fd));
    return fd;
}

static int disk_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    struct disk *d = ctx;

    if (is_part(from) && !atomic_load(&d->is_part_synced))
        atomic_store(&d->was_renamed_unsynced, true);
    if (is_part(from)) {
        atomic_store(&d->is_name_synced, false);
        atomic_store(&d->name_dir, to_dir);
    }
    return renameat(from_dir, from, to_dir, to);
}

static int disk_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    (void)ctx;
    return unlinkat(dir, name, flags);
}

static int disk_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    (void)ctx;
    return fallocate(fd, mode, at, n);
}

static void set_up(struct rig *r, struct disk *d, struct hky_journal_io *io)
{
    *d = (struct disk){.name_dir = -1, .gate = PTHREAD_MUTEX_INITIALIZER};
    *io = (struct hky_journal_io){.ctx = d,
                                  .pwritev = disk_pwritev,
                                  .fdatasync = disk_fdatasync,
                                  .openat = disk_openat,
                                  .renameat = disk_renameat,
                                  .unlinkat = disk_unlinkat,
                                  .fallocate = disk_fallocate};
    rig_init(r);
    r->params.io = io;
    rig_open(r);
}

/* Puts and finishes mail until another segment is the hot one. */
static void fill_segment(struct rig *r, uint64_t *id)
{
    uint32_t slot = 0;

    for (int i = 0; i < 6; i++) {
        struct hky_message *m = rig_put(r, ++*id, 1, 20000);
        if (slot != 0 && m->segment != slot)
            i = 6;
        slot = m->segment;
        rig_finish(r, m, 0);
    }
    hky_journal_flush(r->j);
}

/* 0 once it was given away. */
static uint64_t epoch_of(struct rig *r, uint32_t slot)
{
    const struct segment *s;
    uint64_t epoch;

    pthread_mutex_lock(&r->j->index_lock);
    s = r->j->slots[slot];
    epoch = s->fd >= 0 && s->head.state != SEGMENT_FREE ? s->head.epoch : 0;
    pthread_mutex_unlock(&r->j->index_lock);
    return epoch;
}

/* ---- the tests ---- */

static void a_large_file_has_its_name_only_when_it_is_synced(void **state)
{
    struct hky_journal_io io;
    struct hky_big *big;
    struct disk d;
    struct told t;
    struct rig r;

    (void)state;
    set_up(&r, &d, &io);
    assert_int_equal(hky_journal_big_open(r.j, 9, r.loop, NULL, NULL, &big), HKY_OK);
    for (int i = 0; i < 20; i++)
        hky_journal_big_write(big, "0123456789", 10);
    told_init(&r, &t);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(&r, &t);
    assert_int_equal(t.result, HKY_OK);
    assert_true(atomic_load(&d.is_part_synced));
    assert_false(atomic_load(&d.was_renamed_unsynced));
    assert_true(atomic_load(&d.is_name_synced)); /* else a power cut takes the name away, and the body with it */
    rig_fini(&r);
}

static void a_segment_that_is_being_read_is_not_given_away(void **state)
{
    struct hky_journal_io io;
    struct disk d;
    struct rig r;
    uint32_t read_slot, other_slot;
    uint64_t id = 0, read_epoch, other_epoch;

    (void)state;
    set_up(&r, &d, &io);
    rig_put(&r, ++id, 1, 20000);
    read_slot = ((struct hky_message *)hky_idmap_get(&r.found, 1))->segment - 1;
    read_epoch = epoch_of(&r, read_slot);
    atomic_fetch_add(&r.j->slots[read_slot]->readers, 1);
    rig_finish(&r, hky_idmap_get(&r.found, 1), 0);
    fill_segment(&r, &id);
    rig_put(&r, ++id, 1, 20000);
    other_slot = ((struct hky_message *)hky_idmap_get(&r.found, id))->segment - 1;
    assert_int_not_equal(other_slot, read_slot);
    other_epoch = epoch_of(&r, other_slot);
    rig_finish(&r, hky_idmap_get(&r.found, id), 0);
    fill_segment(&r, &id);
    fill_segment(&r, &id);
    /* The younger one goes; the older one, which maintenance looks at before it, does not. */
    wait_until(epoch_of(&r, other_slot) != other_epoch);
    assert_int_equal(epoch_of(&r, read_slot), read_epoch);
    atomic_fetch_sub(&r.j->slots[read_slot]->readers, 1);
    fill_segment(&r, &id); /* maintenance is woken */
    wait_until(epoch_of(&r, read_slot) != read_epoch);
    rig_fini(&r);
}

static void what_was_refused_stays_refused_when_the_word_of_it_moves(void **state)
{
    struct hky_journal_io io;
    struct hky_message *refused;
    struct disk d;
    struct rig r;
    uint32_t void_slot;
    uint64_t id = 10, void_epoch;

    (void)state;
    set_up(&r, &d, &io);
    rig_put(&r, 1, 1, 1000); /* it lives in the segment that fails, which therefore stays */
    refused = make_message(&r, 2, 1, 1000);
    rig_at_rest(&r);
    atomic_store(&d.fails_writes_after_sync, true); /* nor can the refused record be made unreadable */
    atomic_store(&d.syncs_that_fail, 1);
    assert_int_equal(rig_accept(&r, refused), HKY_E_IO);
    hky_message_unref(&refused);
    rig_put(&r, 3, 1, 1000);
    void_slot = ((struct hky_message *)hky_idmap_get(&r.found, 3))->segment - 1;
    void_epoch = epoch_of(&r, void_slot);
    rig_finish(&r, hky_idmap_get(&r.found, 3), 0);
    fill_segment(&r, &id);
    fill_segment(&r, &id);
    /* the segment with the `void` record goes; what it said must be said again */
    wait_until(epoch_of(&r, void_slot) != void_epoch);
    rig_close(&r);
    rig_open(&r);
    assert_non_null(hky_idmap_get(&r.found, 1));
    assert_null(hky_idmap_get(&r.found, 2));
    rig_fini(&r);
}

/* All that wait are refused at once; the record that says so has room in a segment, however many they are. */
static void any_number_of_messages_is_refused_at_once(void **state)
{
    enum { N = 5000 };
    struct told first, *told = calloc(N, sizeof *told);
    struct hky_message *m = NULL;
    struct hky_journal_io io;
    struct disk d;
    struct rig r;

    (void)state;
    set_up(&r, &d, &io);
    rig_put(&r, 2, 1, 1000); /* a segment is open */
    m = make_message(&r, 1, 1, 1000);
    rig_at_rest(&r);
    told_init(&r, &first);
    pthread_mutex_lock(&d.gate);
    hky_journal_accept(r.j, m, &first.commit);
    wait_until(atomic_load(&d.n_at_gate) == 1);
    for (unsigned i = 0; i < N; i++) { /* they wait for the committer together */
        struct hky_message *other = make_message(&r, 100 + i, 1, 10);
        told_init(&r, &told[i]);
        hky_journal_accept(r.j, other, &told[i].commit);
        hky_message_unref(&other);
    }
    atomic_store(&d.syncs_that_fail, 1);
    pthread_mutex_unlock(&d.gate);
    told_wait(&r, &first);
    assert_int_equal(first.result, HKY_OK);
    hky_message_unref(&m);
    for (unsigned i = 0; i < N; i++) {
        told_wait(&r, &told[i]);
        assert_int_equal(told[i].result, HKY_E_IO);
    }
    rig_close(&r);
    rig_open(&r);
    assert_int_equal(r.report.messages, 2);
    assert_non_null(hky_idmap_get(&r.found, 1));
    rig_fini(&r);
    free(told);
}

static void a_notice_outlives_the_footer_that_leaves_its_cause_out(void **state)
{
    struct hky_journal_io io;
    struct hky_message *m, *notice;
    struct disk d;
    struct rig r;

    (void)state;
    set_up(&r, &d, &io);
    m = rig_put(&r, 5, 1, 100);
    notice = make_message(&r, 900, 1, 300);
    m->recipients[0].state = HKY_RCPT_FAILED;
    hky_journal_finish(r.j, &m->recipients[0], notice, NULL);
    hky_idmap_remove(&r.found, 5);
    hky_message_unref(&m);
    hky_journal_flush(r.j);
    hky_message_unref(&notice);
    for (int round = 0; round < 2; round++) { /* from the footer, and from the footer of what was read from it */
        rig_close(&r);
        rig_open(&r);
        assert_non_null(hky_idmap_get(&r.found, 900));
        assert_null(hky_idmap_get(&r.found, 5));
    }
    rig_fini(&r);
}

/* As a kill leaves it before maintenance wrote the footer, and with an octet of its last record changed: reads what is
 * there from that record on. */
static size_t damage_last_record(const char *path, const struct hky_message *last, char *out)
{
    char *p = calloc(1, SEGMENT), *hit, needle[40];
    struct journal_record trailer;
    struct segment_head head;
    int fd = open(path, O_RDWR);
    size_t n;

    assert_int_equal(pread(fd, p, SEGMENT, 0), SEGMENT);
    assert_int_equal(journal_segment_head_decode(p, &head), HKY_OK);
    assert_true(journal_record_decode(p + SEGMENT - JOURNAL_RECORD_HEADER, JOURNAL_RECORD_HEADER, head.epoch, head.salt,
                                      &trailer));
    memset(p + trailer.key, 0, SEGMENT - trailer.key);
    for (size_t i = 0; i < sizeof needle; i++)
        needle[i] = body_octet(last->id, i);
    hit = memmem(p, SEGMENT, needle, sizeof needle);
    assert_non_null(hit);
    hit[1000] ^= 4;
    assert_int_equal(pwrite(fd, p, SEGMENT, 0), SEGMENT);
    close(fd);
    n = (size_t)(p + trailer.key - hit);
    memcpy(out, hit, n);
    free(p);
    return n;
}

static bool file_has(const char *path, const char *octets, size_t n)
{
    char *p = calloc(1, SEGMENT);
    int fd = open(path, O_RDONLY);
    bool has = fd >= 0 && pread(fd, p, SEGMENT, 0) == SEGMENT && memmem(p, SEGMENT, octets, n) != NULL;

    if (fd >= 0)
        close(fd);
    free(p);
    return has;
}

/* What an acknowledged record has become is all that is left of it. On a full disk it cannot be copied to damaged/, so
 * it stays where it is until its segment goes there. */
static void a_damaged_tail_that_cannot_be_copied_is_not_written_over(void **state)
{
    static char octets[SEGMENT];
    char path[200], aside[200];
    struct hky_journal_io io;
    struct disk d;
    struct rig r;
    uint32_t slot;
    uint64_t id = 1;
    size_t n;

    (void)state;
    set_up(&r, &d, &io);
    rig_close(&r);
    r.params.cold_after_ms = 3600 * 1000;
    rig_open(&r);
    slot = rig_put(&r, id, 1, 15000)->segment - 1;
    while (rig_put(&r, ++id, 1, 15000)->segment - 1 == slot)
        continue; /* the last one is in the next segment, and proves the ones before it */
    assert_true(id > 3);
    snprintf(path, sizeof path, "%s/journal/seg-%05u", r.dir, slot);
    snprintf(aside, sizeof aside, "%s/damaged/seg-%05u", r.dir, slot);
    rig_close(&r);
    n = damage_last_record(path, &(struct hky_message){.id = id - 1}, octets);
    atomic_store(&d.has_no_room_for_copies, true);
    for (int round = 0; round < 2; round++) {
        rig_open(&r);
        assert_int_equal(r.report.messages, id - 1);
        assert_int_equal(r.report.damaged_records, 1);
        rig_rounds(&r, 2);
        assert_true(file_has(path, octets, n));
        if (round == 0)
            rig_close(&r);
    }
    for (uint64_t k = 1; k < id - 1; k++)
        rig_finish(&r, hky_idmap_get(&r.found, k), 0);
    hky_journal_flush(r.j);
    wait_until(file_has(aside, octets, n));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_file_has_its_name_only_when_it_is_synced),
        cmocka_unit_test(a_segment_that_is_being_read_is_not_given_away),
        cmocka_unit_test(what_was_refused_stays_refused_when_the_word_of_it_moves),
        cmocka_unit_test(any_number_of_messages_is_refused_at_once),
        cmocka_unit_test(a_notice_outlives_the_footer_that_leaves_its_cause_out),
        cmocka_unit_test(a_damaged_tail_that_cannot_be_copied_is_not_written_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
