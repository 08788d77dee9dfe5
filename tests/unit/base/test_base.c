#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/map.h"
#include "base/memory.h"

static void buffers_stop_at_their_maximum(void **state)
{
    struct hky_buf b;

    (void)state;
    hky_buf_init(&b, 10);
    hky_buf_add(&b, "12345678", 8);
    hky_buf_add(&b, "abc", 3);
    assert_true(b.is_over);
    assert_string_equal(hky_buf_z(&b), "12345678");
    hky_buf_clear(&b);
    hky_buf_printf(&b, "%s", "0123456789");
    assert_false(b.is_over);
    assert_string_equal(hky_buf_z(&b), "0123456789");
    hky_buf_fini(&b);
}

static void base64_both_ways_and_strict(void **state)
{
    static const struct {
        const char *plain, *coded;
    } good[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}};
    static const char *const bad[] = {"Zg=", "Zg", "Z===", "Zh==", "Zm9=", "Zm 9", "====", "Zg==Zg=="};
    struct hky_buf b;

    (void)state;
    hky_buf_init(&b, 100);
    for (size_t i = 0; i < 5; i++) {
        hky_buf_clear(&b);
        hky_buf_add_base64(&b, hky_str_z(good[i].plain));
        assert_string_equal(hky_buf_z(&b), good[i].coded);
        hky_buf_clear(&b);
        assert_true(hky_base64_decode(hky_str_z(good[i].coded), &b));
        assert_string_equal(hky_buf_z(&b), good[i].plain);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hky_buf_clear(&b);
        assert_false(hky_base64_decode(hky_str_z(bad[i]), &b));
    }
    /* of these, mail has the first ones */
    static const char *const loose[] = {"Zg=", "Zg", "Zh==", "Zg====="}, *const still_bad[] = {"Z===", "Zm 9",
                                                                                               "Zg==Zg==", "Z", "Zg-_"};
    for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
        hky_buf_clear(&b);
        assert_true(hky_base64_decode_loose(hky_str_z(loose[i]), &b));
        assert_string_equal(hky_buf_z(&b), "f");
    }
    for (size_t i = 0; i < sizeof still_bad / sizeof still_bad[0]; i++)
        assert_false(hky_base64_decode_loose(hky_str_z(still_bad[i]), &b));
    /* all octets, in both */
    char octets[256], whole[256];
    struct hky_buf coded;
    for (int i = 0; i < 256; i++)
        octets[i] = (char)i;
    hky_buf_init(&coded, 1000);
    for (size_t n = 253; n <= 256; n++) {
        hky_buf_clear(&coded);
        hky_buf_add_base64(&coded, hky_str_of(octets, n));
        for (int k = 0; k < 2; k++) {
            struct hky_buf back;
            hky_buf_init(&back, 256);
            assert_true((k == 0 ? hky_base64_decode : hky_base64_decode_loose)(hky_buf_str(&coded), &back));
            assert_int_equal(back.n, n);
            memcpy(whole, back.p, n);
            assert_memory_equal(whole, octets, n);
            hky_buf_fini(&back);
        }
    }
    hky_buf_fini(&coded);
    hky_buf_fini(&b);
}

static void json_strings_are_inert(void **state)
{
    struct hky_buf b;

    (void)state;
    hky_buf_init(&b, 1000);
    hky_buf_add_json(&b, HKY_STR("a\"b\\\n\x1b[2J\x7f\xc2\x85\xe2\x80\xae\xff\xe3\x81\x82"));
    assert_string_equal(hky_buf_z(&b), "\"a\\\"b\\\\\\n\\u001b[2J\\u007f\\u0085\\u202e\xef\xbf\xbd\xe3\x81\x82\"");
    hky_buf_fini(&b);
}

static void json_strings_are_inert_wherever_an_octet_stands(void **state)
{
    struct hky_buf b;

    (void)state;
    hky_buf_init(&b, 1000);
    for (unsigned c = 1; c < 0x80; c++)
        for (size_t n = 1; n < 20; n++)
            for (size_t at = 0; at < n; at++) {
                bool is_plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
                char text[20];
                memset(text, '~', n);
                text[at] = (char)c;
                hky_buf_clear(&b);
                hky_buf_add_json(&b, hky_str_of(text, n));
                if (is_plain != (b.n == n + 2) || memcmp(b.p + 1, text, at) != 0 ||
                    (!is_plain && b.p[at + 1] != '\\') ||
                    memcmp(b.p + b.n - 1 - (n - at - 1), text + at + 1, n - at - 1) != 0)
                    fail_msg("octet %u at %zu of %zu: %s", c, at, n, hky_buf_z(&b));
            }
    hky_buf_fini(&b);
}

