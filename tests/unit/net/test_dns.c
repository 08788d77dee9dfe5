#include "base/clock.h"
#include "net/dns_internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/wait.h"

/* Patience for one answer. One that comes later is asked for again, and nothing here counts that. */
enum { IMPATIENT_MS = 100, CHECK_MS = 30 };

/* A name server of one thread: a table of names, one datagram at a time. */
enum { T_A = 1, T_CNAME = 5, T_MX = 15, T_AAAA = 28 };
struct record {
    const char *name;
    int type; /* 0: every type gets `rcode`; -T: type T gets it, 0 only when asked again */
    int rcode;
    int preference; /* MX */
    const char *value;
    unsigned ttl;
};
static const struct record zone[] = {
    {"two.example", T_MX, 0, 20, "Backup.two.example", 600},
    {"two.example", T_MX, 0, 10, "first.two.example", 600},
    {"equal.example", T_MX, 0, 5, "a.equal.example", 600},
    {"equal.example", T_MX, 0, 5, "b.equal.example", 600},
    {"equal.example", T_MX, 0, 5, "c.equal.example", 600},
    {"equal.example", T_MX, 0, 1, "best.equal.example", 600},
    {"null.example", T_MX, 0, 0, "", 600},
    {"short.example", T_MX, 0, 1, "mx.short.example", 0},
    {"plain.example", T_A, 0, 0, "192.0.2.1", 600},
    {"gone.example", 0, 3, 0, "", 0},
    {"broken.example", 0, 2, 0, "", 0},
    {"half.example", -T_A, 2, 0, "", 0},
    {"half.example", -T_AAAA, 0, 0, "", 0},
    {"other-half.example", -T_AAAA, 2, 0, "", 0},
    {"other-half.example", -T_A, 0, 0, "", 0},
    {"silent.example", 0, -1, 0, "", 0},
    {"both.example", T_A, 0, 0, "192.0.2.1", 600},
    {"both.example", T_A, 0, 0, "192.0.2.2", 600},
    {"both.example", T_A, 0, 0, "192.0.2.3", 600},
    {"both.example", T_AAAA, 0, 0, "2001:db8::1", 600},
    {"alias.example", T_CNAME, 0, 0, "next.example", 600},
    {"next.example", T_CNAME, 0, 0, "plain.example", 600},
    {"mail-alias.example", T_CNAME, 0, 0, "two.example", 600},
    {"dead-end.example", T_CNAME, 0, 0, "nothing.example", 600},
    {"round.example", T_CNAME, 0, 0, "about.example", 600},
    {"about.example", T_CNAME, 0, 0, "round.example", 600},
    {"into-round.example", T_CNAME, 0, 0, "about.example", 600},
    {"itself.example", T_CNAME, 0, 0, "itself.example", 600},
};

static struct {
    int fd, tcp_fd; /* the same port */
    pthread_t thread, tcp_thread;
    char address[32];
    atomic_uint n_asked, n_asked_tcp;
} server;

static size_t put_name(unsigned char *p, const char *name)
{
    size_t at = 0;
    while (*name != 0) {
        size_t n = strcspn(name, ".");
        p[at++] = (unsigned char)n;
        memcpy(p + at, name, n);
        at += n;
        name += n;
        if (*name == '.')
            name++;
    }
    p[at++] = 0;
    return at;
}

static size_t put_record(unsigned char *p, const struct record *r)
{
    size_t at = put_name(p, r->name), len_at;
    p[at++] = 0;
    p[at++] = (unsigned char)r->type;
    p[at++] = 0;
    p[at++] = 1;
    for (int shift = 24; shift >= 0; shift -= 8)
        p[at++] = (unsigned char)(r->ttl >> shift);
    len_at = at;
    at += 2;
    if (r->type == T_MX) {
        p[at++] = (unsigned char)(r->preference >> 8);
        p[at++] = (unsigned char)r->preference;
        at += put_name(p + at, r->value);
    } else if (r->type == T_CNAME) {
        at += put_name(p + at, r->value);
    } else {
        inet_pton(r->type == T_A ? AF_INET : AF_INET6, r->value, p + at);
        at += r->type == T_A ? 4 : 16;
    }
    p[len_at] = (unsigned char)((at - len_at - 2) >> 8);
    p[len_at + 1] = (unsigned char)(at - len_at - 2);
    return at;
}

