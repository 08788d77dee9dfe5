/* Reads plans and their parts, while loading and from functions' answers. Access is raw. */
#include "route/lua/collect.h"
#include "route/lua/read.h"
#include "route/table/typed.h"
#include "route/table/value.h"

#include "base/nearest.h"
#include "mail/address.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* --- small values --- */

bool hky_lua_push_mailbox(lua_State *L, int index, const char *key, const char *what, struct hky_place place)
{
    struct hky_address a;
    struct hky_error e = {0};
    struct hky_str s;

    s.p = lua_tolstring(L, index, &s.n);
    if (s.p == NULL || hky_typed_fault(s) != NULL || hky_mailbox_parse(s, &a, &e) != HKY_OK ||
        hky_address_domain(&a).n == 0) {
        char hint[HKY_TYPED_HINT] = "";
        if (s.p != NULL)
            hky_typed_hint(s, false, hint);
        hky_lua_problem(L, place, "%s: %s: \"%.80s\" is no address%s%s", what, key, s.p != NULL ? s.p : "",
                        hint[0] == 0 && e.text[0] != 0 ? ": " : "", hint[0] != 0 ? hint : e.text);
        return false;
    }
    lua_pushlstring(L, a.text, a.n);
    return true;
}

/* "{ID}" and "{recipient}" go out as they are written. A function may have made them, so this warns at load only. */
static void check_placeholders(lua_State *L, const char *pattern, const char *what, struct hky_place place)
{
    struct hky_loader *l = hky_vm_of(L)->loader;

    for (const char *p = pattern; l != NULL && (p = strchr(p, '{')) != NULL; p++) {
        size_t n = strcspn(p, "}");
        if (p[n] == '}' && n < 40 && strncmp(p, "{id}", 4) != 0 && strncmp(p, "{rcpt}", 6) != 0)
            hky_loader_complain(l, place, true,
                                "%s: envelope: \"%.*s\" stays as it is: only {id} and {rcpt} are replaced", what,
                                (int)n + 1, p);
    }
}

bool hky_lua_check_envelope(lua_State *L, const char *pattern, const char *what, struct hky_place place)
{
    struct hky_address a;
    struct hky_error e = {0};
    struct hky_buf b;
    bool ok;

    hky_buf_init(&b, 400);
    for (const char *p = pattern; *p != 0;) {
        bool is_id = strncmp(p, "{id}", 4) == 0, is_rcpt = strncmp(p, "{rcpt}", 6) == 0;
        if (is_id || is_rcpt) {
            hky_buf_add_z(&b, "x");
            p += is_id ? 4 : 6;
        } else {
            hky_buf_add_c(&b, *p++);
        }
    }
    ok = !b.is_over && hky_mailbox_parse(hky_buf_str(&b), &a, &e) == HKY_OK && hky_address_domain(&a).n > 0;
    if (!ok)
        hky_lua_problem(L, place,
                        "%s: envelope must be an address, in which {id} and {rcpt} are replaced: \"%.80s\" is none%s%s",
                        what, pattern, e.text[0] != 0 ? ": " : "", e.text);
    else
        check_placeholders(L, pattern, what, place);
    hky_buf_fini(&b);
    return ok;
}

