#include "net/dns_internal.h"

#include "base/heap.h"
#include "base/map.h"

#include <ares.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SYSTEM_FILE "/etc/resolv.conf"

enum { CHECK_EVERY_MS = 1000, DNS_PORT = 53 };
enum { SOCKETS_MAX = 64, CACHE_MAX = 8192, CLASS_IN = 1, TYPE_CNAME = 5, TYPE_MX = 15, ALIASES_MAX = 8 };

/* One query that waits for an answer, from the question until the callback. */
struct waiter {
    struct waiter *next;
    struct hky_dns_query *q;     /* NULL: cancelled */
    struct hky_dns_entry *entry; /* the answer, once there is one */
};

/* A question that the resolver has not answered yet. */
struct question {
    struct hky_dns *dns;
    struct waiter *waiters;
    bool is_mx;
    int family;    /* of the addresses; AF_UNSPEC: both */
    char key[256]; /* 'm' or 'a', then the name */
    /* These are set while aliases are followed, to see whether "no such record" only means that they lead in a circle.
     */
    struct hky_dns_entry *nothing;
    unsigned n_aliases;
    char alias[256];
};

struct dns_socket {
    struct hky_dns *dns;
    ares_socket_t fd;
    struct hky_watch *watch; /* NULL: this entry is free */
};

struct hky_dns {
    struct hky_loop *loop;
    ares_channel channel;
    ares_channel
        old; /* the channel with the servers before the last change, until its questions are answered; else NULL */
    struct hky_dns_params params; /* `resolver` is not kept */
    bool has_file;                /* the servers are those of the file; false: they were given */
    struct stat seen;             /* the file's, when it was read */
    int64_t check_at_ms;
    struct hky_timer timer;
    struct dns_socket sockets[SOCKETS_MAX];
    struct hky_map cache, pending; /* struct hky_dns_entry, struct question */
    struct waiter *ready, *ready_last;
    struct hky_task task; /* runs the callbacks of `ready` */
    bool is_queued, is_closed;
};

/* Sets the timer to the moment at which c-ares wants to be called if no answer arrives. Called after every call into
 * c-ares. */
static void set_timer(struct hky_dns *dns)
{
    struct timeval room, room_old, *next;
    if (dns->is_closed)
        return;
    next = ares_timeout(dns->channel, NULL, &room);
    if (dns->old != NULL && ares_timeout(dns->old, NULL, &room_old) == NULL) {
        ares_destroy(dns->old);
        dns->old = NULL;
    }
    if (dns->old != NULL)
        next = ares_timeout(dns->old, next, &room_old);
    if (next == NULL)
        hky_timer_cancel(&dns->timer);
    else
        hky_timer_set(&dns->timer, (int64_t)next->tv_sec * 1000 + next->tv_usec / 1000 + 1);
}

static void process(struct hky_dns *dns, ares_socket_t readable, ares_socket_t writable)
{
    ares_process_fd(dns->channel, readable, writable);
    if (dns->old != NULL)
        ares_process_fd(dns->old, readable, writable);
    set_timer(dns);
}