/* The question's name as text; its end. */
static size_t get_name(const unsigned char *p, char out[256])
{
    size_t at = 12, n = 0;
    while (p[at] != 0 && n + p[at] + 1 < 255) {
        memcpy(out + n, p + at + 1, p[at]);
        n += p[at];
        out[n++] = '.';
        at += p[at] + 1U;
    }
    out[n > 0 ? n - 1 : 0] = 0;
    return at + 1;
}

struct answer {
    unsigned char *p;
    size_t at;
    int rcode, n_records;
    bool is_silent;
};

#define LARGE_HOSTS 60 /* three times what is kept; too much for a datagram */
#define LARGE_FIRST 5  /* of them with the better preference, at the end of the answer */

/* Like a recursive server: the aliases on the way and what is at their end. */
static void look_up(struct answer *a, const char *name, int type, int n_aliases)
{
    for (size_t i = 0; i < sizeof zone / sizeof *zone; i++) {
        const struct record *r = &zone[i];
        if (strcasecmp(r->name, name) != 0)
            continue;
        if (r->type == 0) {
            a->is_silent = r->rcode < 0;
            a->rcode = r->rcode;
        } else if (r->type == -type) {
            static bool was_asked[sizeof zone / sizeof *zone];
            a->is_silent = r->rcode == 0 && !was_asked[i];
            was_asked[i] = true;
            a->rcode = r->rcode;
        } else if (r->type == type || r->type == T_CNAME) {
            a->at += put_record(a->p + a->at, r);
            a->n_records++;
        }
        if (r->type == T_CNAME && n_aliases < 8)
            look_up(a, r->value, type, n_aliases + 1);
    }
}

/* "large.example": over UDP nothing but the TC bit, over TCP every host. */
static void look_up_large(struct answer *a, bool is_tcp)
{
    for (int i = 0; is_tcp && i < LARGE_HOSTS; i++) {
        char host[40];
        struct record r = {"large.example", T_MX, 0, i < LARGE_HOSTS - LARGE_FIRST ? 20 : 10, host, 0};
        snprintf(host, sizeof host, "mx%d.large.example", i);
        a->at += put_record(a->p + a->at, &r);
        a->n_records++;
    }
}

/* The answer in `p`; its length, 0 for none. */
static size_t make_answer(const unsigned char *q, unsigned char *p, bool is_tcp)
{
    char name[256];
    size_t end = get_name(q, name) + 4;
    int type = q[end - 4] << 8 | q[end - 3];
    struct answer a = {.p = p, .at = end};
    bool is_large = strcasecmp(name, "large.example") == 0;
    atomic_fetch_add(is_tcp ? &server.n_asked_tcp : &server.n_asked, 1);
    memcpy(p, q, end);
    if (is_large)
        look_up_large(&a, is_tcp);
    else
        look_up(&a, name, type, 0);
    bool is_cut = strcasecmp(name, "cut.example") == 0; /* nothing but the TC bit, over TCP, too */
    p[2] = is_cut || (is_large && !is_tcp) ? 0x83 : 0x81;
    p[3] = (unsigned char)(0x80 | (a.rcode & 15));
    memset(p + 6, 0, 6);
    p[7] = (unsigned char)a.n_records;
    return a.is_silent ? 0 : a.at;
}

static void *serve(void *arg)
{
    (void)arg;
    for (;;) {
        unsigned char q[1500], p[1500];
        struct sockaddr_in from;
        socklen_t from_n = sizeof from;
        ssize_t n = recvfrom(server.fd, q, sizeof q, 0, (struct sockaddr *)&from, &from_n);
        if (n < 17)
            return NULL; /* the test's end is a short datagram */
        size_t length = make_answer(q, p, false);
        if (length > 0)
            sendto(server.fd, p, length, 0, (struct sockaddr *)&from, from_n);
    }
}

