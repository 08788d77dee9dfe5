/* load -- sends many messages over many connections, and checks whether they arrived. */
#include "base/duration.h"
#include "base/endpoint.h"
#include "cli/load.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1000

static const struct hky_cli_option options[] = {
    {"server", "ADDR:PORT", "the engine's listener (default $HIKYAKU_SERVER, else 127.0.0.1:2525)"},
    {"n", "N", "send N messages (default 1000)"},
    {"c", "N", "use N connections (default 10)"},
    {"rate", "N", "at most N messages a second"},
    {"size", "SIZE", "size of a message in octets, also as 4K or 1M (default 4K)"},
    {"domains", "LIST", "recipient domains with weights: docomo.ne.jp=3,au.com=2,gmail.com (default example.com)"},
    {"from", "ADDRESS", "sender and author (default load@shop.example)"},
    {"scenario", "NAME", "the scenario that the messages belong to"},
    {"store", "DIR", "the folder of `hikyaku sink --store DIR`: compare what was acknowledged with what arrived"},
    {"wait", "DURATION", "with --store: stop waiting when nothing new arrives for this long (default 30s)"},
    {"ids", "FILE", "write a line per message: number, acked|refused|unknown, id or reply"},
    {NULL, NULL, NULL},
};

static bool take_size(const char *text, uint64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t unit = text[digits] == 'K' || text[digits] == 'k' ? 1024 : text[digits] == 'M' ? 1024 * 1024 : 1;

    if (text[digits] != '\0' && (unit == 1 || text[digits + 1] != '\0'))
        return false;
    if (!hky_str_u64(hky_str_of(text, digits), 1u << 20, out) && unit != 1)
        return false;
    if (unit == 1 && !hky_str_u64(hky_str_of(text, digits), 64u << 20, out))
        return false;
    *out *= unit;
    return *out <= (64u << 20);
}

static bool take_domains(struct hky_load *load, const char *list)
{
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        const char *equals = memchr(list, '=', n);
        uint64_t weight = 1;

        if (load->n_domains == HKY_LOAD_DOMAINS_MAX)
            return false;
        if (equals != NULL &&
            (!hky_str_u64(hky_str_of(equals + 1, n - (size_t)(equals + 1 - list)), 10000, &weight) || weight == 0))
            return false;
        load->domains[load->n_domains].name =
            hky_str_dup(hky_str_of(list, equals != NULL ? (size_t)(equals - list) : n));
        load->domains[load->n_domains++].weight = (unsigned)weight;
        load->total_weight += (unsigned)weight;
        list += n + (list[n] == ',');
    }
    return load->n_domains > 0;
}

static bool take_server(struct hky_load *load, const char *server, char host[256], char port[8])
{
    uint16_t number;

    if (!hky_endpoint_parse(hky_str_z(server), host, &number))
        return false;
    snprintf(port, 8, "%u", number);
    load->host = host;
    load->port = port;
    return true;
}

