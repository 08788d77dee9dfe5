#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <pthread.h>
#include <cmocka.h>
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "hikyaku/record.h"
#include "record/pending.h"

static char dir[64];
static struct hky_clock the_clock = {0, 1764000000123};

static struct hky_record *open_record(uint64_t buffer, uint64_t rotate)
{
    struct hky_record *r;
    struct hky_error e = {0};

    assert_int_equal(
        hky_record_open(
            &(struct hky_record_params){
                .dir = dir, .n_workers = 2, .buffer_octets = buffer, .rotate_octets = rotate, .clock = &the_clock},
            &r, &e),
        HKY_OK);
    return r;
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hikyaku-record-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static json_t *read_line(FILE *f)
{
    char line[8192];

    return fgets(line, sizeof line, f) != NULL ? json_loads(line, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static void a_line_has_its_keys_and_peer_text_is_inert(void **state)
{
    struct hky_rcpt_draft rcpt = {HKY_STR("a..b@docomo.ne.jp"), HKY_STR(""), 0};
    struct hky_message_draft d = {.id = 77, .size = 10, .recipients = &rcpt, .n_recipients = 1};
    struct hky_message *m;
    struct hky_outcome o = {.class = HKY_CLASS_BLOCKED_IP, .scope = HKY_SCOPE_PATH, .stage = HKY_STAGE_DOT};
    struct hky_record *r = open_record(0, 0);
    char path[128];
    json_t *row;
    FILE *f;

    (void)state;
    d.facts[HKY_FACT_SCENARIO] = HKY_STR("spring");
    m = hky_message_new(&d);
    hky_reply_from_text(&o.reply, HKY_STR("550 5.7.1 \x1b[2J\"quoted\" \xe2\x80\xae blocked"));
    m->recipients[0].arms = memcpy(hky_alloc(8), "exp\0arm\0", 8);
    m->recipients[0].arms_n = 8;
    hky_record_event(r, 0,
                     &(struct hky_event){.kind = HKY_EVENT_DEFERRED,
                                         .at_ms = 1764000000123,
                                         .message = m,
                                         .recipient = &m->recipients[0],
                                         .outcome = &o,
                                         .relay = "own",
                                         .next_at_ms = 1764000300000});
    hky_record_close(&r);
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    f = fopen(path, "r");
    assert_non_null(f);
    row = read_line(f);
    assert_non_null(row);
    assert_string_equal(json_string_value(json_object_get(row, "ev")), "deferred");
    assert_string_equal(json_string_value(json_object_get(row, "time")), "2025-11-24T16:00:00.123Z");
    assert_string_equal(json_string_value(json_object_get(row, "next_at")), "2025-11-24T16:05:00.000Z");
    assert_string_equal(json_string_value(json_object_get(row, "rcpt")), "a..b@docomo.ne.jp");
    assert_string_equal(json_string_value(json_object_get(row, "scenario")), "spring");
    assert_string_equal(json_string_value(json_object_get(row, "class")), "blocked_ip");
    assert_string_equal(json_string_value(json_object_get(row, "enhanced")), "5.7.1");
    assert_int_equal(json_integer_value(json_object_get(row, "code")), 550);
    assert_string_equal(json_string_value(json_object_get(json_object_get(row, "arms"), "exp")), "arm");
    json_decref(row);
    assert_null(read_line(f));
    fclose(f);
    hky_message_unref(&m);
}

static void *emit_many(void *arg)
{
    struct hky_record *r = arg;

    for (int i = 0; i < 20000; i++)
        hky_record_event(r, (unsigned)i % 3,
                         &(struct hky_event){.kind = HKY_EVENT_STARTED, .at_ms = 1764000000000 + i, .text = "x"});
    return NULL;
}

static void lines_of_threads_stay_whole_and_rotate(void **state)
{
    struct hky_record *r = open_record(0, 1u << 20);
    pthread_t threads[3];
    char command[256];

    (void)state;
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, emit_many, r);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(hky_record_dropped(r), 0);
    hky_record_close(&r);
    snprintf(
        command, sizeof command,
        "test $(cat %s/events*.jsonl | grep -c '^{\"ev\":\"started\".*}$') = 60000 && ls %s/events-*.jsonl >/dev/null",
        dir, dir);
    assert_int_equal(system(command), 0);
}

static void what_does_not_fit_is_counted(void **state)
{
    struct hky_record *r = open_record(3000, 0);
    uint64_t dropped;
    char command[256];

    (void)state;
    for (int i = 0; i < 500; i++)
        hky_record_event(r, 0,
                         &(struct hky_event){.kind = HKY_EVENT_STARTED, .at_ms = 1764000000000, .text = "some text"});
    dropped = hky_record_dropped(r);
    assert_true(dropped > 0);
    hky_record_close(&r);
    r = open_record(0, 0);
    hky_record_close(&r);
    snprintf(command, sizeof command, "grep -q '\"ev\":\"dropped\"' %s/events.jsonl", dir);
    assert_int_equal(system(command), 0);
}

/* Somebody's link stands where the log is to be opened again: nothing is written through it, and when it is gone the
 * log goes on by itself. */
static void a_log_that_could_not_be_opened_is_tried_again(void **state)
{
    struct hky_record *r = open_record(0, 0);
    struct hky_event ev = {.kind = HKY_EVENT_STARTED, .at_ms = 1764000000123};
    char path[128], other[128];
    json_t *line;
    FILE *f;

    (void)state;
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(other, path), 0);
    hky_record_reopen(r);
    usleep(300000);
    hky_record_event(r, 0, &ev);
    usleep(300000);
    assert_int_equal(hky_record_dropped(r), 0);
    assert_int_equal(access(other, F_OK), -1);
    assert_int_equal(unlink(path), 0);
    ev.kind = HKY_EVENT_STOPPED;
    hky_record_event(r, 0, &ev);
    hky_record_close(&r);
    f = fopen(path, "r");
    assert_non_null(f);
    for (int i = 0; i < 2; i++) {
        line = read_line(f);
        assert_non_null(line);
        assert_string_equal(json_string_value(json_object_get(line, "ev")), i == 0 ? "started" : "stopped");
        json_decref(line);
    }
    assert_null(read_line(f));
    fclose(f);
}

/* Kills the process with `n` lines in it, most of them still waiting. */
static void killed_after(int n)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct hky_record *r = open_record(0, 0);
        for (int i = 0; i < n; i++)
            hky_record_event(r, (unsigned)i % 3,
                             &(struct hky_event){.kind = HKY_EVENT_FAILED, .at_ms = 1764000000000, .delay_ms = i + 1});
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

static void a_kill_loses_no_line_and_doubles_none(void **state)
{
    char command[256];

    (void)state;
    for (int i = 0; i < 20; i++) {
        snprintf(command, sizeof command, "rm -f %s/events.jsonl", dir);
        assert_int_equal(system(command), 0);
        killed_after(1000 + i * 500);
        for (int k = 0; k < 2; k++) {
            struct hky_record *r = open_record(0, 0);
            hky_record_close(&r);
        }
        snprintf(command, sizeof command,
                 "test $(grep -c '^{\"ev\":\"failed\".*}$' %s/events.jsonl) = %d && "
                 "test $(sort -u %s/events.jsonl | wc -l) = %d",
                 dir, 1000 + i * 500, dir, 1000 + i * 500);
        assert_int_equal(system(command), 0);
    }
}

/* Its lines, the boot it speaks of, its lengths: whatever is damaged, nothing but whole lines come to the log. */
static void a_damaged_file_adds_no_rubbish(void **state)
{
    static const struct {
        int at;
        const char *octet;
        int lines;
    } cases[] = {{16, "x", 0}, {4096 + 6, "\\377", 0}, {8192 + 1, "\\001", 9}, {8192 + 12, "\\377", 9}};
    char command[512];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_record *r;
        snprintf(command, sizeof command, "rm -f %s/events.*", dir);
        assert_int_equal(system(command), 0);
        killed_after(28); /* worker 0: ten of them */
        snprintf(command, sizeof command, "printf '%s' | dd of=%s/events.pending bs=1 seek=%d conv=notrunc status=none",
                 cases[i].octet, dir, cases[i].at);
        assert_int_equal(system(command), 0);
        r = open_record(0, 0);
        hky_record_close(&r);
        snprintf(command, sizeof command,
                 "test $(wc -l <%s/events.jsonl) = $(grep -c '^{\"ev\":\"failed\".*}$' %s/events.jsonl) && "
                 "test $(grep -cE '\"delay_ms\":(1|4|7|10|13|16|19|22|25|28)}' %s/events.jsonl) = %d",
                 dir, dir, dir, cases[i].lines);
        assert_int_equal(system(command), 0);
    }
}