static void *serve_tcp(void *arg)
{
    (void)arg;
    for (int fd; (fd = accept(server.tcp_fd, NULL, NULL)) >= 0; close(fd)) {
        unsigned char q[1500], p[8192];
        while (recv(fd, q, 2, MSG_WAITALL) == 2) {
            size_t n = (size_t)(q[0] << 8 | q[1]);
            if (n < 17 || n > sizeof q || recv(fd, q, n, MSG_WAITALL) != (ssize_t)n)
                break;
            n = make_answer(q, p + 2, true);
            p[0] = (unsigned char)(n >> 8);
            p[1] = (unsigned char)n;
            send(fd, p, n + 2, MSG_NOSIGNAL);
        }
    }
    return NULL;
}

/* Binds server.fd and server.tcp_fd to one number; false where TCP has lost it to another program. */
static bool bind_both(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&at, &n), 0);
    snprintf(server.address, sizeof server.address, "127.0.0.1:%d", ntohs(at.sin_port));
    server.tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.tcp_fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(server.tcp_fd, 5) == 0)
        return true;
    close(server.fd);
    close(server.tcp_fd);
    return false;
}

static int set_up(void **state)
{
    (void)state;
    for (unsigned tries = 100; !bind_both(); tries--)
        assert_int_not_equal(tries, 0);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
    assert_int_equal(pthread_create(&server.tcp_thread, NULL, serve_tcp, NULL), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct sockaddr_in at;
    socklen_t n = sizeof at;
    getsockname(server.fd, (struct sockaddr *)&at, &n);
    sendto(server.fd, "end", 3, 0, (struct sockaddr *)&at, n);
    pthread_join(server.thread, NULL);
    close(server.fd);
    shutdown(server.tcp_fd, SHUT_RDWR);
    pthread_join(server.tcp_thread, NULL);
    close(server.tcp_fd);
    return 0;
}

struct asker {
    struct hky_dns_query q;
    unsigned n_calls;
    struct hky_dns_mx_answer mx;
    struct hky_dns_addr_answer addr;
    struct hky_dns **frees; /* dns to free in the callback */
};

static void on_mx(struct hky_dns_query *q, const struct hky_dns_mx_answer *a)
{
    struct asker *k = HKY_CONTAINER(q, struct asker, q);
    k->n_calls++;
    k->mx = *a;
    if (k->frees != NULL)
        hky_dns_free(k->frees);
}

static void on_addr(struct hky_dns_query *q, const struct hky_dns_addr_answer *a)
{
    struct asker *k = HKY_CONTAINER(q, struct asker, q);
    k->n_calls++;
    k->addr = *a;
}

struct lab {
    struct hky_loop *loop;
    struct hky_dns *dns;
};

static void lab_up(struct lab *lab)
{
    struct hky_error e;
    assert_int_equal(hky_loop_new(&lab->loop, &e), HKY_OK);
    assert_int_equal(hky_dns_new(lab->loop, server.address, &lab->dns, &e), HKY_OK);
}

/* The same, but a server that says nothing is not waited for so long. */
static void lab_up_impatient(struct lab *lab)
{
    const struct hky_dns_params p = {
        .resolver = server.address, .port = 53, .try_ms = IMPATIENT_MS, .tries = HKY_DNS_TRIES, .check_file_ms = 1000};
    struct hky_error e;
    assert_int_equal(hky_loop_new(&lab->loop, &e), HKY_OK);
    assert_int_equal(hky_dns_new_with(lab->loop, &p, &lab->dns, &e), HKY_OK);
}

static void lab_down(struct lab *lab)
{
    hky_dns_free(&lab->dns);
    hky_loop_free(&lab->loop);
}

static void ask_mx(struct lab *lab, struct asker *k, const char *name)
{
    memset(k, 0, sizeof *k);
    k->q.on_mx = on_mx;
    hky_dns_ask_mx(lab->dns, &k->q, hky_str_z(name));
    assert_int_equal(k->n_calls, 0); /* never inside the question */
    for (int i = 0; i < 400 && k->n_calls == 0; i++)
        hky_loop_turn(lab->loop, 50);
    assert_int_equal(k->n_calls, 1);
    assert_null(k->q.priv);
}

static void ask_addr(struct lab *lab, struct asker *k, const char *name)
{
    memset(k, 0, sizeof *k);
    k->q.on_addr = on_addr;
    hky_dns_ask_addr(lab->dns, &k->q, hky_str_z(name));
    assert_int_equal(k->n_calls, 0);
    for (int i = 0; i < 400 && k->n_calls == 0; i++)
        hky_loop_turn(lab->loop, 50);
    assert_int_equal(k->n_calls, 1);
}

static void mx_answers(void **state)
{
    (void)state;
    static const struct {
        const char *what, *name;
        enum hky_dns_status status;
        unsigned n;
        bool is_implicit;
        const char *first;
    } cases[] = {
        {"sorted by preference, lower case", "two.example", HKY_DNS_OK, 2, false, "first.two.example"},
        {"any case and a final dot are the same name", "TWO.Example.", HKY_DNS_OK, 2, false, "first.two.example"},
        {"null MX", "null.example", HKY_DNS_NULL_MX, 0, false, NULL},
        {"no MX: the domain itself", "plain.example", HKY_DNS_OK, 1, true, "plain.example"},
        {"the MX of an alias", "mail-alias.example", HKY_DNS_OK, 2, false, "first.two.example"},
        {"an alias without MX", "alias.example", HKY_DNS_OK, 1, true, "alias.example"},
        {"aliases in a circle", "round.example", HKY_DNS_FAILED, 0, false, NULL},
        {"an alias into a circle", "into-round.example", HKY_DNS_FAILED, 0, false, NULL},
        {"an alias of itself", "itself.example", HKY_DNS_FAILED, 0, false, NULL},
        {"no such domain", "gone.example", HKY_DNS_NO_NAME, 0, false, NULL},
        {"a broken one", "broken.example", HKY_DNS_FAILED, 0, false, NULL},
        {"one whose answers are cut off", "cut.example", HKY_DNS_FAILED, 0, false, NULL},
        {"an empty label", "a..example", HKY_DNS_NO_NAME, 0, false, NULL},
        {"nothing", "", HKY_DNS_NO_NAME, 0, false, NULL},
        {"not a name", "two.example\r\nx", HKY_DNS_NO_NAME, 0, false, NULL},
    };
    struct lab lab;
    struct asker k;
    lab_up(&lab);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask_mx(&lab, &k, cases[i].name);
        if (k.mx.status != cases[i].status || k.mx.n != cases[i].n || k.mx.is_implicit != cases[i].is_implicit)
            fail_msg("%s: status %d n %u implicit %d: %s", cases[i].what, k.mx.status, k.mx.n, k.mx.is_implicit,
                     k.mx.text);
        if (cases[i].first != NULL)
            assert_string_equal(k.mx.mx[0].host, cases[i].first);
        if (cases[i].status != HKY_DNS_OK)
            assert_true(k.mx.text[0] != 0);
        if (strcmp(cases[i].name, "broken.example") == 0)
            assert_string_equal(k.mx.text, "MX of broken.example: SERVFAIL or REFUSED, or no resolver in reach");
        if (strcmp(cases[i].name, "gone.example") == 0)
            assert_string_equal(k.mx.text, "MX of gone.example: the domain does not exist (NXDOMAIN)");
    }
    lab_down(&lab);
}

