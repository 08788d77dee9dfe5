#include "cli/cli.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/nearest.h"
#include "hikyaku/deliver.h"
#include "hikyaku/route.h"
#include "mail/address.h"

#include <stdio.h>
#include <stdlib.h>

static const struct hky_cli_option options[] = {
    {"all", NULL, "test every relay of the policy"},
    {"to", "ADDRESS", "whom the test mail goes to; default: engine.owner"},
    {"no-send", NULL, "stop after RCPT: no mail is sent"},
    {"lang", "en|ja", "language of causes and cures; default: from $LANG"},
    {NULL, NULL, NULL},
};

struct probe {
    const char *to, *lang;
    bool is_all, is_dry, is_json, is_ja;
    struct hky_buf rows;  /* of the relay being probed, an array */
    struct hky_json json; /* writes `rows` */
};

static const char *stage_label(enum hky_stage stage, bool is_ja)
{
    static const char *const ja[HKY_STAGE_N] = {
        [HKY_STAGE_CONNECT] = "接続", [HKY_STAGE_GREETING] = "応答",   [HKY_STAGE_HELLO] = "EHLO",
        [HKY_STAGE_TLS] = "TLS",      [HKY_STAGE_AUTH] = "認証",       [HKY_STAGE_MAIL] = "差出人",
        [HKY_STAGE_RCPT] = "宛先",    [HKY_STAGE_DATA] = "データ開始", [HKY_STAGE_DOT] = "送信",
    };
    const char *name = is_ja && stage < HKY_STAGE_N ? ja[stage] : NULL;
    return name != NULL ? name : hky_stage_name(stage);
}

/* Pads to `width` display columns; every character beyond ASCII in these texts is two columns wide. */
static void print_padded(const char *text, int width)
{
    int used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
        if ((*p & 0xc0) != 0x80)
            used += *p < 0x80 ? 1 : 2;
    printf("%s%*s", text, used < width ? width - used : 0, "");
}

#define TEXT_INDENT (2 + 4 + 1 + 11 + 7 + 5)
#define NOTE_INDENT 6 /* small, because a pin has 64 digits */

static void on_line(void *ctx, const struct hky_probe_line *line)
{
    struct probe *p = ctx;
    if (p->is_json) {
        hky_json_begin_object(&p->json, NULL);
        hky_json_z(&p->json, "stage", hky_stage_name(line->stage));
        if (line->is_note)
            hky_json_bool(&p->json, "note", true);
        else
            hky_json_bool(&p->json, "good", line->is_good);
        hky_json_int(&p->json, "took_ms", line->took_ms);
        hky_json_str(&p->json, "text", hky_str_z(line->text));
        hky_json_end_object(&p->json);
        return;
    }
    if (line->is_note) {
        printf("%*s", NOTE_INDENT, "");
        hky_cli_print_words(line->text, NOTE_INDENT);
        return;
    }
    printf("  %s%s%s ", hky_cli_colour(line->is_good ? "green" : "red"), line->is_good ? "ok  " : "FAIL",
           hky_cli_colour("off"));
    print_padded(stage_label(line->stage, p->is_ja), 11);
    printf("%7lld ms  ", (long long)line->took_ms);
    hky_cli_print_words(line->text, TEXT_INDENT);
    fflush(stdout);
}

/* What the probe does not test because engine.redirect sends another way, or NULL. */
static const char *untried(const struct hky_policy *policy, const struct hky_relay *r, bool is_ja)
{
    bool has_login = r->auth != HKY_AUTH_NONE && (r->auth != HKY_AUTH_AUTO || (r->user != NULL && r->user[0] != '\0'));
    if (policy->engine.redirect == NULL || policy->engine.redirect[0] == '\0')
        return NULL;
    if (r->tls != HKY_TLS_NONE && has_login)
        return is_ja ? "本来のサーバーへの接続、TLS、認証" : "the connection to its own server, TLS and login";
    if (r->tls != HKY_TLS_NONE)
        return is_ja ? "本来のサーバーへの接続とTLS" : "the connection to its own server and TLS";
    if (has_login)
        return is_ja ? "本来のサーバーへの接続と認証" : "the connection to its own server and login";
    return is_ja ? "本来のサーバーへの接続" : "the connection to its own server";
}

static void print_json(struct probe *p, const struct hky_policy *policy, const struct hky_relay *r, bool is_good,
                       const struct hky_outcome *o, struct hky_buf *cure, bool is_first)
{
    struct hky_buf out;
    struct hky_json j = hky_json_to(&out);
    hky_buf_init(&out, 1024 * 1024);
    hky_json_end_array(&p->json);
    hky_json_begin_object(&j, NULL);
    hky_json_z(&j, "relay", r->name);
    hky_json_bool(&j, "good", is_good);
    hky_json_z(&j, "class", hky_class_name(o->class));
    hky_json_z(&j, "stage", hky_stage_name(o->stage));
    hky_json_z(&j, "not_tried", untried(policy, r, p->is_ja));
    hky_json_made(&j, "lines", hky_buf_str(&p->rows));
    hky_json_z(&j, "cure", cure->n > 0 ? hky_buf_z(cure) : NULL);
    hky_json_end_object(&j);
    printf("%s%s\n", is_first ? "" : ",", hky_buf_z(&out));
    hky_buf_fini(&out);
}