static void a_buffer_in_lent_space_moves_when_it_grows(void **state)
{
    char space[8];
    struct hky_buf b;
    size_t n = 0;

    (void)state;
    hky_buf_init_in(&b, space, sizeof space, 20);
    hky_buf_add_z(&b, "1234567");
    assert_ptr_equal(b.p, space);
    assert_string_equal(hky_buf_z(&b), "1234567");
    hky_buf_add_z(&b, "89");
    assert_ptr_not_equal(b.p, space);
    assert_string_equal(hky_buf_z(&b), "123456789");
    hky_buf_add_z(&b, "123456789012");
    assert_true(b.is_over);
    hky_buf_fini(&b);

    hky_buf_init_in(&b, space, sizeof space, 20);
    assert_null(hky_buf_take(&b, &n));
    hky_buf_init_in(&b, space, sizeof space, 20);
    hky_buf_add_z(&b, "abc");
    char *p = hky_buf_take(&b, &n);
    assert_ptr_not_equal(p, space);
    assert_string_equal(p, "abc");
    assert_int_equal(n, 3);
    free(p);
    hky_buf_init_in(&b, space, sizeof space, 20);
    hky_buf_fini(&b); /* frees nothing */
    assert_int_equal(b.cap, 0);
}

static void text_is_put_as_far_as_it_fits(void **state)
{
    char text[8] = "xxxxxxx", *at;

    (void)state;
    at = hky_str_put(text, text + sizeof text, HKY_STR("ab"));
    assert_ptr_equal(at, text + 2);
    at = hky_str_put(at, text + sizeof text, HKY_STR(""));
    assert_string_equal(text, "ab");
    at = hky_str_put(at, text + sizeof text, HKY_STR("cdefghij"));
    assert_string_equal(text, "abcdefg");
    assert_ptr_equal(hky_str_put(at, text + sizeof text, HKY_STR("x")), at);
    assert_string_equal(text, "abcdefg");
}

static void numbers_as_text(void **state)
{
    static const struct {
        int64_t v;
        const char *text;
    } cases[] = {{0, "0"},
                 {9, "9"},
                 {10, "10"},
                 {-1, "-1"},
                 {1234567890123, "1234567890123"},
                 {INT64_MAX, "9223372036854775807"},
                 {INT64_MIN, "-9223372036854775808"}};
    char text[HKY_DECIMAL_MAX];
    struct hky_buf b;

    (void)state;
    hky_buf_init(&b, 100);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hky_buf_clear(&b);
        hky_buf_add_decimal(&b, cases[i].v);
        assert_string_equal(hky_buf_z(&b), cases[i].text);
    }
    hky_buf_fini(&b);
    assert_ptr_equal(hky_decimal(text, UINT64_MAX), text + sizeof text);
    assert_memory_equal(text, "18446744073709551615", sizeof text);
    assert_ptr_equal(hky_decimal_padded(text, 1207, 3), text + 3);
    assert_memory_equal(text, "207", 3);
    hky_decimal_padded(text, 7, 3);
    assert_memory_equal(text, "007", 3);
}

static void utf8_is_checked(void **state)
{
    (void)state;
    assert_true(hky_utf8_is_valid(HKY_STR("a\xc3\xa9\xe3\x81\x82\xf0\x9f\x98\x80")));
    assert_false(hky_utf8_is_valid(HKY_STR("\xc0\xae")));
    assert_false(hky_utf8_is_valid(HKY_STR("\xed\xa0\x80")));
    assert_false(hky_utf8_is_valid(HKY_STR("\xe3\x81")));
    assert_false(hky_utf8_is_valid(HKY_STR("\xf4\x90\x80\x80")));
}