/* ---- a flush that was half done, by hand ---- */

#define LINE(n) "{\"ev\":\"failed\",\"delay_ms\":" #n "}\n"
#define OLD     LINE(1)
#define WRITING LINE(11) LINE(12) LINE(13)
#define WAITING LINE(21)
#define HALF    LINE(11) "{\"ev\":\"fai"

static void write_file(const char *name, const char *mode, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, mode);
    assert_non_null(f);
    assert_int_equal(fputs(text, f) >= 0, 1);
    assert_int_equal(fclose(f), 0);
}

static void assert_file(const char *what, const char *name, const char *text)
{
    char path[128], is[4096] = "";
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "r");
    assert_int_equal(f != NULL, text != NULL);
    if (f == NULL)
        return;
    is[fread(is, 1, sizeof is - 1, f)] = '\0';
    fclose(f);
    if (strcmp(is, text) != 0)
        fail_msg("%s: %s is\n%snot\n%s", what, name, is, text);
}

/* A mapping of this boot: WAITING waits, WRITING is being appended to the log as it is now. */
static void write_pending(void)
{
    struct {
        char magic[16], boot[48];
        uint64_t n_areas, area_octets;
    } file = {"hikyaku-events1", "", 2, 8192};
    struct pending_head waits = {.n = sizeof WAITING - 1}, writes = {.n = sizeof WRITING - 1, .is_writing = 1};
    struct stat st;
    char path[128];
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");

    assert_non_null(f);
    assert_true(fread(file.boot, 1, 47, f) > 0);
    fclose(f);
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    assert_int_equal(stat(path, &st), 0);
    writes.dev = st.st_dev;
    writes.ino = st.st_ino;
    writes.at = (uint64_t)st.st_size;
    snprintf(path, sizeof path, "%s/events.pending", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fwrite(&file, sizeof file, 1, f);
    fseek(f, 4096, SEEK_SET);
    fwrite(&waits, sizeof waits, 1, f);
    fseek(f, 8192, SEEK_SET);
    fputs(WAITING, f);
    fseek(f, 4096 + 8192, SEEK_SET);
    fwrite(&writes, sizeof writes, 1, f);
    fseek(f, 8192 + 8192, SEEK_SET);
    fputs(WRITING, f);
    assert_int_equal(fclose(f), 0);
}

static void half_a_flush_goes_on_where_it_stopped(void **state)
{
    static const struct {
        const char *what, *written, *after; /* `after`: a command, the directory is its $D */
        const char *log, *renamed;
    } cases[] = {
        {"nothing written", "", ":", OLD WRITING WAITING, NULL},
        {"half a line", HALF, ":", OLD WRITING WAITING, NULL},
        {"whole lines", LINE(11) LINE(12), ":", OLD WRITING WAITING, NULL},
        {"all written, not cleared", WRITING, ":", OLD WRITING WAITING, NULL},
        {"log truncated", HALF, ": >$D/events.jsonl", WRITING WAITING, NULL},
        {"log rotated at half a line", HALF, "mv $D/events.jsonl $D/events.jsonl.1", WAITING, OLD WRITING},
        {"log rotated, all written", WRITING, "mv $D/events.jsonl $D/events.jsonl.1", WAITING, OLD WRITING},
        {"log rotated, nothing written", "", "mv $D/events.jsonl $D/events.jsonl.1", WRITING WAITING, OLD},
        {"log rotated and gone", HALF, "rm $D/events.jsonl", WRITING WAITING, NULL},
        {"log rotated, something added", LINE(11), "echo x >>$D/events.jsonl; mv $D/events.jsonl $D/events.jsonl.1",
         LINE(12) LINE(13) WAITING, OLD LINE(11) "x\n"},
        {"half a line, something added", HALF, "echo >>$D/events.jsonl", OLD HALF "\n" LINE(12) LINE(13) WAITING, NULL},
    };
    char command[256];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(command, sizeof command, "rm -f %s/events.*", dir);
        assert_int_equal(system(command), 0);
        write_file("events.jsonl", "w", OLD);
        write_pending();
        write_file("events.jsonl", "a", cases[i].written);
        snprintf(command, sizeof command, "D=%s; %s", dir, cases[i].after);
        assert_int_equal(system(command), 0);
        for (int k = 0; k < 2; k++) {
            struct hky_record *r = open_record(0, 0);
            hky_record_close(&r);
        }
        assert_file(cases[i].what, "events.jsonl", cases[i].log);
        assert_file(cases[i].what, "events.jsonl.1", cases[i].renamed);
        assert_file(cases[i].what, "events.pending", NULL);
    }
}

