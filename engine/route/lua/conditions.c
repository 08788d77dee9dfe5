/* Does a route match? Cheap conditions first, Lua last. */
#include "mail/header.h"
#include "route/lua/decide.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static bool no(char *why, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static bool no(char *why, size_t n, const char *fmt, ...)
{
    va_list ap;

    if (why == NULL)
        return false;
    va_start(ap, fmt);
    vsnprintf(why, n, fmt, ap);
    va_end(ap);
    return false;
}

static bool is_sender_met(struct hky_asking *a, const struct hky_match *m)
{
    if (!a->has_sender)
        hky_match_key_init(&a->sender, hky_message_fact(a->q->message, HKY_FACT_SENDER));
    a->has_sender = true;
    return hky_match_has(m, &a->sender);
}

static bool is_author_met(struct hky_asking *a, const struct hky_match *m)
{
    if (!a->has_author)
        hky_match_key_init(&a->author, hky_message_fact(a->q->message, HKY_FACT_AUTHOR));
    a->has_author = true;
    return hky_match_has(m, &a->author);
}

static bool is_scenario_met(const struct hky_asking *a, const struct hky_route *r)
{
    struct hky_str scenario = hky_message_fact(a->q->message, HKY_FACT_SCENARIO);

    for (size_t i = 0; r->scenarios[i] != NULL; i++)
        if (hky_str_eq(scenario, hky_str_z(r->scenarios[i])))
            return true;
    return false;
}

static bool is_tag_met(const struct hky_asking *a, const struct hky_route *r)
{
    for (size_t i = 0; r->tags[i] != NULL; i++)
        if (hky_message_has_tag(a->q->message, hky_str_z(r->tags[i])))
            return true;
    return false;
}

static bool is_header_met(const struct hky_asking *a, const struct hky_header_condition *c)
{
    struct hky_str section = hky_asking_header(a->vm);
    struct hky_field f;
    struct hky_buf value;
    size_t at = 0;
    bool is_met = false;

    while (!is_met && section.p != NULL && hky_field_next(section, &at, &f)) {
        if (!hky_str_ieq(f.name, hky_str_z(c->name)))
            continue;
        hky_buf_init(&value, 65536);
        hky_field_decode(f.value, &value);
        is_met = hky_str_glob(hky_str_z(c->glob), hky_str_trim(hky_buf_str(&value)));
        hky_buf_fini(&value);
    }
    return is_met;
}

static int when_end(lua_State *L, int status, lua_KContext ctx)
{
    struct hky_asking *a = (struct hky_asking *)ctx;

    (void)status;
    a->is_true = lua_toboolean(L, -1);
    return 0;
}

static int when_body(lua_State *L)
{
    struct hky_asking *a = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, a->when_ref);
    hky_lua_push_r(L);
    lua_callk(L, 1, 1, (lua_KContext)a, when_end);
    return when_end(L, LUA_OK, (lua_KContext)a);
}

static bool when_result(struct hky_asking *a, const struct hky_route *r, enum hky_fn_result result, char *why, size_t n)
{
    switch (result) {
    case HKY_FN_OK:
        return a->is_true || no(why, n, "when gave false");
    case HKY_FN_WAITS:
        return no(why, n, "when waits for a look-up");
    case HKY_FN_FAILED:
        break;
    }
    a->failed = a->vm->error;
    a->failed_fn = r->when;
    return no(why, n, "when failed: %.120s", a->failed);
}

static bool is_when_met(struct hky_asking *a, const struct hky_route *r, char *why, size_t n)
{
    if (r->when == HKY_NO_FN)
        return true;
    a->is_at_mx = false;
    a->when_ref = a->vm->fns[r->when].ref;
    return when_result(a, r, hky_fn_run(a->vm, r->when, when_body, a, &a->call), why, n);
}

/* --- mx: a condition on the mail hosts of the recipient's domain --- */

static struct hky_str domain_of(const struct hky_asking *a)
{
    const struct hky_match_key *k = &a->vm->key;

    return hky_str_of(k->text + k->domain_at, (size_t)k->n - k->domain_at);
}

static int mx_end(lua_State *L, int status, lua_KContext ctx)
{
    (void)L, (void)status, (void)ctx;
    return 0;
}

static int mx_body(lua_State *L)
{
    struct hky_asking *a = lua_touserdata(L, 1);
    struct hky_ticket ticket = hky_vm_ticket(L);

    a->mail_hosts = hky_mailhosts_ask(a->vm->lookups, domain_of(a), ticket);
    return hky_vm_wait(L, 0, mx_end);
}