static void maps_with_keys_from_outside_hide_their_slots(void **state)
{
    struct hky_map inside, outside;
    size_t at = 0, same = 0;

    (void)state;
    hky_map_init(&inside);
    hky_map_init_untrusted(&outside);
    for (uintptr_t i = 1; i <= 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", (unsigned)i);
        hky_map_put(&inside, hky_str_z(key), (void *)i);
        hky_map_put(&outside, hky_str_z(key), (void *)i);
        assert_ptr_equal(hky_map_get(&outside, hky_str_z(key)), (void *)i);
    }
    for (struct hky_map_entry *a, *b; (a = hky_map_next(&inside, &at)) != NULL;) {
        size_t from = 0;
        while ((b = hky_map_next(&outside, &from)) != NULL)
            same += b->hash == a->hash;
    }
    assert_int_equal(same, 0);
    hky_map_fini(&inside);
    hky_map_fini(&outside);
}

static void maps_keep_what_they_are_given(void **state)
{
    struct hky_map m;
    struct hky_idmap ids;
    char key[32];
    size_t at = 0, n = 0;

    (void)state;
    hky_map_init(&m);
    hky_idmap_init(&ids);
    for (uintptr_t round = 0; round < 3; round++) {
        for (uintptr_t i = 1; i <= 1000; i++) {
            snprintf(key, sizeof key, "key-%lu", (unsigned long)i);
            assert_null(hky_map_put(&m, hky_str_z(key), (void *)i));
            assert_null(hky_idmap_put(&ids, i - 1, (void *)i));
        }
        for (uintptr_t i = 1; i <= 1000; i++) {
            snprintf(key, sizeof key, "key-%lu", (unsigned long)i);
            assert_ptr_equal(hky_map_get(&m, hky_str_z(key)), (void *)i);
            assert_ptr_equal(hky_idmap_get(&ids, i - 1), (void *)i);
            if (i % 2 == 0 || round < 2) {
                assert_ptr_equal(hky_map_remove(&m, hky_str_z(key)), (void *)i);
                assert_ptr_equal(hky_idmap_remove(&ids, i - 1), (void *)i);
            }
        }
    }
    while (hky_map_next(&m, &at) != NULL)
        n++;
    assert_int_equal(n, 500);
    assert_int_equal(ids.n, 500);
    hky_map_fini(&m);
    hky_idmap_fini(&ids);
}

static void a_reserved_table_keeps_what_it_had_and_does_not_move(void **state)
{
    struct hky_idmap ids;
    struct hky_idmap_entry *entries;
    size_t cap;
    (void)state;

    hky_idmap_init(&ids);
    for (uintptr_t i = 1; i <= 10; i++)
        hky_idmap_put(&ids, i, (void *)i);
    hky_idmap_reserve(&ids, 300000); /* large enough for huge pages */
    entries = ids.entries;
    cap = ids.cap;
    for (uintptr_t i = 11; i <= 300000; i++)
        assert_null(hky_idmap_put(&ids, i, (void *)i));
    assert_ptr_equal(ids.entries, entries);
    hky_idmap_reserve(&ids, 5);
    assert_int_equal(ids.cap, cap);
    for (uintptr_t i = 1; i <= 300000; i++)
        assert_ptr_equal(hky_idmap_get(&ids, i), (void *)i);
    hky_idmap_fini(&ids);
}

static void memory_made_ready_keeps_its_octets(void **state)
{
    enum { N = 9 << 20 };
    char *p = hky_alloc(N);
    (void)state;

    for (size_t i = 0; i < N; i++)
        p[i] = (char)(i * 31 >> 3);
    errno = EEXIST;
    hky_memory_ready(p + 1, 0);
    hky_memory_ready(p + 1, 4096); /* not one whole page */
    hky_memory_ready(p + 1, N - 1);
    hky_memory_expect(0);
    hky_memory_expect(SIZE_MAX);
    assert_int_equal(errno, EEXIST);
    for (size_t i = 0; i < N; i++)
        assert_true(p[i] == (char)(i * 31 >> 3));
    free(p);
}

static void heap_gives_the_earliest(void **state)
{
    struct hky_heap h;
    struct hky_heap_node nodes[500] = {0};
    int64_t last = -1;
    unsigned seed = 7, n = 0;

    (void)state;
    hky_heap_init(&h);
    for (int i = 0; i < 500; i++)
        hky_heap_set(&h, &nodes[i], rand_r(&seed) % 1000);
    for (int i = 0; i < 500; i += 3)
        hky_heap_set(&h, &nodes[i], rand_r(&seed) % 1000);
    for (int i = 0; i < 500; i += 7)
        hky_heap_remove(&h, &nodes[i]);
    for (struct hky_heap_node *first; (first = hky_heap_first(&h)) != NULL; n++) {
        assert_true(first->at >= last);
        last = first->at;
        hky_heap_remove(&h, first);
    }
    assert_int_equal(n, 500 - 72);
    hky_heap_fini(&h);
}