static void equal_preferences_are_shuffled_from_the_cache_too(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    unsigned n_first[3] = {0}, before = server.n_asked;
    lab_up(&lab);
    for (int i = 0; i < 120; i++) {
        ask_mx(&lab, &k, "equal.example");
        assert_int_equal(k.mx.n, 4);
        assert_string_equal(k.mx.mx[0].host, "best.equal.example");
        unsigned which = (unsigned)(k.mx.mx[1].host[0] - 'a');
        assert_true(which < 3);
        n_first[which]++;
    }
    for (int i = 0; i < 3; i++)
        assert_true(n_first[i] > 10);
    assert_int_equal(server.n_asked - before, 1);
    lab_down(&lab);
}

static void a_large_set_comes_over_tcp_and_is_cut_behind_the_best(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    bool was_kept[LARGE_HOSTS] = {false};
    unsigned n_kept = 0, before = server.n_asked_tcp;
    lab_up(&lab);
    for (int i = 0; i < 40; i++) {
        ask_mx(&lab, &k, "large.example"); /* TTL 0: asked anew */
        assert_int_equal(k.mx.status, HKY_DNS_OK);
        assert_int_equal(k.mx.n, HKY_DNS_MX_MAX);
        for (unsigned j = 0; j < k.mx.n; j++) {
            unsigned host = (unsigned)atoi(k.mx.mx[j].host + 2);
            assert_true(host < LARGE_HOSTS);
            assert_int_equal(k.mx.mx[j].preference, j < LARGE_FIRST ? 10 : 20);
            was_kept[host] = true;
        }
    }
    for (int i = 0; i < LARGE_HOSTS; i++)
        n_kept += was_kept[i];
    assert_true(n_kept > LARGE_HOSTS - 5); /* each is left out of all 40 with probability (40/55)^40 */
    assert_int_equal(server.n_asked_tcp - before, 40);
    lab_down(&lab);
}