bool hky_lua_read_retry(lua_State *L, int index, struct hky_place place, struct hky_retry *out)
{
    lua_Unsigned n = lua_type(L, index) == LUA_TTABLE ? lua_rawlen(L, index) : 0;
    bool ok = n >= 1 && n <= HKY_RETRY_MAX;

    *out = (struct hky_retry){0};
    if (hky_lua_is_reported(L, index) || (lua_type(L, index) == LUA_TBOOLEAN && !lua_toboolean(L, index)))
        return false;
    for (lua_Unsigned i = 1; ok && i <= n; i++) {
        uint32_t sec = 0;
        int type = lua_rawgeti(L, index, (lua_Integer)i);
        if (type == LUA_TSTRING) {
            struct hky_str s;
            s.p = lua_tolstring(L, -1, &s.n);
            ok = hky_duration_parse(s, &sec);
        } else {
            int is_int;
            lua_Integer v = lua_tointegerx(L, -1, &is_int);
            ok = type == LUA_TNUMBER && is_int && v > 0 && v < UINT32_MAX;
            sec = ok ? (uint32_t)v : 0;
        }
        ok = ok && sec >= 1 && sec <= 30 * 86400;
        out->after_sec[out->n++] = sec;
        lua_pop(L, 1);
    }
    if (ok)
        return true;
    *out = (struct hky_retry){0};
    hky_lua_problem(L, place, "retry: write 1 to %d durations, { \"5m\", \"15m\", \"1h\" }", HKY_RETRY_MAX);
    return false;
}

const char *hky_lua_class_hint(struct hky_str name, bool may_be_set, char *out, size_t room)
{
    const char *names[HKY_CLASS_N], *near;
    uint64_t mask;
    size_t n;

    for (int i = 0; i < HKY_CLASS_N; i++)
        names[i] = hky_class_name(i);
    near = hky_nearest_in(name, names, HKY_CLASS_N);
    if (may_be_set && hky_class_set_mask(name, &mask)) {
        snprintf(out, room, "; the set of that name is classes.%.*s", (int)name.n, name.p);
    } else if (near != NULL) {
        snprintf(out, room, ", did you mean \"%s\"?", near);
    } else {
        n = (size_t)snprintf(out, room, "; there are");
        for (int i = 0; i < HKY_CLASS_N && n < room; i++)
            n += (size_t)snprintf(out + n, room - n, " %s", names[i]);
    }
    return out;
}

/* False: the value is not a class, which was reported. */
static bool on_one(lua_State *L, int index, struct hky_place place, uint64_t *mask)
{
    enum hky_class c;
    struct hky_str name;
    char hint[HKY_CLASS_HINT];

    if (hky_lua_is_reported(L, index))
        return false;
    if (lua_type(L, index) != LUA_TSTRING) {
        hky_lua_problem(L, place, "on: %s is no class", hky_lua_kind_name(L, index));
        return false;
    }
    name.p = lua_tolstring(L, index, &name.n);
    if (hky_class_parse(name, &c)) {
        *mask |= HKY_CLASS_BIT(c);
        return true;
    }
    hky_lua_problem(L, place, "on: no class \"%.60s\"%s", name.p, hky_lua_class_hint(name, true, hint, sizeof hint));
    return false;
}

bool hky_lua_read_on(lua_State *L, int index, struct hky_place place, uint64_t *mask)
{
    bool is_good = true;

    *mask = 0;
    if (lua_type(L, index) == LUA_TTABLE) {
        luaL_checkstack(L, 8, NULL);
        lua_pushnil(L);
        while (lua_next(L, index) != 0) {
            int item = lua_gettop(L);
            if (lua_type(L, item) == LUA_TTABLE) { /* { classes.ours, "mailbox_full" } */
                for (lua_Integer i = 1; lua_rawgeti(L, item, i) != LUA_TNIL; i++) {
                    is_good = on_one(L, lua_gettop(L), place, mask) && is_good;
                    lua_pop(L, 1);
                }
                lua_pop(L, 1);
            } else {
                is_good = on_one(L, item, place, mask) && is_good;
            }
            lua_settop(L, item - 1);
        }
        if (*mask == 0 && is_good)
            hky_lua_problem(L, place, "on: there is no class in the list, so that the step would never be entered");
    } else {
        on_one(L, index, place, mask);
    }
    return *mask != 0;
}

#define RELAYS_COMPARED 500 /* a function that fails is called for every recipient */