/* The definition, a bit at a time. */
static uint32_t crc32c_defined(uint32_t crc, const unsigned char *p, size_t n)
{
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (((crc ^ (uint32_t)p[i] >> k) & 1) != 0 ? 0x82f63b78u : 0);
    return ~crc;
}

static void checksum_is_as_defined_for_every_length(void **state)
{
    static const size_t lengths[] = {0, 1, 7, 8, 9, 511, 1535, 1536, 1537, 1543, 1544, 3071, 3072, 3073, 4608, 10001};
    unsigned char p[10001 + 8];
    unsigned seed = 3;

    (void)state;
    for (size_t i = 0; i < sizeof p; i++)
        p[i] = (unsigned char)rand_r(&seed);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (size_t at = 0; at < 8; at++) {
            uint32_t start = i % 2 == 0 ? 0 : 0x12345678u, want = crc32c_defined(start, p + at, lengths[i]);
            if (hky_crc32c(start, p + at, lengths[i]) != want)
                fail_msg("%zu octets from %zu on", lengths[i], at);
        }
}

static void checksums_and_ids(void **state)
{
    char text[HKY_ID_TEXT];
    uint64_t id;

    (void)state;
    assert_int_equal(hky_crc32c(0, "123456789", 9), 0xe3069283u); /* RFC 3720 B.4's check value */
    assert_int_equal(hky_crc32c(hky_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
    assert_true(hky_hash64("a", 1, 0) != hky_hash64("b", 1, 0));
    assert_true(hky_hash64("a\0", 2, 0) != hky_hash64("a", 1, 0));
    /* Arms of experiments and names of plans hang on it: it stays what it was, for every length. */
    uint64_t h = 7;
    for (size_t n = 0; n <= 27; n++)
        h = hky_hash64("\x80\xff"
                       "abcdefghijklmnopqrstuvwxyz",
                       n, h);
    assert_true(h == UINT64_C(0xd210b219dd197aa0));
    hky_id_format(UINT64_MAX, text);
    assert_true(hky_id_parse(hky_str_z(text), &id));
    assert_true(id == UINT64_MAX);
    assert_false(hky_id_parse(HKY_STR("zzzzzzzzzzzzz"), &id));
    assert_false(hky_id_parse(HKY_STR("../etc/passwd"), &id));
}

static void strings_as_the_field_compares_them(void **state)
{
    uint64_t v;

    (void)state;
    assert_true(hky_str_glob(HKY_STR("a*c"), HKY_STR("abbbC")));
    assert_false(hky_str_glob(HKY_STR("a*c"), HKY_STR("abbb")));
    assert_true(hky_str_glob(HKY_STR("*"), HKY_STR("")));
    assert_true(hky_str_ieq(HKY_STR("DoCoMo"), HKY_STR("docomo")));
    assert_int_equal(hky_str_distance(HKY_STR("docmo"), HKY_STR("docomo")), 1);
    assert_int_equal(hky_str_distance(HKY_STR("hots"), HKY_STR("Host")), 1);
    assert_int_equal(hky_str_distance(HKY_STR("hots"), HKY_STR("note")), 2);
    assert_int_equal(hky_str_distance(HKY_STR(""), HKY_STR("abc")), 3);
    assert_false(hky_str_u64(HKY_STR("18446744073709551616"), UINT64_MAX, &v));
    assert_true(hky_str_u64(HKY_STR("18446744073709551615"), UINT64_MAX, &v));
}

static int log_fds[2];

static const char *logged(struct hky_log *log)
{
    static char line[8192];
    ssize_t n = read(log_fds[0], line, sizeof line - 1);

    (void)log;
    assert_true(n > 0);
    line[n] = '\0';
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    line[n - 1] = '\0';
    return strstr(line, "ev=") != NULL ? strstr(line, "ev=") : line;
}

/* Is `line` made of KEY=VALUE alone, where a value with quotes has two of them and nothing behind the second? */
static bool is_of_pairs(const char *line)
{
    while (*line != '\0') {
        size_t n = strspn(line, "abcdefghijklmnopqrstuvwxyz");
        if (n == 0 || line[n] != '=')
            return false;
        line += n + 1;
        if (*line == '"') {
            for (line++; *line != '\0' && *line != '"'; line++)
                if (*line == '\\' && *++line == '\0')
                    return false;
            if (*line++ != '"')
                return false;
        } else if ((n = strcspn(line, " ")) == 0) {
            return false;
        } else {
            line += n;
        }
        if (*line == ' ' && *++line == '\0')
            return false;
    }
    return true;
}

/* Whatever an argument holds, it is one value of one line. */
static void no_text_forges_a_field_of_the_log(void **state)
{
    static const struct {
        const char *text, *value;
    } cases[] = {
        {"plain-1.2@x.test", "plain-1.2@x.test"},
        {"", "\"\""},
        {"a b", "\"a b\""},
        {"a=b", "\"a=b\""},
        {"bad \" ev=login_failed client=9.9.9.9 x=\"", "\"bad \\\" ev=login_failed client=9.9.9.9 x=\\\"\""},
        {"a\nev=other\x1b[2J", "\"a\\nev=other\\x1b[2J\""},
        {"\\", "\"\\\\\""},
        {"\xe7\x89\xb9\xe4\xbe\xa1", "\"\xe7\x89\xb9\xe4\xbe\xa1\""},
        {"\xe7\x89", "\"\\xe7\\x89\""},
        {"\xff", "\"\\xff\""},
        {"\xe2\x80\xae", "\"\\u202e\""},
        {"%s%n", "%s%n"},
    };
    char expected[256], long_text[3000];

    (void)state;
    assert_int_equal(pipe(log_fds), 0);
    struct hky_log *log = hky_log_new(log_fds[1], HKY_LOG_INFO);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hky_log(log, HKY_LOG_INFO, "test", "a=%s n=%d b=%.*s", cases[i].text, -7, (int)strlen(cases[i].text),
                cases[i].text);
        snprintf(expected, sizeof expected, "ev=test a=%s n=-7 b=%s", cases[i].value, cases[i].value);
        assert_string_equal(logged(log), expected);
    }
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    memcpy(long_text + HKY_LOG_VALUE - 1, "\xe7\x89\xb9", 3);
    hky_log(log, HKY_LOG_INFO, "test", "a=%s b=%u", long_text, 5u);
    const char *line = logged(log);
    assert_non_null(strstr(line, "xxx...\" b=5"));
    memset(long_text, '\1', sizeof long_text - 1);
    hky_log(log, HKY_LOG_INFO, "test", "a=%s b=%s", long_text, long_text); /* more than a line holds: it is still one */
    line = logged(log);
    assert_int_equal(line[strlen(line) - 1], '"');
    hky_log_free(&log);
    close(log_fds[0]);
    close(log_fds[1]);
}

/* With one octet more in front each time, the end of the line comes at every octet of keys, quotes and escapes. */
static void a_line_that_is_cut_is_made_of_whole_pairs(void **state)
{
    static const char *const units[] = {"x", " ", "\\", "\1", "\xe7\x89\xb9", "\xe2\x80\xae"};
    char front[5][HKY_LOG_VALUE + 1], many[400];

    (void)state;
    assert_int_equal(pipe(log_fds), 0);
    struct hky_log *log = hky_log_new(log_fds[1], HKY_LOG_INFO);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        many[0] = '\0';
        for (int i = 0; i < 40; i++)
            strcat(many, units[u]);
        for (size_t total = 0; total <= 5000; total += total < 3700 || total > 4100 ? 7 : 1) {
            size_t left = total;
            for (size_t i = 0; i < 5; i++) {
                size_t n = left < HKY_LOG_VALUE ? left : HKY_LOG_VALUE;
                memset(front[i], 'x', n);
                front[i][n] = '\0';
                left -= n;
            }
            hky_log(log, HKY_LOG_INFO, "test", "a=%s b=%s c=%s d=\"%s\" e=\"%s\" f=%s g=\"%s\" h=%s i=%d", front[0],
                    front[1], front[2], front[3], front[4], many, units[u], units[u], -7);
            const char *line = logged(log);
            if (!is_of_pairs(line))
                fail_msg("%zu octets before \"%s\": ...%s", total, units[u],
                         strlen(line) > 60 ? line + strlen(line) - 60 : line);
        }
    }
    hky_log_free(&log);
    close(log_fds[0]);
    close(log_fds[1]);
}