static void on_timer(struct hky_timer *t)
{
    struct hky_dns *dns = HKY_CONTAINER(t, struct hky_dns, timer);
    process(dns, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void on_ready(void *ctx, int bits)
{
    struct dns_socket *s = ctx;
    struct hky_dns *dns = s->dns;
    ares_socket_t fd = s->fd;
    process(dns, bits & HKY_READABLE ? fd : ARES_SOCKET_BAD, bits & HKY_WRITABLE ? fd : ARES_SOCKET_BAD);
}

/* c-ares calls this to say what it waits for on a socket; both false: it is about to close the socket. */
static void on_socket(void *ctx, ares_socket_t fd, int is_readable, int is_writable)
{
    struct hky_dns *dns = ctx;
    struct dns_socket *s = NULL;
    int bits = (is_readable ? HKY_READABLE : 0) | (is_writable ? HKY_WRITABLE : 0);
    for (int i = 0; i < SOCKETS_MAX; i++) {
        if (dns->sockets[i].watch != NULL && dns->sockets[i].fd == fd) {
            s = &dns->sockets[i];
            break;
        }
        if (s == NULL && dns->sockets[i].watch == NULL)
            s = &dns->sockets[i];
    }
    if (s == NULL)
        return; /* there are more servers than entries: the question times out and the next server is asked */
    hky_watch_free(&s->watch);
    *s = (struct dns_socket){.dns = dns, .fd = fd};
    if (bits != 0)
        s->watch = hky_watch_new_level(dns->loop, fd, bits, on_ready, s);
}

static void dns_destroy(struct hky_dns *dns)
{
    hky_map_fini(&dns->cache);
    hky_map_fini(&dns->pending);
    free(dns);
}

static void waiter_free(struct waiter *w)
{
    if (w->q != NULL)
        w->q->priv = NULL;
    hky_dns_entry_unref(&w->entry);
    free(w);
}

static void answer_waiter(struct waiter *w)
{
    struct hky_dns_query *q = w->q;
    q->priv = NULL;
    w->q = NULL;
    if (w->entry->is_mx) {
        struct hky_dns_mx_answer a;
        hky_dns_copy_mx(w->entry, &a);
        q->on_mx(q, &a);
    } else {
        struct hky_dns_addr_answer a;
        hky_dns_copy_addr(w->entry, &a);
        q->on_addr(q, &a);
    }
}

static void on_task(struct hky_task *task)
{
    struct hky_dns *dns = HKY_CONTAINER(task, struct hky_dns, task);
    dns->is_queued = false;
    if (dns->is_closed) {
        dns_destroy(dns);
        return;
    }
    dns->is_queued = true; /* so that hky_dns_free, called inside a callback, leaves the memory to this function */
    for (struct waiter *w; !dns->is_closed && (w = dns->ready) != NULL;) {
        dns->ready = w->next;
        if (w->q != NULL)
            answer_waiter(w);
        waiter_free(w);
    }
    dns->is_queued = false;
    if (dns->is_closed)
        dns_destroy(dns);
}

static void queue_ready(struct hky_dns *dns, struct waiter *w, struct hky_dns_entry *entry)
{
    w->next = NULL;
    w->entry = entry;
    entry->refs++;
    if (dns->ready != NULL)
        dns->ready_last->next = w;
    else
        dns->ready = w;
    dns->ready_last = w;
    if (dns->is_queued)
        return;
    dns->is_queued = true;
    hky_loop_defer(dns->loop, &dns->task);
}

static void cache_drop(struct hky_dns *dns, bool only_old)
{
    size_t at = 0;
    int64_t now = hky_loop_now_ms(dns->loop);
    for (struct hky_map_entry *m; (m = hky_map_next(&dns->cache, &at)) != NULL;) {
        struct hky_dns_entry *entry = m->value;
        if (only_old && entry->until_ms > now)
            continue;
        hky_map_remove(&dns->cache, hky_str_of(m->key, m->n));
        hky_dns_entry_unref(&entry);
    }
}

static void cache_put(struct hky_dns *dns, const char *key, struct hky_dns_entry *entry)
{
    unsigned ttl = entry->ttl_sec < HKY_DNS_TTL_MAX_SEC ? entry->ttl_sec : HKY_DNS_TTL_MAX_SEC;
    entry->until_ms = hky_loop_now_ms(dns->loop) + (int64_t)ttl * 1000;
    if (dns->cache.n >= CACHE_MAX)
        cache_drop(dns, true);
    if (dns->cache.n >= CACHE_MAX)
        cache_drop(dns, false);
    struct hky_dns_entry *old = hky_map_put(&dns->cache, hky_str_z(key), entry);
    hky_dns_entry_unref(&old);
}

/* Ends the question with this answer; takes over the entry. */
static void answer(struct question *question, struct hky_dns_entry *entry)
{
    struct hky_dns *dns = question->dns;
    entry->is_mx = question->is_mx;
    hky_map_remove(&dns->pending, hky_str_z(question->key));
    for (struct waiter *w; (w = question->waiters) != NULL;) {
        question->waiters = w->next;
        if (dns->is_closed)
            waiter_free(w);
        else
            queue_ready(dns, w, entry);
    }
    if (dns->is_closed)
        hky_dns_entry_unref(&entry);
    else
        cache_put(dns, question->key, entry);
    free(question);
}

static void on_alias(void *arg, int status, int timeouts, unsigned char *reply, int n);

/* Some resolvers follow aliases (CNAME) that lead in a circle for a while, then answer that there is no such record.
 * That is a mistake which somebody will mend, and says nothing about the domain's mail. `nothing` is the answer to give
 * if there is no circle; it is taken over. */
static void find_circle(struct question *question, struct hky_dns_entry *nothing)
{
    question->nothing = nothing;
    question->n_aliases = 0;
    snprintf(question->alias, sizeof question->alias, "%s", question->key + 1);
    ares_query(question->dns->channel, question->alias, CLASS_IN, TYPE_CNAME, on_alias, question);
}

static void on_alias(void *arg, int status, int timeouts, unsigned char *reply, int n)
{
    (void)timeouts;
    struct question *question = arg;
    char next[256], text[120];
    if (question->dns->is_closed || status != ARES_SUCCESS || !hky_dns_alias_of(question->alias, reply, n, next)) {
        answer(question, question->nothing);
        return;
    }
    memcpy(question->alias, next, sizeof next);
    if (++question->n_aliases < ALIASES_MAX && !hky_str_ieq(hky_str_z(next), hky_str_z(question->key + 1))) {
        ares_query(question->dns->channel, question->alias, CLASS_IN, TYPE_CNAME, on_alias, question);
        return;
    }
    hky_dns_entry_unref(&question->nothing);
    snprintf(text, sizeof text, "CNAME of %.50s: the aliases lead in a circle", question->key + 1);
    answer(question, hky_dns_entry_failed(HKY_DNS_FAILED, text));
}

static void on_mx_reply(void *arg, int status, int timeouts, unsigned char *reply, int n)
{
    (void)timeouts;
    struct question *question = arg;
    struct hky_dns_entry *entry = hky_dns_from_mx(question->key + 1, status, reply, n);
    char alias[256];
    if (entry->is_implicit && reply != NULL && hky_dns_alias_of(question->key + 1, reply, n, alias))
        find_circle(question, entry);
    else
        answer(question, entry);
}

static void ask_addrinfo(struct question *question, int family);

/* When c-ares is asked for both families, it says that there is no address as soon as the family whose answer came last
 * has none, and forgets that the other question failed. An answer that would fail a recipient for good is therefore
 * confirmed, one family at a time. Returns the family to ask now; AF_UNSPEC: the answer is certain. A name that does
 * not exist has no address of either family. */
static int family_to_confirm(const struct question *question, enum hky_dns_status status)
{
    if (question->family == AF_UNSPEC && (status == HKY_DNS_NO_NAME || status == HKY_DNS_NO_DATA))
        return AF_INET;
    return question->family == AF_INET && status == HKY_DNS_NO_DATA ? AF_INET6 : AF_UNSPEC;
}

static void on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *ai)
{
    (void)timeouts;
    struct question *question = arg;
    struct hky_dns_entry *entry = hky_dns_from_addrinfo(question->key + 1, status, ai);
    if (ai != NULL)
        ares_freeaddrinfo(ai);
    int next = question->dns->is_closed ? AF_UNSPEC : family_to_confirm(question, entry->status);
    if (next == AF_UNSPEC && entry->status == HKY_DNS_NO_DATA && !question->dns->is_closed) {
        find_circle(question, entry);
        return;
    }
    if (next == AF_UNSPEC) {
        answer(question, entry);
        return;
    }
    hky_dns_entry_unref(&entry);
    ask_addrinfo(question, next);
}

static void ask_addrinfo(struct question *question, int family)
{
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT, .ai_family = family, .ai_socktype = SOCK_STREAM};
    question->family = family;
    ares_getaddrinfo(question->dns->channel, question->key + 1, NULL, &hints, on_addrinfo, question);
}