static void print_good(const struct probe *p, const struct hky_policy *policy, const struct hky_relay *r)
{
    const char *to = p->to != NULL ? p->to : policy->engine.owner;
    const char *not_tried = untried(policy, r, p->is_ja);
    struct hky_buf text;
    hky_buf_init(&text, 8192);
    if (not_tried == NULL) {
        printf("%s%s%s\n", hky_cli_colour("green"), p->is_ja ? "正常です。" : "It works.", hky_cli_colour("off"));
        hky_buf_printf(&text,
                       p->is_ja ? "%s 宛てのテストメールが届くか、迷惑メールに入っていないか確認してください。"
                                : "See whether the test mail to %s arrives, and not among the spam.",
                       to);
        if (!p->is_dry)
            hky_cli_print_words(hky_buf_z(&text), 0);
        printf("\n");
        hky_buf_fini(&text);
        return;
    }
    if (p->is_ja)
        hky_buf_printf(&text,
                       "engine.redirect の %s がメールを受け付けました。次のものは試していません：%s。"
                       "このリレーを試すには、engine.redirect を外したポリシーで probe を実行してください。",
                       policy->engine.redirect, not_tried);
    else
        hky_buf_printf(&text,
                       "%s (engine.redirect) took the mail. Not tried: %s. To test the relay itself, probe a policy "
                       "without engine.redirect.",
                       policy->engine.redirect, not_tried);
    hky_cli_print_words(hky_buf_z(&text), 0);
    printf("\n");
    hky_buf_fini(&text);
}

static void print_result(struct probe *p, const struct hky_policy *policy, const struct hky_relay *r, bool is_good,
                         const struct hky_outcome *o, const struct hky_error *e, struct hky_buf *cure)
{
    if (is_good) {
        print_good(p, policy, r);
        return;
    }
    bool has_reply = o->stage != HKY_STAGE_NONE;
    printf("%s%s%s: %s (%s)\n", hky_cli_colour("red"), p->is_ja ? "失敗" : "failed", hky_cli_colour("off"),
           has_reply ? stage_label(o->stage, p->is_ja) : e->text, has_reply ? hky_class_name(o->class) : r->name);
    if (has_reply) {
        struct hky_buf text;
        hky_buf_init(&text, 8192);
        hky_buf_printf(&text, "%s: %s", p->is_ja ? "考えられる原因と対処" : "Likely cause and cure", hky_buf_z(cure));
        hky_cli_print_words(hky_buf_z(&text), 0);
        hky_buf_fini(&text);
    }
    printf("\n");
}

#define NAMES_SHOWN 10

static void print_heading(const struct probe *p, const struct hky_policy *policy, const struct hky_relay *r)
{
    const char *to = p->to != NULL ? p->to : policy->engine.owner;
    fputs(hky_cli_colour("bold"), stdout);
    hky_cli_put(stdout, r->name);
    printf("%s  ", hky_cli_colour("off"));
    if (r->is_mx)
        hky_cli_printf(stdout, p->is_ja ? "%s への直接配送（MX）" : "own delivery (MX) to %s", to != NULL ? to : "");
    else
        hky_cli_printf(stdout, "%s:%u", r->host, r->port);
    if (policy->engine.redirect[0] != '\0')
        hky_cli_printf(stdout, p->is_ja ? "　代わりに %s へ接続（engine.redirect）" : " at %s (engine.redirect)",
                       policy->engine.redirect);
    printf("\n");
}

static bool probe_one(struct probe *p, struct hky_policy *policy, const struct hky_relay *r, bool is_first)
{
    struct hky_outcome o;
    struct hky_error e = {0};
    struct hky_probe_params params = {
        .policy = policy, .relay = r, .to = p->to, .send = !p->is_dry, .is_ja = p->is_ja, .on_line = on_line, .ctx = p};
    hky_buf_init(&p->rows, 256 * 1024);
    p->json = hky_json_to(&p->rows);
    hky_json_begin_array(&p->json, NULL);
    if (!p->is_json)
        print_heading(p, policy, r);
    bool is_good = hky_probe_run(&params, &o, &e) == HKY_OK;
    struct hky_buf cure;
    hky_buf_init(&cure, 4096);
    if (!is_good && o.stage != HKY_STAGE_NONE)
        hky_probe_cure(r, &o, p->is_ja ? "ja" : "en", &cure);
    else if (!is_good)
        hky_buf_add_z(&cure, e.text);
    if (p->is_json)
        print_json(p, policy, r, is_good, &o, &cure, is_first);
    else
        print_result(p, policy, r, is_good, &o, &e, &cure);
    hky_buf_fini(&cure);
    hky_buf_fini(&p->rows);
    return is_good;
}