static void a_log_format_is_pairs(void **state)
{
    (void)state;
    assert_int_equal(pipe(log_fds), 0);
    struct hky_log *log = hky_log_new(log_fds[1], HKY_LOG_INFO);
    hky_log(log, HKY_LOG_INFO, "test", "why=\"%s\" hash=%016lx size=%zu at=%llu 100%%=no", "x", 0xabcul, (size_t)7,
            8ull);
    assert_string_equal(logged(log), "ev=test why=\"x\" hash=0000000000000abc size=7 at=8 note=\"100%=no\"");
    hky_log(log, HKY_LOG_INFO, "test", "state=%s: accepting stops, for now", "full");
    assert_string_equal(logged(log), "ev=test state=full note=\"accepting stops, for now\"");
    hky_log(log, HKY_LOG_INFO, "test", "why=\"%s\": it goes to a=%s", "c d", "b e=f");
    assert_string_equal(logged(log), "ev=test why=\"c d\" note=\"it goes to a=b e=f\"");
    hky_log(log, HKY_LOG_INFO, "test", "file=big/%s.%c n=%5u|", "a b", 'c', 3u);
    assert_string_equal(logged(log), "ev=test file=\"big/a b.c\" n=\"    3|\"");
    hky_log(log, HKY_LOG_INFO, "test", "%s", "policy.lua:3: no");
    assert_string_equal(logged(log), "ev=test note=\"policy.lua:3: no\"");
    hky_log_free(&log);
    close(log_fds[0]);
    close(log_fds[1]);
}