static enum hky_err channel_open(struct hky_dns *dns, ares_channel *out, struct hky_error *e)
{
    char lookups[] = "fb"; /* the hosts file first */
    char *file = dns->has_file ? hky_strdup(dns->params.file) : NULL;
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
        .timeout = dns->params.try_ms,
        .tries = dns->params.tries,
        .ndots = 0,
        .lookups = lookups,
        .sock_state_cb = on_socket,
        .sock_state_cb_data = dns,
        .resolvconf_path = file,
        .udp_port = dns->params.port,
        .tcp_port = dns->params.port,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_LOOKUPS |
               ARES_OPT_SOCK_STATE_CB | ARES_OPT_UDP_PORT | ARES_OPT_TCP_PORT;
    int status = ares_init_options(out, &options, file != NULL ? mask | ARES_OPT_RESOLVCONF : mask);
    free(file);
    if (status != ARES_SUCCESS)
        return hky_error_set(e, HKY_E_DNS, "cannot set up name resolution: %s; is " SYSTEM_FILE " readable?",
                             ares_strerror(status));
    return HKY_OK;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Changes to the servers that the file names now; questions asked before stay with the old servers. */
static void follow_file(struct hky_dns *dns)
{
    struct hky_error e;
    struct stat now;
    ares_channel channel;
    int64_t at = hky_loop_now_ms(dns->loop);

    if (!dns->has_file || dns->old != NULL || at < dns->check_at_ms)
        return;
    dns->check_at_ms = at + dns->params.check_file_ms;
    if (stat(dns->params.file, &now) != 0 || now.st_size == 0 || is_same(&now, &dns->seen) ||
        channel_open(dns, &channel, &e) != HKY_OK)
        return; /* no change, or a file that is still being written; a later call looks again */
    dns->seen = now;
    dns->old = dns->channel;
    dns->channel = channel;
    cache_drop(dns, false);
}

static struct hky_dns *dns_alloc(struct hky_loop *loop, const struct hky_dns_params *p)
{
    struct hky_dns *dns = hky_calloc(1, sizeof *dns);
    dns->loop = loop;
    dns->params = *p;
    dns->has_file = p->resolver == NULL;
    dns->params.resolver = NULL;
    dns->task.run = on_task;
    hky_map_init_untrusted(&dns->cache);
    hky_map_init_untrusted(&dns->pending);
    hky_timer_init(&dns->timer, loop, on_timer);
    dns->check_at_ms = hky_loop_now_ms(loop) + p->check_file_ms;
    if (dns->has_file)
        (void)stat(p->file, &dns->seen); /* as long as there is no file, c-ares asks a server on this machine */
    return dns;
}

enum hky_err hky_dns_new_with(struct hky_loop *loop, const struct hky_dns_params *p, struct hky_dns **out,
                              struct hky_error *e)
{
    struct hky_dns *dns = dns_alloc(loop, p);
    int status = ARES_SUCCESS;

