#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <pthread.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "rig.h"

static uint64_t segment = SEGMENT;

static struct hky_record *open_record(uint64_t lag, uint64_t rotate)
{
    struct hky_record *r;
    struct hky_error e = {0};

    assert_int_equal(hky_record_open(&(struct hky_record_params){.dir = dir,
                                                                 .n_workers = 2,
                                                                 .segment_octets = segment,
                                                                 .lag_octets = lag,
                                                                 .rotate_octets = rotate,
                                                                 .clock = &the_clock},
                                     &r, &e),
                     HKY_OK);
    return r;
}

/* Is some descriptor of this process the log, also if it was removed? */
static bool is_log_open(void)
{
    char path[300], to[400];
    bool is_open = false;
    DIR *d = opendir("/proc/self/fd");

    assert_non_null(d);
    for (struct dirent *one; (one = readdir(d)) != NULL;) {
        ssize_t n;

        snprintf(path, sizeof path, "/proc/self/fd/%.200s", one->d_name);
        n = readlink(path, to, sizeof to - 1);
        to[n > 0 ? n : 0] = '\0';
        is_open = is_open || (strncmp(to, dir, strlen(dir)) == 0 && strstr(to, "/events.jsonl") != NULL);
    }
    closedir(d);
    return is_open;
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
    struct hky_record *r;
    pthread_t threads[3];
    char command[256];

    (void)state;
    segment = 0; /* as in service: 60,000 at once find room */
    r = open_record(0, 1u << 20);
    segment = SEGMENT;
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

static unsigned n_rotated(const char *folder)
{
    unsigned n = 0;
    DIR *d = opendir(folder);

    assert_non_null(d);
    for (struct dirent *one; (one = readdir(d)) != NULL;)
        n += strncmp(one->d_name, "events-", 7) == 0;
    closedir(d);
    return n;
}

/* The name of the spool is a name, not a pattern that finds the logs of other folders instead of its own. */
static void old_logs_are_removed_whatever_the_spool_is_called(void **state)
{
    static const char *const names[] = {"plain", "a[b]", "a*", "a?", "a\\b", "a\\*"};
    struct hky_record *r;
    char own[sizeof dir], others[100], file[200];

    (void)state;
    memcpy(own, dir, sizeof own);
    snprintf(others, sizeof others, "%s/ab", own);
    assert_int_equal(mkdir(others, 0700), 0);
    for (int i = 1; i <= 3; i++) {
        snprintf(file, sizeof file, "%s/events-2020-01-0%dT00:00:00.000.jsonl", others, i);
        assert_int_equal(close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(dir, sizeof dir, "%.50s/%.10s", own, names[i]);
        assert_int_equal(mkdir(dir, 0700), 0);
        segment = 0;
        r = open_record(0, 1);
        segment = SEGMENT;
        for (int k = 0; k < 12; k++) {
            emit(r, 1, 1);
            wait_until(n_rotated(dir) > (k < 7 ? (unsigned)k : 7));
        }
        assert_int_equal(hky_record_dropped(r), 0);
        hky_record_close(&r);
        assert_int_equal(n_rotated(dir), 8);
    }
    memcpy(dir, own, sizeof own);
    assert_int_equal(n_rotated(others), 3);
}

static unsigned n_named(const char *begin)
{
    unsigned n = 0;
    DIR *d = opendir(dir);

    assert_non_null(d);
    for (struct dirent *one; (one = readdir(d)) != NULL;)
        n += strncmp(one->d_name, begin, strlen(begin)) == 0;
    closedir(d);
    return n;
}

/* Rotated while the clock was ahead, and files of an earlier spool whose numbers were higher: what is rotated now is
 * newer than both, and stays. */
static void the_oldest_is_removed_whatever_the_clock_said(void **state)
{
    int64_t now_ms = the_clock.stopped_at_ms;
    char file[200];

    (void)state;
    for (int i = 0; i < 9; i++) {
        snprintf(file, sizeof file, "%s/events-2099-01-01T00:00:0%d.000.jsonl", dir, i);
        FILE *f = fopen(file, "w");
        assert_non_null(f);
        fputs("{\"ev\":\"started\",\"number\":99999999,\"at\":1}\n", f);
        fclose(f);
    }
    segment = 0;
    the_clock.stopped_at_ms = now_ms + INT64_C(365) * 86400000;
    for (int k = 1; k <= 17; k++) {
        struct hky_record *r = open_record(0, 1);
        emit(r, 1, 1);
        hky_record_close(&r); /* it was written, and the file rotated */
        assert_int_equal(n_rotated(dir), 8);
        assert_int_equal(n_named("events-2099-"), k < 8 ? 8 - k : 0);
        if (k <= 12)
            assert_int_equal(n_named("events-2026-"), k < 8 ? k : 8);
        else
            assert_int_equal(n_named("events-2025-"), k - 12);
        if (k == 12)
            the_clock.stopped_at_ms = now_ms;
    }
    segment = SEGMENT;
}

/* A log that takes nothing lags; what it leaves beyond its budget is skipped, counted and told, and the rest is whole.
 */
static void what_a_log_that_lags_skips_is_counted(void **state)
{
    struct hky_record *r = open_record(3 * SEGMENT, 0);
    uint64_t missed = 0;
    char path[128], command[512];

    (void)state;
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* cannot be opened */
    hky_record_reopen(r);
    wait_until(!is_log_open()); /* until then lines go to the file that was removed */
    for (int i = 0; i < 30000; i += 100) {
        emit(r, i + 1, i + 100);
        wait_until(has_spares(r, 1));
    }
    wait_until((missed = hky_record_dropped(r)) > 1000);
    assert_int_equal(rmdir(path), 0);
    hky_record_close(&r);
    snprintf(command, sizeof command,
             "cd %s && test $(grep -c '\"ev\":\"failed\"' events.jsonl) -ge %d && grep -q '\"ev\":\"dropped\".*lags: "
             "event_log' events.jsonl && "
             "test $(grep -o 'number\":[0-9]*' events.jsonl | sort -u | wc -l) = $(wc -l <events.jsonl) && "
             "test $(ls events | grep -c '^[0-9]') -le 8",
             dir, 500);
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
    wait_until(!is_log_open());
    hky_record_event(r, 0, &ev);
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

/* Kills the process with `n` events in it, most of them not yet written. */
static void killed_after(int n)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct hky_record *r = open_record(0, 0);
        emit(r, 1, n);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

/* The whole lines of failed events, whose numbers must rise; nothing else may be in the log. */
static int whole_lines(void)
{
    char path[128], line[1024];
    long long number, before = 0;
    int n = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        size_t length = strlen(line);

        if (sscanf(line, "{\"ev\":\"failed\",\"number\":%lld,", &number) != 1 || number <= before || length < 2 ||
            strcmp(line + length - 2, "}\n") != 0)
            fail_msg("line %d: %s", n + 1, line);
        before = number;
        n++;
    }
    fclose(f);
    return n;
}

static void begin_anew(void)
{
    char path[128];

    empty_folder("events");
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    unlink(path);
}

static void a_kill_loses_no_line_and_doubles_none(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        begin_anew();
        killed_after(100 + i * 100); /* more than a segment, less than there are spares for */
        for (int k = 0; k < 2; k++) {
            struct hky_record *r = open_record(0, 0);
            hky_record_close(&r);
        }
        assert_int_equal(whole_lines(), 100 + i * 100);
    }
}

/* Whatever octet of the store is damaged, nothing but whole lines with rising numbers come to the log. */
static void a_damaged_store_adds_no_rubbish(void **state)
{
    static const struct {
        const char *file;
        int at;
        const char *octets;
        int n_at_least, n_at_most;
    } cases[] = {{"0", 0, "x", 0, 0},         {"0", 16, "\377", 0, 0},      {"0", 24, "\377\377", 28, 28},
                 {"0", 4096, "\377", 0, 0},   {"0", 4096 + 20, "x", 0, 0},  {"0", 4096 + 44, "x", 1, 27},
                 {"cursors", 0, "x", 28, 28}, {"cursors", 100, "x", 28, 28}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_record *r;
        char path[128];
        int fd, n;

        begin_anew();
        killed_after(28);
        snprintf(path, sizeof path, "%s/events.jsonl", dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/events/%s", dir, cases[i].file);
        fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        assert_true(pwrite(fd, cases[i].octets, strlen(cases[i].octets), cases[i].at) > 0);
        close(fd);
        r = open_record(0, 0);
        hky_record_close(&r);
        n = whole_lines();
        if (n < cases[i].n_at_least || n > cases[i].n_at_most)
            fail_msg("case %zu: %d lines", i, n);
    }
}

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

/* ---- a write that was half done, by hand: 4 events are in the store, the log has a part of them ---- */

#define OLD     "{\"ev\":\"old\"}\n"
#define LINE(n) "{\"ev\":\"failed\",\"number\":" #n ",\"time\":\"2025-11-24T16:00:00.000Z\",\"delay_ms\":" #n "}\n"
#define ALL     LINE(1) LINE(2) LINE(3) LINE(4)

static void half_a_write_goes_on_where_it_stopped(void **state)
{
    static const struct {
        const char *what, *before, *after;
    } cases[] = {
        {"nothing written", OLD, OLD ALL},
        {"an empty log", "", ALL},
        {"half a line", OLD LINE(1) "{\"ev\":\"fai", OLD ALL},
        {"half of the first line", OLD "{\"ev\":\"failed\",\"num", OLD ALL},
        {"whole lines", OLD LINE(1) LINE(2), OLD ALL},
        {"all written, the cursor not moved", OLD ALL, OLD ALL},
        {"half a line of something else", OLD LINE(1) "{\"ev\":\"x",
         OLD LINE(1) "{\"ev\":\"x\n" LINE(2) LINE(3) LINE(4)},
        {"a number that was never given out", LINE(99), LINE(99) ALL},
    };
    char command[256], path[128], is[4096];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(command, sizeof command, "rm -rf %s/events*", dir);
        assert_int_equal(system(command), 0);
        killed_after(4);
        write_file("events.jsonl", "w", cases[i].before);
        for (int k = 0; k < 2; k++) {
            struct hky_record *r = open_record(0, 0);
            hky_record_close(&r);
        }
        snprintf(path, sizeof path, "%s/events.jsonl", dir);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        is[fread(is, 1, sizeof is - 1, f)] = '\0';
        fclose(f);
        if (strcmp(is, cases[i].after) != 0)
            fail_msg("%s: the log is\n%snot\n%s", cases[i].what, is, cases[i].after);
    }
}

/* Room for two lines and a half is left when 200 come: there is room again in this run, or in the next. */
static void a_disk_that_fills_loses_nothing(void **state)
{
    struct rlimit was, full;
    char command[512];

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    for (int is_next_run = 0; is_next_run < 2; is_next_run++) {
        struct hky_record *r;
        snprintf(command, sizeof command, "rm -rf %s/events* && truncate -s 1M %s/events.jsonl", dir, dir);
        assert_int_equal(system(command), 0);
        write_file("events.jsonl", "a", "\n");
        r = open_record(0, 0);
        full = (struct rlimit){(1u << 20) + 1 + 200, was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
        emit(r, 1, 200);
        snprintf(command, sizeof command,
                 "cd %s && tail -c +1048578 events.jsonl >rest && test $(wc -l <rest) = 2 && "
                 "test \"$(grep -c '^{.*}$' rest)\" = 2 && test $(wc -c <rest) -lt 250",
                 dir);
        wait_until(system(command) == 0); /* a third line begins and is cut off again */
        assert_int_equal(hky_record_dropped(r), 0);
        if (is_next_run) {
            hky_record_close(&r);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
            r = open_record(0, 0);
        }
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        hky_record_close(&r);
        snprintf(command, sizeof command,
                 "cd %s && tail -c +1048578 events.jsonl >rest; test \"$(grep -c '^{.*}$' rest)\" = 200 && "
                 "test $(wc -l <rest) = 200 && test $(sort -u rest | wc -l) = 200",
                 dir);
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

/* It is appended to all the same. */
static void a_log_that_may_not_be_read_is_written(void **state)
{
    struct hky_record *r;
    char path[128], command[256];

    (void)state;
    write_file("events.jsonl", "w", OLD);
    snprintf(path, sizeof path, "%s/events.jsonl", dir);
    assert_int_equal(chmod(path, 0200), 0);
    if (geteuid() == 0) { /* who may read everything */
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_int_equal(chown(dir, 65534, 65534), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    r = open_record(0, 0);
    emit(r, 1, 2);
    hky_record_close(&r);
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(path, 0600), 0);
    snprintf(command, sizeof command, "test $(grep -c '^{.*}$' %s) = 3", path);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_has_its_keys_and_peer_text_is_inert, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(the_oldest_is_removed_whatever_the_clock_said, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(lines_of_threads_stay_whole_and_rotate, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(old_logs_are_removed_whatever_the_spool_is_called, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_a_log_that_lags_skips_is_counted, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_log_that_could_not_be_opened_is_tried_again, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_kill_loses_no_line_and_doubles_none, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_damaged_store_adds_no_rubbish, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(half_a_write_goes_on_where_it_stopped, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_disk_that_fills_loses_nothing, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_torn_log_goes_on_in_a_new_line, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_log_that_may_not_be_read_is_written, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