/* Where the journal of systemd reads the lines, they say how grave they are. */
static void a_line_for_the_journal_has_its_priority(void **state)
{
    char line[256], stream[64];
    struct stat st;
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(log_fds), 0);
    assert_int_equal(fstat(log_fds[1], &st), 0);
    for (int is_ours = 0; is_ours < 2; is_ours++) {
        snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
                 (unsigned long long)st.st_ino + !is_ours);
        setenv("JOURNAL_STREAM", stream, 1);
        struct hky_log *log = hky_log_new(log_fds[1], HKY_LOG_INFO);
        hky_log(log, HKY_LOG_ERROR, "test", "a=b");
        hky_log(log, HKY_LOG_INFO, "test", "a=b");
        n = read(log_fds[0], line, sizeof line - 1);
        assert_true(n > 0);
        line[n] = '\0';
        assert_int_equal(strncmp(line, "<3>", 3) == 0, is_ours);
        assert_int_equal(strstr(line, "\n<6>") != NULL, is_ours);
        hky_log_free(&log);
    }
    unsetenv("JOURNAL_STREAM");
    close(log_fds[0]);
    close(log_fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_stop_at_their_maximum),
        cmocka_unit_test(no_text_forges_a_field_of_the_log),
        cmocka_unit_test(a_line_that_is_cut_is_made_of_whole_pairs),
        cmocka_unit_test(a_log_format_is_pairs),
        cmocka_unit_test(a_line_for_the_journal_has_its_priority),
        cmocka_unit_test(base64_both_ways_and_strict),
        cmocka_unit_test(json_strings_are_inert),
        cmocka_unit_test(a_buffer_in_lent_space_moves_when_it_grows),
        cmocka_unit_test(text_is_put_as_far_as_it_fits),
        cmocka_unit_test(json_strings_are_inert_wherever_an_octet_stands),
        cmocka_unit_test(numbers_as_text),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(maps_keep_what_they_are_given),
        cmocka_unit_test(maps_with_keys_from_outside_hide_their_slots),
        cmocka_unit_test(heap_gives_the_earliest),
        cmocka_unit_test(checksums_and_ids),
        cmocka_unit_test(checksum_is_as_defined_for_every_length),
        cmocka_unit_test(a_reserved_table_keeps_what_it_had_and_does_not_move),
        cmocka_unit_test(memory_made_ready_keeps_its_octets),
        cmocka_unit_test(strings_as_the_field_compares_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