    if (channel_open(dns, &dns->channel, e) != HKY_OK) {
        dns_destroy(dns);
        return HKY_E_DNS;
    }
    if (p->resolver != NULL)
        status = ares_set_servers_ports_csv(dns->channel, p->resolver);
    if (status != ARES_SUCCESS) {
        hky_dns_free(&dns);
        return hky_error_set(e, HKY_E_CONFIG, "the resolver %.100s is not \"address:port\": %s", p->resolver,
                             ares_strerror(status));
    }
    *out = dns;
    return HKY_OK;
}

enum hky_err hky_dns_new(struct hky_loop *loop, const char *resolver, struct hky_dns **out, struct hky_error *e)
{
    const struct hky_dns_params p = {.resolver = resolver == NULL || resolver[0] == '\0' ? NULL : resolver,
                                     .file = SYSTEM_FILE,
                                     .port = DNS_PORT,
                                     .try_ms = HKY_DNS_TRY_MS,
                                     .tries = HKY_DNS_TRIES,
                                     .check_file_ms = CHECK_EVERY_MS};

    return hky_dns_new_with(loop, &p, out, e);
}

void hky_dns_free(struct hky_dns **at)
{
    struct hky_dns *dns = *at;
    if (dns == NULL)
        return;
    *at = NULL;
    dns->is_closed = true;
    ares_destroy(dns->channel); /* this ends every question without a callback */
    if (dns->old != NULL)
        ares_destroy(dns->old);
    hky_timer_cancel(&dns->timer);
    for (struct waiter *w; (w = dns->ready) != NULL;) {
        dns->ready = w->next;
        waiter_free(w);
    }
    for (int i = 0; i < SOCKETS_MAX; i++)
        hky_watch_free(&dns->sockets[i].watch);
    cache_drop(dns, false);
    if (!dns->is_queued)
        dns_destroy(dns);
}

static struct waiter *waiter_new(struct hky_dns_query *q)
{
    HKY_ASSERT(q->priv == NULL);
    struct waiter *w = hky_calloc(1, sizeof *w);
    w->q = q;
    q->priv = w;
    return w;
}

static void answer_from_entry(struct hky_dns *dns, struct hky_dns_query *q, struct hky_dns_entry *entry, bool is_mx)
{
    entry->is_mx = is_mx;
    queue_ready(dns, waiter_new(q), entry);
    hky_dns_entry_unref(&entry);
}

/* Answers from the cache, or joins a pending question for the same, and then returns NULL; otherwise returns a new
 * question. */
static struct question *ask(struct hky_dns *dns, struct hky_dns_query *q, char kind, const char *name)
{
    char key[256];
    snprintf(key, sizeof key, "%c%s", kind, name);
    struct hky_dns_entry *entry = hky_map_get(&dns->cache, hky_str_z(key));
    struct waiter *w = waiter_new(q);
    if (entry != NULL && entry->until_ms > hky_loop_now_ms(dns->loop)) {
        queue_ready(dns, w, entry);
        return NULL;
    }
    struct question *question = hky_map_get(&dns->pending, hky_str_z(key));
    bool is_new = question == NULL;
    if (is_new) {
        question = hky_calloc(1, sizeof *question);
        question->dns = dns;
        question->is_mx = kind == 'm';
        memcpy(question->key, key, sizeof key);
        hky_map_put(&dns->pending, hky_str_z(key), question);
    }
    w->next = question->waiters;
    question->waiters = w;
    return is_new ? question : NULL;
}

void hky_dns_ask_mx(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str domain)
{
    char name[254];
    if (!hky_dns_name(domain, name)) {
        answer_from_entry(dns, q, hky_dns_entry_failed(HKY_DNS_NO_NAME, "not a domain name"), true);
        return;
    }
    struct question *question = ask(dns, q, 'm', name);
    if (question == NULL)
        return;
    follow_file(dns);
    ares_query(dns->channel, name, CLASS_IN, TYPE_MX, on_mx_reply, question);
    set_timer(dns);
}

void hky_dns_ask_addr(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str host)
{
    char name[254];
    if (host.n > 0 && host.n < sizeof name && memchr(host.p, 0, host.n) == NULL) {
        memcpy(name, host.p, host.n);
        name[host.n] = 0;
        struct hky_dns_entry *literal = hky_dns_from_literal(name);
        if (literal != NULL) {
            answer_from_entry(dns, q, literal, false);
            return;
        }
    }
    if (!hky_dns_name(host, name)) {
        answer_from_entry(dns, q, hky_dns_entry_failed(HKY_DNS_NO_NAME, "not a host name"), false);
        return;
    }
    struct question *question = ask(dns, q, 'a', name);
    if (question == NULL)
        return;
    follow_file(dns);
    ask_addrinfo(question, AF_UNSPEC);
    set_timer(dns);
}

void hky_dns_cancel(struct hky_dns_query *q)
{
    struct waiter *w = q->priv;
    if (w == NULL)
        return;
    w->q = NULL;
    q->priv = NULL;
}