const char *hky_lua_relay_hint(lua_State *L, const char *name, char out[HKY_RELAY_HINT])
{
    const struct hky_policy *p = hky_vm_of(L)->policy;
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(name));

    out[0] = 0;
    for (uint32_t i = 0; p != NULL && i < p->n_relays && i < RELAYS_COMPARED; i++)
        hky_nearest_consider(&near, p->relays[i].name);
    if (near.name != NULL)
        snprintf(out, HKY_RELAY_HINT, ", did you mean \"%s\"?", near.name);
    return out;
}

/* --- plans --- */

static bool plan_step(lua_State *L, int index, const char *what, struct hky_place place, struct hky_plan *draft)
{
    struct hky_vm *vm = hky_vm_of(L);
    struct hky_step *s;
    char hint[HKY_RELAY_HINT];

    if (hky_lua_is_kind(L, index, HKY_UD_UNDEFINED))
        return false;
    if (hky_lua_is_kind(L, index, HKY_UD_INCOMPLETE)) {
        if (vm->loader == NULL)
            luaL_error(L, "%s: a step has no braces: write step \"name\" { ... }", what);
        return false;
    }
    if (draft->n_steps >= HKY_PLAN_STEPS_MAX) {
        hky_lua_problem(L, place, "%s: a plan has at most %d steps", what, HKY_PLAN_STEPS_MAX);
        return false;
    }
    s = &draft->steps[draft->n_steps];
    if (hky_lua_is_kind(L, index, HKY_UD_STEP)) {
        *s = ((struct hky_step_ud *)lua_touserdata(L, index))->step;
        draft->n_steps++;
        return true;
    }
    *s = (struct hky_step){.account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC};
    if (lua_type(L, index) == LUA_TSTRING) {
        s->relay = hky_lua_whole_string(L, index, what, place);
        if (s->relay == NULL)
            return false;
    } else if (hky_lua_is_kind(L, index, HKY_UD_RELAY)) {
        s->relay = ((struct hky_relay_ud *)lua_touserdata(L, index))->name;
    } else {
        hky_lua_problem(L, place, "%s: via: %s is no relay and no step", what, hky_lua_kind_name(L, index));
        return false;
    }
    if (vm->loader != NULL)
        hky_loader_mention(vm->loader, false, s->relay, place);
    else if (hky_policy_relay(vm->policy, hky_str_z(s->relay)) == NULL)
        luaL_error(L, "%s: via: no relay \"%s\"%s", what, s->relay, hky_lua_relay_hint(L, s->relay, hint));
    draft->n_steps++;
    return true;
}

bool hky_lua_read_plan(lua_State *L, int index, const char *what, struct hky_place place, struct hky_plan *draft)
{
    lua_Unsigned n;
    bool ok = true;

    draft->n_steps = 0;
    if (lua_type(L, index) != LUA_TTABLE)
        return plan_step(L, index, what, place, draft);
    luaL_checkstack(L, 6, NULL);
    n = lua_rawlen(L, index);
    if (n == 0) {
        hky_lua_problem(L, place, "%s: via: a plan needs at least one step", what);
        return false;
    }
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        ok = plan_step(L, lua_gettop(L), what, place, draft) && ok;
        lua_pop(L, 1); /* held by the table */
        if (draft->n_steps >= HKY_PLAN_STEPS_MAX && i < n) {
            hky_lua_problem(L, place, "%s: a plan has at most %d steps", what, HKY_PLAN_STEPS_MAX);
            return false;
        }
    }
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            hky_lua_problem(L, place, "%s: via: a plan is a list of steps, \"%.60s\" has no place in it", what,
                            lua_tostring(L, -2));
            ok = false;
        } else if (lua_type(L, -2) == LUA_TNUMBER && (lua_Unsigned)lua_tointeger(L, -2) - 1 >= n) {
            hky_lua_problem(L, place, "%s: via: the list of steps has a hole: there is nil in it", what);
            ok = false;
        }
        lua_pop(L, 1);
    }
    return ok && draft->n_steps > 0;
}