static void show_progress(const struct hky_load *load)
{
    uint64_t done = __atomic_load_n(&load->done, __ATOMIC_RELAXED);
    double took = (double)(hky_mono_ns() - load->started_ns) / 1e9;
    int width = 30, full = (int)(done * (unsigned)width / load->n);

    printf("\r[%.*s%.*s] %lu of %lu, %.0f/s ", full, "##############################", width - full,
           "..............................", (unsigned long)done, (unsigned long)load->n,
           took > 0 ? (double)done / took : 0);
    fflush(stdout);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static double percentile(const uint32_t *sorted, uint64_t n, double p)
{
    return n > 0 ? sorted[(uint64_t)((double)(n - 1) * p)] / 1000.0 : 0;
}

static void print_json(const struct hky_load *load, const uint64_t counts[4], uint64_t n,
                       const struct hky_load_arrivals *arrivals, double took)
{
    struct hky_buf b;
    struct hky_json j = hky_json_to(&b);

    hky_buf_init(&b, 4000);
    hky_json_begin_object(&j, NULL);
    hky_json_z(&j, "run", load->run);
    hky_json_uint(&j, "acked", counts[HKY_LOAD_ACKED]);
    hky_json_uint(&j, "refused", counts[HKY_LOAD_REFUSED]);
    hky_json_uint(&j, "unknown", counts[HKY_LOAD_UNKNOWN]);
    hky_json_uint(&j, "unsent", counts[HKY_LOAD_UNSENT]);
    hky_json_real(&j, "seconds", took, 3);
    hky_json_real(&j, "per_second", (double)counts[HKY_LOAD_ACKED] / took, 1);
    hky_json_real(&j, "p50_ms", percentile(load->latency_us, n, 0.5), 2);
    hky_json_real(&j, "p99_ms", percentile(load->latency_us, n, 0.99), 2);
    if (arrivals != NULL) {
        hky_json_uint(&j, "arrived", arrivals->arrived);
        hky_json_uint(&j, "lost", arrivals->lost);
        hky_json_uint(&j, "twice", arrivals->twice);
        hky_json_uint(&j, "unexpected", arrivals->unexpected);
    }
    hky_json_end_object(&j);
    puts(hky_buf_z(&b));
    hky_buf_fini(&b);
}

static int print_report(struct hky_load *load, double took, const struct hky_load_arrivals *arrivals, bool is_json)
{
    uint64_t counts[4] = {0}, n = 0;

    for (uint64_t i = 0; i < load->n; i++) {
        counts[load->states[i]]++;
        if (load->states[i] == HKY_LOAD_ACKED)
            load->latency_us[n++] = load->latency_us[i];
    }
    qsort(load->latency_us, n, sizeof *load->latency_us, compare_u32);
    if (!load->is_answered && !is_json) {
        /* nothing to report */
    } else if (is_json) {
        print_json(load, counts, n, arrivals, took);
    } else {
        printf("%lu acknowledged in %.2f s (%.0f/s; reply to the dot p50 %.2f ms, p99 %.2f ms), %lu refused, %lu "
               "unknown, %lu not sent\n",
               (unsigned long)counts[HKY_LOAD_ACKED], took, (double)counts[HKY_LOAD_ACKED] / took,
               percentile(load->latency_us, n, 0.5), percentile(load->latency_us, n, 0.99),
               (unsigned long)counts[HKY_LOAD_REFUSED], (unsigned long)counts[HKY_LOAD_UNKNOWN],
               (unsigned long)counts[HKY_LOAD_UNSENT]);
        if (load->first_refusal[0] != '\0') {
            fputs("first refusal: ", stdout);
            hky_cli_put(stdout, load->first_refusal);
            putchar('\n');
        }
        if (arrivals != NULL)
            printf("%lu arrived, %lu of the acknowledged did not%s, %lu came twice\n", (unsigned long)arrivals->arrived,
                   (unsigned long)arrivals->lost, arrivals->lost > 0 ? " (yet)" : "", (unsigned long)arrivals->twice);
    }
    if (counts[HKY_LOAD_ACKED] == 0 && counts[HKY_LOAD_REFUSED] == 0) {
        fprintf(
            stderr,
            "hikyaku load: no engine answers at %s:%s. Start it with: hikyaku run POLICY; or say where it listens with "
            "--server or HIKYAKU_SERVER\n",
            load->host, load->port);
        return HKY_EXIT_UNREACHED;
    }
    return counts[HKY_LOAD_ACKED] == load->n && (arrivals == NULL || arrivals->lost == 0) ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

static int send_all(struct hky_load *load, const char *store, int64_t patience_ms, bool is_json)
{
    pthread_t *threads = hky_calloc(load->connections, sizeof *threads);
    struct hky_load_arrivals arrivals;
    unsigned started = 0;
    double took;

    load->states = hky_calloc(load->n, 1);
    load->latency_us = hky_calloc(load->n, sizeof *load->latency_us);
    load->started_ns = hky_mono_ns();
    for (; started < load->connections; started++)
        if (pthread_create(&threads[started], NULL, hky_load_client, load) != 0)
            break;
    if (hky_cli_is_terminal() && !is_json) {
        while (__atomic_load_n(&load->done, __ATOMIC_RELAXED) < load->n &&
               pthread_tryjoin_np(threads[0], NULL) == EBUSY) {
            show_progress(load);
            usleep(200000);
        }
        show_progress(load);
        putchar('\n');
    }
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    took = (double)(hky_mono_ns() - load->started_ns) / 1e9;
    free(threads);
    if (store != NULL && !hky_load_compare(load, store, patience_ms, &arrivals))
        return HKY_EXIT_USAGE;
    return print_report(load, took, store != NULL ? &arrivals : NULL, is_json);
}

/* Prints an error when the value was not accepted. */
static bool is_taken(const struct hky_cli_command *self, const char *option, const char *value, bool is_good,
                     const char *takes)
{
    if (!is_good)
        hky_cli_printf(stderr, "hikyaku %s: \"%s\" is no value for --%s, which takes %s\n", self->name, value, option,
                       takes);
    return is_good;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    const char *env = getenv("HIKYAKU_SERVER"), *server = env != NULL && env[0] != '\0' ? env : "127.0.0.1:2525";
    const char *value, *store = NULL, *name, *ids = NULL;
    struct hky_load load = {.n = 1000, .size = 4096, .connections = 10, .from = "load@shop.example"};
    struct hky_cli_args args;
    char host[256], port[8], random[6];
    uint32_t patience_sec = 30;
    uint64_t n;
    bool is_good = true;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    while (is_good && (name = hky_cli_next(&args, &value)) != NULL) {
        if (strcmp(name, "server") == 0)
            server = value;
        else if (strcmp(name, "n") == 0)
            is_good = hky_cli_number(self, name, value, 1, 100000000, &load.n);
        else if (strcmp(name, "c") == 0) {
            is_good = hky_cli_number(self, name, value, 1, CONNECTIONS_MAX, &n);
            load.connections = is_good ? (unsigned)n : 1;
        } else if (strcmp(name, "rate") == 0)
            is_good = hky_cli_number(self, name, value, 1, 1000000, &load.rate);
        else if (strcmp(name, "size") == 0)
            is_good =
                is_taken(self, name, value, take_size(value, &load.size), "octets, also as 4K or 1M, at most 64M");
        else if (strcmp(name, "domains") == 0)
            is_good = is_taken(self, name, value, take_domains(&load, value), "a list such as docomo.ne.jp=3,au.com");
        else if (strcmp(name, "from") == 0)
            load.from = value;
        else if (strcmp(name, "scenario") == 0)
            load.scenario = value;
        else if (strcmp(name, "store") == 0)
            store = value;
        else if (strcmp(name, "ids") == 0)
            ids = value;
        else
            is_good = is_taken(self, name, value, hky_duration_parse(hky_str_z(value), &patience_sec),
                               "a duration such as 90s, 10m or 2h");
    }
    code = is_good ? hky_cli_args_done(&args, 0, 0) : HKY_EXIT_USAGE;
    if (code < 0 && !(hky_cli_is_server(self, server) && take_server(&load, server, host, port)))
        code = HKY_EXIT_USAGE;
    if (code < 0 && ids != NULL && (load.ids = fopen(ids, "w")) == NULL) {
        hky_cli_printf(stderr, "hikyaku load: cannot write %s: %s\n", ids, strerror(errno));
        code = HKY_EXIT_USAGE;
    }
    if (code < 0) {
        if (load.n_domains == 0)
            take_domains(&load, "example.com");
        hky_random(random, sizeof random);
        for (size_t i = 0; i < sizeof random; i++)
            snprintf(load.run + 2 * i, 3, "%02x", (unsigned char)random[i]);
        pthread_mutex_init(&load.lock, NULL);
        code = send_all(&load, store, (int64_t)patience_sec * 1000, args.is_json);
    }
    for (unsigned i = 0; i < load.n_domains; i++)
        free(load.domains[i].name);
    if (load.ids != NULL)
        fclose(load.ids);
    free(load.states);
    free(load.latency_us);
    return code;
}

const struct hky_cli_command hky_cli_load = {
    .name = "load",
    .args = "",
    .summary = "send many messages and check what became of them",
    .help = "Example, with a sink that fails now and then:\n"
            "  hikyaku sink --store received --rule '* dot 5% 451 4.3.0 busy' &\n"
            "  hikyaku load -n 20000 -c 50 --store received \\\n"
            "      --domains docomo.ne.jp=3,au.com,gmail.com\n"
            "\n"
            "Exit code 0: every message was acknowledged and, with --store, arrived.",
    .options = options,
    .run = run,
};