static int no_such_relay(const struct hky_policy *policy, const char *name)
{
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(name));

    for (uint32_t i = 0; i < policy->n_relays; i++)
        hky_nearest_consider(&near, policy->relays[i].name);
    hky_cli_printf(stderr, "hikyaku: no relay \"%s\" in %s" HKY_NEAREST_FMT, name, policy->path,
                   HKY_NEAREST_ARG(&near));
    for (uint32_t i = 0; i < policy->n_relays && i < NAMES_SHOWN && near.name == NULL; i++)
        hky_cli_printf(stderr, "%s%s", i == 0 ? "; there are " : ", ", policy->relays[i].name);
    fprintf(stderr, "\n");
    return HKY_EXIT_USAGE;
}

static int probe_named(struct probe *p, struct hky_policy *policy, char **names, int n_names)
{
    for (int i = 0; i < n_names; i++)
        if (hky_policy_relay(policy, hky_str_z(names[i])) == NULL)
            return no_such_relay(policy, names[i]);
    int n = p->is_all ? (int)policy->n_relays : n_names, n_bad = 0;
    if (p->is_json)
        printf("[");
    for (int i = 0; i < n; i++) {
        const struct hky_relay *r = p->is_all ? &policy->relays[i] : hky_policy_relay(policy, hky_str_z(names[i]));
        if (!probe_one(p, policy, r, i == 0))
            n_bad++;
    }
    if (p->is_json)
        printf("]\n");
    else if (n > 1)
        printf(p->is_ja ? "%1$d件中%2$d件が正常です。\n" : "%2$d of %1$d relays work.\n", n, n - n_bad);
    return n_bad > 0 ? HKY_EXIT_NO : HKY_EXIT_GOOD;
}

static struct hky_policy *load(const char *path)
{
    struct hky_clock clock = HKY_CLOCK_REAL;
    struct hky_policy_load_params params = {.path = path, .now_ms = hky_clock_now_ms(&clock), .may_lack_routes = true};
    struct hky_problems problems = {0};
    struct hky_policy *policy = NULL;
    if (hky_policy_load(&params, &policy, &problems) != HKY_OK) {
        struct hky_buf text;
        hky_buf_init(&text, 1024 * 1024);
        for (size_t i = 0; i < problems.n; i++) {
            hky_buf_clear(&text);
            hky_cli_add_problem(&text, path, &problems.items[i]);
            hky_cli_printf(stderr, "%s\n", hky_buf_z(&text));
        }
        hky_buf_fini(&text);
    }
    hky_problems_fini(&problems);
    return policy;
}

static bool is_japanese(const char *lang)
{
    const char *names[] = {lang, getenv("LC_ALL"), getenv("LC_MESSAGES"), getenv("LANG")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i] != NULL && names[i][0] != '\0')
            return strncmp(names[i], "ja", 2) == 0;
    return false;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_cli_args args;
    struct probe p = {0};
    const char *name, *value;
    hky_cli_args_init(&args, self, argc, argv);
    while ((name = hky_cli_next(&args, &value)) != NULL)
        if (strcmp(name, "all") == 0)
            p.is_all = true;
        else if (strcmp(name, "to") == 0)
            p.to = value;
        else if (strcmp(name, "no-send") == 0)
            p.is_dry = true;
        else if (strcmp(name, "lang") == 0)
            p.lang = value;
    int code = hky_cli_args_done(&args, p.is_all ? 1 : 2, p.is_all ? 1 : 1000);
    if (code >= 0)
        return code;
    p.is_json = args.is_json;
    p.is_ja = is_japanese(p.lang);
    if (p.lang != NULL && strcmp(p.lang, "en") != 0 && strcmp(p.lang, "ja") != 0) {
        hky_cli_printf(stderr, "hikyaku: --lang is en or ja, not \"%s\"\n", p.lang);
        return HKY_EXIT_USAGE;
    }
    struct hky_address to;
    struct hky_error e = {0};
    if (p.to != NULL && hky_mailbox_parse(hky_str_z(p.to), &to, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku probe: --to %s is no address: %s\n", p.to, e.text);
        return HKY_EXIT_USAGE;
    }
    struct hky_policy *policy = load(args.argv[0]);
    if (policy == NULL)
        return HKY_EXIT_NO;
    code = probe_named(&p, policy, args.argv + 1, args.n_positional - 1);
    hky_policy_unref(&policy);
    return code;
}

const struct hky_cli_command hky_cli_probe = {
    .name = "probe",
    .args = "POLICY RELAY... | POLICY --all",
    .summary = "test the connection to relays, with a real test mail",
    .help = "Sends a test mail and shows each stage with its time and the server's words: connect, greeting, TLS,\n"
            "login, sender, recipient, content. After a failure the likely cause and the cure are printed.\n"
            "\n"
            "  hikyaku probe policy.lua gmail\n"
            "  hikyaku probe policy.lua --all --to me@shop.example --lang ja\n"
            "\n"
            "Exit code 0: all of them work; 1: not all, or the policy has errors; 2: wrong usage.",
    .options = options,
    .run = run,
};