void hky_lua_plan_key(const struct hky_plan *draft, struct hky_buf *out)
{
    for (unsigned i = 0; i < draft->n_steps; i++) {
        const struct hky_step *s = &draft->steps[i];
        const char *texts[] = {s->from, s->envelope, s->reply_to};
        hky_buf_add(out, s->relay, strlen(s->relay) + 1);
        hky_buf_add_u64(out, s->on);
        hky_buf_add_u16(out, s->tries);
        hky_buf_add_u32(out, s->within_sec);
        hky_buf_add_u32(out, s->wait_sec);
        for (unsigned k = 0; k < 3; k++) {
            hky_buf_add_u8(out, texts[k] != NULL);
            if (texts[k] != NULL)
                hky_buf_add(out, texts[k], strlen(texts[k]) + 1);
        }
        hky_buf_add_u8(out, s->retry.n);
        for (unsigned k = 0; k < s->retry.n; k++)
            hky_buf_add_u32(out, s->retry.after_sec[k]);
    }
}

/* --- split --- */

static bool arm_share(lua_State *L, struct hky_arena *arena, int body, struct hky_arm *arm, const char *what,
                      struct hky_place place)
{
    int type = hky_key_get(L, body, "share");
    bool ok = true;

    if (type == LUA_TNUMBER && lua_tonumber(L, -1) >= 0 && lua_tonumber(L, -1) <= 100) {
        arm->share = lua_tonumber(L, -1);
    } else if (type == LUA_TSTRING && strcmp(lua_tostring(L, -1), "rest") == 0) {
        arm->is_rest = true;
    } else if (hky_lua_is_kind(L, lua_gettop(L), HKY_UD_RAMP)) {
        const struct hky_ramp_ud *r = lua_touserdata(L, -1);
        float *share = hky_arena_alloc(arena, r->n * sizeof *share);
        memcpy(share, r->share, r->n * sizeof *share);
        arm->is_ramp = true;
        arm->ramp_start = r->start;
        arm->n_ramp = r->n;
        arm->ramp = share;
    } else {
        ok = false;
        if (!hky_lua_is_reported(L, lua_gettop(L)))
            hky_lua_problem(L, place, "%s: share of arm \"%s\" must be per cent, \"rest\" or ramp { ... }", what,
                            arm->name);
    }
    lua_pop(L, 1);
    return ok;
}

static bool arm_read(lua_State *L, struct hky_arena *arena, int index, const struct hky_plan *draft, const char *what,
                     struct hky_place place, struct hky_arm *arm)
{
    static const struct hky_key *const keys[] = {hky_keys_arm, NULL};
    struct hky_plan plan = *draft;
    struct hky_error e;
    const char *name;
    bool ok;

    if (lua_type(L, index) != LUA_TTABLE) {
        if (!hky_lua_is_reported(L, index))
            hky_lua_problem(L, place, "%s: an arm is { arm = \"name\", share = 50, via = plan }", what);
        return false;
    }
    hky_keys_check(L, index, keys, false, what, place);
    name = hky_key_get_string(L, index, "arm", NULL);
    if (name == NULL || name[0] == 0 || strlen(name) > 60) {
        hky_key_get(L, index, "arm");
        if (!hky_lua_is_reported(L, lua_gettop(L)))
            hky_lua_problem(L, place, "%s: an arm needs a name of at most 60 octets: write arm = \"name\"", what);
        lua_pop(L, 1);
        return false;
    }
    arm->name = hky_arena_z(arena, name);
    ok = arm_share(L, arena, index, arm, what, place);
    if (hky_key_get(L, index, "via") == LUA_TNIL) {
        hky_lua_problem(L, place, "%s: arm \"%s\" has no via: write via = plan", what, name);
        ok = false;
    } else if (!hky_lua_read_plan(L, lua_gettop(L), what, place, &plan)) {
        ok = false;
    } else if (hky_vm_of(L)->loader != NULL && hky_plan_new(&plan, &arm->plan, &e) != HKY_OK) {
        hky_lua_problem(L, place, "%s: arm \"%s\": %s", what, name, e.text);
        ok = false;
    }
    lua_pop(L, 1);
    return ok;
}