/* The disk is full at the start, and has room later: in this run, or in the next. */
static void a_full_disk_at_the_start_loses_nothing(void **state)
{
    struct rlimit was, full;
    char command[512];

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    for (int is_next_run = 0; is_next_run < 2; is_next_run++) {
        struct hky_event ev = {.kind = HKY_EVENT_STARTED, .at_ms = 1764000000123};
        struct hky_record *r;
        snprintf(command, sizeof command, "rm -f %s/events.* && truncate -s 1M %s/events.jsonl", dir, dir);
        assert_int_equal(system(command), 0);
        write_file("events.jsonl", "a", "\n");
        write_pending();
        full = (struct rlimit){(1u << 20) + 60, was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
        r = open_record(0, 0);
        usleep(300000);
        hky_record_event(r, 0, &ev);
        if (is_next_run) {
            hky_record_close(&r);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
            r = open_record(0, 0);
        } else {
            usleep(300000);
            assert_int_equal(hky_record_dropped(r), 0);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        }
        ev.kind = HKY_EVENT_STOPPED;
        hky_record_event(r, 0, &ev);
        hky_record_close(&r);
        snprintf(
            command, sizeof command,
            "cd %s && tail -c +1048578 events.jsonl >rest; test ! -e events.pending && "
            "test \"$(grep -c '^{.*}$' rest)\" = %d && test $(wc -l <rest) = %d && tail -n 1 rest | grep -q stopped",
            dir, is_next_run ? 5 : 6, is_next_run ? 5 : 6); /* where the file held old lines, new ones lay in memory */
        assert_int_equal(system(command), 0);
    }
    signal(SIGXFSZ, SIG_DFL);
}

/* Room for two lines and a half is left when 200 come. */
static void a_disk_that_fills_loses_nothing(void **state)
{
    struct rlimit was, full;
    char command[512];

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    for (int kind = 0; kind < 3;
         kind++) { /* there is room again: in this run; in the next; after the buffer was full */
        struct hky_event ev = {.kind = HKY_EVENT_STARTED, .at_ms = 1764000000123};
        struct hky_record *r;
        uint64_t dropped;
        snprintf(command, sizeof command, "rm -f %s/events.* && truncate -s 1M %s/events.jsonl", dir, dir);
        assert_int_equal(system(command), 0);
        write_file("events.jsonl", "a", "\n");
        r = open_record(kind == 2 ? 3000 : 0, 0);
        full = (struct rlimit){(1u << 20) + 1 + 150, was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
        for (int i = 0; i < 200; i++) {
            ev.delay_ms = i + 1;
            hky_record_event(r, (unsigned)i % 3, &ev);
            if (i % 20 == 19)
                usleep(60000);
        }
        usleep(300000);
        dropped = hky_record_dropped(r);
        assert_true(kind == 2 ? dropped > 0 : dropped == 0);
        snprintf(command, sizeof command,
                 "cd %s && tail -c +1048578 events.jsonl >rest && test $(wc -l <rest) = 2 && "
                 "test \"$(grep -c '^{.*}$' rest)\" = 2 && test $(wc -c <rest) -lt 150",
                 dir);
        for (unsigned tries = 100; system(command) != 0; tries--) { /* a third line begins and is cut off again */
            assert_int_not_equal(tries, 0);
            usleep(20000);
        }
        if (kind == 1) {
            hky_record_close(&r);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
            r = open_record(0, 0);
        } else {
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
            usleep(300000);
        }
        hky_record_close(&r);
        snprintf(command, sizeof command,
                 "cd %s && tail -c +1048578 events.jsonl | grep -v dropped >rest; test ! -e events.pending && "
                 "test \"$(grep -c '^{.*}$' rest)\" = %d && test $(wc -l <rest) = %d && test $(sort -u rest | wc -l) = "
                 "%d && "
                 "test $(grep -c dropped events.jsonl) %s 0",
                 dir, 200 - (int)dropped, 200 - (int)dropped, 200 - (int)dropped, kind == 2 ? "!=" : "=");
        assert_int_equal(system(command), 0);
    }
    signal(SIGXFSZ, SIG_DFL);
}

/* Half a line that a full disk or a power cut left there: the next one does not join it. */
static void a_torn_log_goes_on_in_a_new_line(void **state)
{
    struct hky_event ev = {.kind = HKY_EVENT_STARTED, .at_ms = 1764000000123};
    struct hky_record *r;
    char command[256];

    (void)state;
    write_file("events.jsonl", "w", "{\"ev\":\"deliv");
    for (int k = 0; k < 2; k++) {
        r = open_record(0, 0);
        hky_record_event(r, 0, &ev);
        hky_record_close(&r);
    }
    snprintf(command, sizeof command,
             "cd %s && test \"$(head -n 1 events.jsonl)\" = '{\"ev\":\"deliv' && test $(wc -l <events.jsonl) = 3 && "
             "test $(grep -c '^{\"ev\":\"started.*}$' events.jsonl) = 2",
             dir);
    assert_int_equal(system(command), 0);
}

/* It is appended to; what a kill left goes there too, once more as it cannot be told what stands there. */
static void a_log_that_may_not_be_read_is_written(void **state)
{
    struct hky_record *r;
    char path[128];

    (void)state;
    write_file("events.jsonl", "w", OLD);
    write_pending();
    write_file("events.jsonl", "a", LINE(11));
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    assert_int_equal(chmod(path, 0200), 0);
    if (geteuid() == 0) { /* who may read everything */
        assert_int_equal(chown(path, 65534, 65534), 0);
        snprintf(path, sizeof path, "%s/events.pending", dir);
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_int_equal(chown(dir, 65534, 65534), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    r = open_record(0, 0);
    hky_record_close(&r);
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    assert_int_equal(chmod(path, 0600), 0);
    assert_file("log", "events.jsonl", OLD LINE(11) "\n" WRITING "\n" WAITING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_has_its_keys_and_peer_text_is_inert, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(lines_of_threads_stay_whole_and_rotate, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_counted, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_log_that_could_not_be_opened_is_tried_again, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_kill_loses_no_line_and_doubles_none, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_damaged_file_adds_no_rubbish, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(half_a_flush_goes_on_where_it_stopped, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_full_disk_at_the_start_loses_nothing, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_disk_that_fills_loses_nothing, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_torn_log_goes_on_in_a_new_line, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_log_that_may_not_be_read_is_written, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