static void a_ttl_of_zero_is_asked_again(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    unsigned before = server.n_asked;
    lab_up(&lab);
    ask_mx(&lab, &k, "short.example");
    ask_mx(&lab, &k, "short.example");
    assert_int_equal(server.n_asked - before, 2);
    lab_down(&lab);
}

static void the_same_question_in_flight_is_asked_once_and_can_be_cancelled(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k[3];
    unsigned before = server.n_asked;
    lab_up(&lab);
    memset(k, 0, sizeof k);
    for (int i = 0; i < 3; i++) {
        k[i].q.on_mx = on_mx;
        hky_dns_ask_mx(lab.dns, &k[i].q, HKY_STR("two.example"));
    }
    hky_dns_cancel(&k[1].q);
    hky_dns_cancel(&k[1].q);
    for (int i = 0; i < 100 && (k[0].n_calls == 0 || k[2].n_calls == 0); i++)
        hky_loop_turn(lab.loop, 50);
    assert_int_equal(k[0].n_calls, 1);
    assert_int_equal(k[1].n_calls, 0);
    assert_int_equal(k[2].n_calls, 1);
    assert_int_equal(server.n_asked - before, 1);
    lab_down(&lab);
}

static void addresses_are_interleaved(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    lab_up(&lab);
    ask_addr(&lab, &k, "both.example");
    assert_int_equal(k.addr.status, HKY_DNS_OK);
    assert_int_equal(k.addr.n, 4);
    assert_int_equal(k.addr.addr[0].ss.ss_family, AF_INET6);
    for (int i = 1; i < 4; i++)
        assert_int_equal(k.addr.addr[i].ss.ss_family, AF_INET);
    unsigned before = server.n_asked;
    ask_addr(&lab, &k, "BOTH.example");
    assert_int_equal(k.addr.n, 4);
    assert_int_equal(server.n_asked, before);
    lab_down(&lab);
}