/* The largest sum of the shares on any day. Shares change only on the days of the ramps, so only these are tried. */
static double most_of_a_day(const struct hky_split *s)
{
    double most = 0;

    for (uint32_t i = 0; i < s->n_arms; i++)
        for (int32_t k = 0; s->arms[i].is_ramp && k < s->arms[i].n_ramp; k++) {
            double sum = 0;
            for (uint32_t o = 0; o < s->n_arms; o++)
                sum += hky_arm_share_on(&s->arms[o], s->arms[i].ramp_start + k);
            most = fmax(most, sum);
        }
    return most;
}

static void split_check(lua_State *L, const struct hky_split *s, const char *what, struct hky_place place)
{
    double sum = 0;
    unsigned rest = 0, ramps = 0;

    for (uint32_t i = 0; i < s->n_arms; i++) {
        rest += s->arms[i].is_rest;
        ramps += s->arms[i].is_ramp;
        sum += s->arms[i].share;
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(s->arms[i].name, s->arms[k].name) == 0)
                hky_lua_problem(L, place, "%s: there are two arms \"%s\"", what, s->arms[i].name);
    }
    if (rest > 1)
        hky_lua_problem(L, place, "%s: only one arm can have \"rest\"", what);
    if (rest == 0 && ramps > 0)
        hky_lua_problem(L, place, "%s: with a ramp another arm needs share = \"rest\"", what);
    if (rest == 0 && ramps == 0 && fabs(sum - 100) > 1e-6)
        hky_lua_problem(L, place, "%s: shares add up to %g, not 100", what, sum);
    if (sum > 100 + 1e-6)
        hky_lua_problem(L, place, "%s: shares add up to more than 100", what);
    else if (most_of_a_day(s) > 100 + 1e-4)
        hky_lua_problem(L, place, "%s: on some day of the ramps the shares add up to %g, more than 100", what,
                        most_of_a_day(s));
}

struct hky_split *hky_lua_read_split(lua_State *L, struct hky_arena *arena, int index, const struct hky_plan *draft,
                                     struct hky_place place)
{
    static const struct hky_key *const keys[] = {hky_keys_split, NULL};
    struct hky_split_ud *ud = lua_touserdata(L, index);
    struct hky_split *s = hky_arena_alloc(arena, sizeof *s);
    const char *by;
    char what[160];
    lua_Unsigned n;
    int body;

    luaL_checkstack(L, 12, NULL);
    if (ud->place.line > 0)
        place = ud->place;
    snprintf(what, sizeof what, "split \"%s\"", ud->name);
    lua_getiuservalue(L, index, 1);
    body = lua_gettop(L);
    s->name = hky_arena_z(arena, ud->name);
    hky_keys_check(L, body, keys, true, what, place);
    by = hky_key_get_string(L, body, "by", "recipient");
    s->is_by_message = strcmp(by, "message") == 0;
    if (!s->is_by_message && strcmp(by, "recipient") != 0)
        hky_lua_problem(L, place, "%s: by must be \"recipient\" or \"message\"", what);
    n = lua_rawlen(L, body);
    if (n < 1 || n > HKY_ARMS_MAX) {
        hky_lua_problem(L, place, "%s: a split has 1 to %d arms", what, HKY_ARMS_MAX);
        lua_pop(L, 1);
        return NULL;
    }
    s->arms = hky_arena_alloc(arena, n * sizeof *s->arms);
    for (lua_Unsigned i = 1; i <= n; i++) {
        struct hky_arm *arm = &s->arms[s->n_arms];
        lua_rawgeti(L, body, (lua_Integer)i);
        if (arm_read(L, arena, lua_gettop(L), draft, what, place, arm)) {
            s->n_arms++;
        } else {
            hky_plan_unref(&arm->plan);
            *arm = (struct hky_arm){0};
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    if (s->n_arms == n)
        split_check(L, s, what, place);
    return s;
}
