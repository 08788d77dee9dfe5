/* Decisions a second on one core: 10 and 10,000 routes by domain, rows, and a Lua matcher. */
#include "base/clock.h"
#include "hikyaku/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_MS 1000

static struct hky_policy *policy_of(const char *dir, FILE *(*write)(FILE *, int), int n)
{
    char path[200];
    struct hky_problems problems = {0};
    struct hky_policy *p = NULL;
    struct hky_policy_load_params params = {path, NULL, 1796083200000};

    snprintf(path, sizeof path, "%s/policy.lua", dir);
    fclose(write(fopen(path, "w"), n));
    if (hky_policy_load(&params, &p, &problems) != HKY_OK) {
        fprintf(stderr, "%s\n", problems.items[0].text);
        exit(1);
    }
    hky_problems_fini(&problems);
    unlink(path);
    return p;
}

static FILE *write_routes(FILE *f, int n)
{
    fprintf(f, "relay 'own' { mx = true }\nrelay 'b' { host = 'b.example' }\n");
    for (int i = 0; i < n - 1; i++)
        fprintf(f, "route 'r%d' { to = 'd%d.example', via = { 'own', 'b' } }\n", i, i);
    fprintf(f, "route 'rest' { priority = 900, to = '*', via = 'own' }\n");
    return f;
}

static FILE *write_rows(FILE *f, int n)
{
    fprintf(f, "relay 'own' { mx = true }\nrelay 'b' { host = 'b.example' }\nrows {\n");
    for (int i = 0; i < n - 1; i++)
        fprintf(f, "{ name = 'r%d', to = 'd%d.example', relay = 'b' },\n", i, i);
    fprintf(f, "{ name = 'rest', priority = 900, to = '*', relay = 'own' } }\n");
    return f;
}

static FILE *write_matcher(FILE *f, int n)
{
    (void)n;
    fprintf(f, "relay 'own' { mx = true }\nrelay 'b' { host = 'b.example' }\n"
               "route 'vip' { to = '*', when = function(r) return r.domain == 'd1.example' and not r.tags.urgent end, "
               "via = 'b' }\nroute 'rest' { priority = 900, to = '*', via = 'own' }\n");
    return f;
}

static FILE *write_function(FILE *f, int n)
{
    (void)n;
    fprintf(f, "relay 'own' { mx = true }\nrelay 'b' { host = 'b.example' }\nlocal x, y = { 'own', 'b' }, { 'b' }\n"
               "route 'all' { to = '*', via = function(r) return r:hash 's' < 0.5 and x or y end }\n");
    return f;
}

static void run(const char *dir, const char *name, FILE *(*write)(FILE *, int), int n)
{
    struct hky_policy *p = policy_of(dir, write, n);
    struct hky_vm *vm;
    struct hky_error e = {0};
    struct hky_message *m[64];
    uint64_t done = 0;
    int64_t start, end;

    if (hky_vm_new(p, &vm, &e) != HKY_OK) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    for (int i = 0; i < 64; i++) {
        char to[64];
        int k = snprintf(to, sizeof to, "user%d@d%d.example", i, i * 7 % n);
        struct hky_rcpt_draft rcpt = {hky_str_of(to, (size_t)k), HKY_STR(""), 0};
        struct hky_message_draft d = {.id = (uint64_t)i + 1, .recipients = &rcpt, .n_recipients = 1};
        for (int f = 0; f < HKY_FACT_N; f++)
            d.facts[f] = HKY_STR("");
        d.facts[HKY_FACT_SENDER] = d.facts[HKY_FACT_AUTHOR] = HKY_STR("news@shop.example");
        m[i] = hky_message_new(&d);
    }
    start = hky_thread_cpu_ns();
    do {
        for (int i = 0; i < 640; i++) {
            struct hky_message *one = m[i % 64];
            struct hky_route_query q = {one, &one->recipients[0], {NULL, 0}, 1796083200000};
            struct hky_decision d;
            hky_route_decide(vm, &q, &d);
            if (d.kind != HKY_DECIDED) {
                fprintf(stderr, "not decided: %s\n", d.text);
                exit(1);
            }
            hky_plan_unref(&d.plan);
            free(d.arms);
        }
        done += 640;
        end = hky_thread_cpu_ns();
    } while (end - start < ROUNDS_MS * INT64_C(1000000));
    printf("%-28s %10.0f decisions/s\n", name, (double)done * 1e9 / (double)(end - start));
    for (int i = 0; i < 64; i++)
        hky_message_unref(&m[i]);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

int main(void)
{
    char dir[] = "/tmp/hky_decisions_XXXXXX";

    if (mkdtemp(dir) == NULL)
        return 1;
    run(dir, "10 routes by domain", write_routes, 10);
    run(dir, "10,000 routes by domain", write_routes, 10000);
    run(dir, "10 rows by domain", write_rows, 10);
    run(dir, "10,000 rows by domain", write_rows, 10000);
    run(dir, "a Lua matcher", write_matcher, 10);
    run(dir, "a plan chosen by a function", write_function, 10);
    rmdir(dir);
    return 0;
}