static void addresses_are_found_behind_aliases(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    lab_up(&lab);
    ask_addr(&lab, &k, "alias.example");
    assert_int_equal(k.addr.status, HKY_DNS_OK);
    assert_int_equal(k.addr.n, 1);
    assert_int_equal(((struct sockaddr_in *)&k.addr.addr[0].ss)->sin_addr.s_addr, htonl(0xc0000201));
    ask_addr(&lab, &k, "dead-end.example");
    assert_int_equal(k.addr.n, 0);
    assert_int_equal(k.addr.status, HKY_DNS_NO_DATA);
    ask_addr(&lab, &k, "round.example");
    assert_int_equal(k.addr.n, 0);
    assert_int_equal(k.addr.status, HKY_DNS_FAILED); /* not "no address": somebody will mend it */
    ask_addr(&lab, &k, "into-round.example");
    assert_int_equal(k.addr.status, HKY_DNS_FAILED);
    lab_down(&lab);
}

static void addresses_come_from_literals_and_the_hosts_file(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    lab_up(&lab);
    unsigned before = server.n_asked;
    ask_addr(&lab, &k, "127.0.0.1");
    assert_int_equal(k.addr.n, 1);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&k.addr.addr[0].ss;
    assert_int_equal(v4->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(v4->sin_port, 0);
    ask_addr(&lab, &k, "::1");
    assert_int_equal(k.addr.n, 1);
    assert_int_equal(k.addr.addr[0].ss.ss_family, AF_INET6);
    ask_addr(&lab, &k, "localhost");
    assert_true(k.addr.n >= 1);
    assert_int_equal(server.n_asked, before);
    ask_addr(&lab, &k, "gone.example");
    assert_int_equal(k.addr.status, HKY_DNS_NO_NAME);
    ask_addr(&lab, &k, "two.example");
    assert_int_equal(k.addr.status, HKY_DNS_NO_DATA);
    lab_down(&lab);
}

/* One of the two questions fails for now, the other one says that there is nothing, and says it last. */
static void half_an_answer_is_none(void **state)
{
    (void)state;
    static const char *const names[] = {"half.example", "other-half.example"};
    struct lab lab;
    struct asker k;
    lab_up_impatient(&lab);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ask_addr(&lab, &k, names[i]);
        if (k.addr.status != HKY_DNS_FAILED || strstr(k.addr.text, names[i]) == NULL ||
            strstr(k.addr.text, "A and AAAA of ") == NULL || strstr(k.addr.text, "SERVFAIL") == NULL)
            fail_msg("%s: status %d: %s", names[i], k.addr.status, k.addr.text);
    }
    lab_down(&lab);
}

static void silence_ends_in_bounded_time(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    lab_up_impatient(&lab);
    int64_t start = hky_mono_ms();
    unsigned before = server.n_asked;
    ask_mx(&lab, &k, "silent.example");
    assert_int_equal(k.mx.status, HKY_DNS_FAILED);
    assert_int_equal(server.n_asked - before, HKY_DNS_TRIES);
    assert_true(hky_mono_ms() - start >= HKY_DNS_TRIES * IMPATIENT_MS);
    assert_true(HKY_DNS_TRY_MS * ((1 << HKY_DNS_TRIES) - 1) <= 15000); /* what the engine waits */
    before = server.n_asked;
    ask_mx(&lab, &k, "silent.example"); /* the failure is kept for a while */
    assert_int_equal(k.mx.status, HKY_DNS_FAILED);
    assert_int_equal(server.n_asked, before);
    lab_down(&lab);
}

static void free_drops_what_is_pending_also_inside_a_callback(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k[3];
    lab_up(&lab);
    memset(k, 0, sizeof k);
    for (int i = 0; i < 3; i++)
        k[i].q.on_mx = on_mx;
    k[0].frees = &lab.dns;
    hky_dns_ask_mx(lab.dns, &k[0].q, HKY_STR("not a name"));
    hky_dns_ask_mx(lab.dns, &k[1].q, HKY_STR("not a name"));
    hky_dns_ask_mx(lab.dns, &k[2].q, HKY_STR("silent.example"));
    for (int i = 0; i < 3; i++)
        hky_loop_turn(lab.loop, 10);
    assert_int_equal(k[0].n_calls, 1);
    assert_int_equal(k[1].n_calls, 0);
    assert_int_equal(k[2].n_calls, 0);
    assert_null(k[2].q.priv);
    assert_null(lab.dns);
    lab_down(&lab);
}