static bool is_any_in(const struct hky_mailhosts *m, const struct hky_match *match)
{
    struct hky_match_key k;
    char host[1 + 254] = "@";

    for (unsigned i = 0; i < m->n; i++) {
        snprintf(host + 1, sizeof host - 1, "%s", m->hosts[i]);
        hky_match_key_init(&k, hky_str_z(host));
        if (hky_match_has(match, &k))
            return true;
    }
    return false;
}

static bool mx_result(struct hky_asking *a, const struct hky_route *r, char *why, size_t n)
{
    const struct hky_mailhosts *m = a->mail_hosts;

    if (m == NULL || m->state == HKY_MAILHOSTS_FAILED || m->state == HKY_MAILHOSTS_ASKED) {
        a->is_unanswered = true;
        return no(why, n, "mx: %s",
                  m != NULL ? "the mail hosts could not be looked up" : "mail hosts are not looked up here");
    }
    if (m->state == HKY_MAILHOSTS_NONE)
        return no(why, n, "mx: the domain has no mail hosts");
    if (!is_any_in(m, &r->mx))
        return no(why, n, "mx does not name %.130s", m->text);
    return is_when_met(a, r, why, n);
}

/* The look-up of this condition is a call like those of functions, so it waits as they do. */
static bool mx_ask(struct hky_asking *a, const struct hky_route *r, char *why, size_t n)
{
    static const struct hky_budget budget = {100000, 5, HKY_CALL_OCTETS};

    a->is_at_mx = true;
    switch (hky_vm_call(a->vm, &budget, mx_body, a, &a->call)) {
    case HKY_VM_WAITS:
        return no(why, n, "mx waits for a look-up");
    case HKY_VM_OK:
        break;
    default: /* no memory for the call: the decision is repeated later */
        hky_mailhosts_unref(&a->mail_hosts);
        break;
    }
    return mx_result(a, r, why, n);
}

static bool is_mx_met(struct hky_asking *a, const struct hky_route *r, char *why, size_t n)
{
    if (a->mail_hosts == NULL && a->vm->lookups != NULL) {
        a->mail_hosts = hky_mailhosts_known(a->vm->lookups, domain_of(a));
        if (a->mail_hosts == NULL)
            return mx_ask(a, r, why, n);
    }
    return mx_result(a, r, why, n);
}

bool hky_asking_resume_match(struct hky_asking *a, const struct hky_route *r, char *why, size_t n)
{
    if (!a->is_at_mx)
        return when_result(a, r, hky_fn_resume(a->vm, r->when, &a->call), why, n);
    if (hky_vm_resume(a->vm, &a->call) == HKY_VM_WAITS)
        return no(why, n, "mx waits for a look-up");
    return mx_result(a, r, why, n);
}

bool hky_asking_matches(struct hky_asking *a, const struct hky_route *r, char *why, size_t n)
{
    if (r->scenarios != NULL && !is_scenario_met(a, r))
        return no(why, n, "is for scenario \"%s\"%s", r->scenarios[0], r->scenarios[1] != NULL ? " and others" : "");
    if (!hky_match_has(&r->to, &a->vm->key))
        return no(why, n, "to does not name %.60s", a->vm->key.text);
    if (r->except.is_stated && hky_match_has(&r->except, &a->vm->key))
        return no(why, n, "except has %.60s", a->vm->key.text);
    if (r->sender.is_stated && !is_sender_met(a, &r->sender))
        return no(why, n, "sender does not name %.60s", a->sender.is_null ? "<>" : a->sender.text);
    if (r->author.is_stated && !is_author_met(a, &r->author))
        return no(why, n, "author does not name %.60s",
                  a->author.is_null ? "this one: the message has none" : a->author.text);
    if (r->tags != NULL && !is_tag_met(a, r))
        return no(why, n, "needs the tag \"%.60s\"%s", r->tags[0], r->tags[1] != NULL ? " or others" : "");
    for (uint32_t i = 0; i < r->n_headers; i++)
        if (!is_header_met(a, &r->headers[i]))
            return no(why, n, "header %.40s is not \"%.60s\"", r->headers[i].name, r->headers[i].glob);
    return r->mx.is_stated ? is_mx_met(a, r, why, n) : is_when_met(a, r, why, n);
}