static void write_servers(const char *path, const char *line)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n", line);
    fclose(f);
}

static void a_changed_file_of_the_system_is_followed(void **state)
{
    (void)state;
    char path[] = "/tmp/hky_resolv_XXXXXX";
    struct hky_error e;
    struct lab lab = {0};
    struct asker waits = {.q.on_mx = on_mx}, k;
    close(mkstemp(path));
    write_servers(path, "nameserver 127.0.0.1");
    assert_int_equal(hky_loop_new(&lab.loop, &e), HKY_OK);
    const struct hky_dns_params p = {.file = path,
                                     .port = (uint16_t)atoi(strrchr(server.address, ':') + 1),
                                     .try_ms = IMPATIENT_MS,
                                     .tries = HKY_DNS_TRIES,
                                     .check_file_ms = CHECK_MS};
    assert_int_equal(hky_dns_new_with(lab.loop, &p, &lab.dns, &e), HKY_OK);
    ask_mx(&lab, &k, "two.example");
    assert_int_equal(k.mx.status, HKY_DNS_OK);
    hky_dns_ask_mx(lab.dns, &waits.q, HKY_STR("silent.example"));
    write_servers(path, "nameserver 127.0.0.9"); /* nobody there: what comes is not from the cache either */
    let_pass(2 * CHECK_MS * 1000, "the interval at which the file is looked at");
    hky_loop_turn(lab.loop, 100);
    ask_mx(&lab, &k, "null.example");
    assert_int_equal(k.mx.status, HKY_DNS_FAILED);
    ask_mx(&lab, &k, "two.example");
    assert_int_equal(k.mx.status, HKY_DNS_FAILED);
    assert_int_equal(waits.n_calls, 0); /* still with the server it was asked of */
    for (int i = 0; i < 200 && waits.n_calls == 0; i++)
        hky_loop_turn(lab.loop, 50);
    assert_int_equal(waits.n_calls, 1);
    write_servers(path, "nameserver 127.0.0.1 # back");
    let_pass(2 * CHECK_MS * 1000, "the interval at which the file is looked at");
    hky_loop_turn(lab.loop, 100);
    ask_mx(&lab, &k, "equal.example");
    assert_int_equal(k.mx.status, HKY_DNS_OK);
    unlink(path); /* gone: as before */
    let_pass(2 * CHECK_MS * 1000, "the interval at which the file is looked at");
    hky_loop_turn(lab.loop, 100);
    ask_mx(&lab, &k, "short.example");
    assert_int_equal(k.mx.status, HKY_DNS_OK);
    lab_down(&lab);
}

static void a_wrong_resolver_is_refused(void **state)
{
    (void)state;
    struct hky_loop *loop = NULL;
    struct hky_dns *dns = NULL;
    struct hky_error e;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    assert_int_equal(hky_dns_new(loop, "not an address", &dns, &e), HKY_E_CONFIG);
    assert_null(dns);
    hky_loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mx_answers),
        cmocka_unit_test(equal_preferences_are_shuffled_from_the_cache_too),
        cmocka_unit_test(a_large_set_comes_over_tcp_and_is_cut_behind_the_best),
        cmocka_unit_test(a_ttl_of_zero_is_asked_again),
        cmocka_unit_test(the_same_question_in_flight_is_asked_once_and_can_be_cancelled),
        cmocka_unit_test(addresses_are_interleaved),
        cmocka_unit_test(addresses_are_found_behind_aliases),
        cmocka_unit_test(addresses_come_from_literals_and_the_hosts_file),
        cmocka_unit_test(half_an_answer_is_none),
        cmocka_unit_test(silence_ends_in_bounded_time),
        cmocka_unit_test(free_drops_what_is_pending_also_inside_a_callback),
        cmocka_unit_test(a_changed_file_of_the_system_is_followed),
        cmocka_unit_test(a_wrong_resolver_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
