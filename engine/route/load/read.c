/* Reads values that the policy keeps: sets, strings, secrets. Used only while loading; access is raw. */
#include "route/load/loader.h"
#include "route/table/typed.h"
#include "route/table/value.h"

#include "base/nearest.h"
#include "mail/address.h"

#include <stdio.h>
#include <stdlib.h>

/* --- sets --- */

#define MATCH_MAX 100000

struct match_read {
    struct hky_loader *l;
    const char *what;
    struct hky_place place;
    enum hky_match_of of;
    struct hky_match *out;
    size_t n; /* entries so far: a few tables that share others could stand for endlessly many */
};

static void match_set(struct match_read *m, const struct hky_set_ud *ud)
{
    struct hky_match *out = m->out;
    struct hky_list **lists;

    if (ud->list == NULL) {
        hky_set_add_all(out->set, ud->set);
        return;
    }
    lists = hky_arena_alloc(&m->l->table->arena, (out->n_lists + 1) * sizeof *lists);
    if (out->n_lists > 0)
        memcpy(lists, out->lists, out->n_lists * sizeof *lists);
    lists[out->n_lists++] = ud->list;
    out->lists = lists;
}

/* "@carriers.docomo", "@list/vip.txt" of rows. */
static void match_named(struct match_read *m, const char *name)
{
    struct hky_route_table *t = m->l->table;
    struct hky_set_ud ud = {0};
    const char *names[64], *near;
    size_t n = 0;

    if (strncmp(name, "@list/", 6) == 0) {
        struct hky_error e = {0};
        ud.list = hky_loader_list(m->l, name + 6, &e);
        if (ud.list != NULL)
            match_set(m, &ud);
        else
            hky_loader_complain(m->l, m->place, false, "%s: \"%s\": %s", m->what, name, e.text);
        return;
    }
    for (uint32_t i = 0; i < t->n_sets; i++) {
        if (strcmp(t->sets[i].name, name + 1) == 0) {
            ud.set = t->sets[i].set;
            match_set(m, &ud);
            return;
        }
        if (n < sizeof names / sizeof names[0])
            names[n++] = t->sets[i].name;
    }
    near = hky_nearest_in(hky_str_z(name + 1), names, n);
    hky_loader_complain(m->l, m->place, false, "%s: no set \"%.60s\"%s%s%s", m->what, name,
                        near ? ", did you mean \"@" : "", near ? near : "", near ? "\"?" : "");
}

/* Report a name without a dot, such as "softbank", which no public address ends with. Either the set of that name was
 * meant, or it is a name inside some network. */
static void check_label(struct match_read *m, const struct hky_set_entry *entry)
{
    const struct hky_route_table *t = m->l->table;

    if (strchr(entry->text, '.') != NULL || entry->text[0] == '[')
        return;
    for (uint32_t i = 0; i < t->n_sets && m->of != HKY_MATCH_OF_HOST; i++) {
        const char *dot = strchr(t->sets[i].name, '.');
        if (dot != NULL && strcmp(dot + 1, entry->text) == 0) {
            hky_loader_complain(
                m->l, m->place, false,
                "%s: \"%s\" has no dot, so no address ends with it: write %s without quotes, or \"@%s\" "
                "in rows",
                m->what, entry->text, t->sets[i].name, t->sets[i].name);
            return;
        }
    }
    if (m->of == HKY_MATCH_OF_HOST)
        hky_loader_complain(m->l, m->place, true,
                            "%s: \"%s\" has no dot, and mail hosts of other domains have one: write the whole name, or "
                            "\".%s.com\" for all hosts of a domain",
                            m->what, entry->text, entry->text);
    else if (entry->kind == HKY_SET_ENTRY_DOMAIN)
        hky_loader_complain(m->l, m->place, true,
                            "%s: \"%s\" has no dot: only addresses such as user@%s match it; write the whole domain",
                            m->what, entry->text, entry->text);
}

#define A_HOST "the name of the host, such as \"mx.example.com\", or \".example.com\" for all hosts of a domain"

/* "*.outlook.com" as a mail host. */
static bool is_pattern_of_host(struct match_read *m, struct hky_str s)
{
    if (s.n < 2 || memchr(s.p, '*', s.n) == NULL)
        return false;
    if (s.p[0] == '*' && s.p[1] == '.' && s.n > 2 && memchr(s.p + 1, '*', s.n - 1) == NULL)
        hky_loader_complain(m->l, m->place, false, "%s: \"%.80s\": all mail hosts of a domain are written \"%.80s\"",
                            m->what, s.p, s.p + 1);
    else
        hky_loader_complain(m->l, m->place, false, "%s: \"%.80s\": a mail host is no pattern: write %s", m->what, s.p,
                            A_HOST);
    return true;
}

static void match_string(struct match_read *m, struct hky_str s)
{
    struct hky_set_entry entry;
    struct hky_error e = {0};
    char hint[HKY_TYPED_HINT];
    const char *fault = hky_typed_fault(s);

    if (fault != NULL) {
        hky_loader_complain(m->l, m->place, false, "%s: there %s in \"%.80s\"", m->what, fault, s.p);
        return;
    }
    if (s.n > 1 && s.p[0] == '@') {
        match_named(m, s.p);
        return;
    }
    if (m->of == HKY_MATCH_OF_HOST && is_pattern_of_host(m, s))
        return;
    if (hky_set_entry_parse(s, &entry, &e) != HKY_OK) {
        hky_typed_hint(s, true, hint);
        hky_loader_complain(m->l, m->place, false, "%s: \"%.*s\"%s%s", m->what, (int)(s.n < 80 ? s.n : 80), s.p,
                            hint[0] != 0 ? "" : ": ", hint[0] != 0 ? hint : e.text);
        return;
    }
    if (m->of == HKY_MATCH_OF_HOST && entry.kind == HKY_SET_ENTRY_ADDRESS) {
        hky_loader_complain(m->l, m->place, false, "%s: \"%.80s\" is an address and no mail host: write %s", m->what,
                            s.p, A_HOST);
        return;
    }
    if (entry.kind == HKY_SET_ENTRY_NULL && m->of != HKY_MATCH_OF_SENDER) {
        hky_loader_complain(m->l, m->place, false, "%s: \"<>\" is for sender only", m->what);
        return;
    }
    if (entry.kind == HKY_SET_ENTRY_DOMAIN || entry.kind == HKY_SET_ENTRY_PARENT)
        check_label(m, &entry);
    hky_set_add(m->out->set, &entry);
}

static void match_value(struct match_read *m, int index, int depth)
{
    lua_State *L = m->l->vm->L;
    struct hky_str s;

    if (m->n++ >= MATCH_MAX) {
        if (m->n == MATCH_MAX + 1)
            hky_loader_complain(m->l, m->place, false,
                                "%s: more than %d entries: write them into a file and list \"file\"", m->what,
                                MATCH_MAX);
        return;
    }
    if (lua_type(L, index) == LUA_TSTRING) {
        s.p = lua_tolstring(L, index, &s.n);
        match_string(m, s);
    } else if (hky_lua_is_kind(L, index, HKY_UD_SET)) {
        match_set(m, lua_touserdata(L, index));
    } else if (lua_type(L, index) == LUA_TTABLE && depth < 8) {
        luaL_checkstack(L, 8, NULL);
        lua_pushnil(L);
        while (lua_next(L, index) != 0) {
            if (lua_type(L, -2) != LUA_TNUMBER)
                hky_loader_complain(m->l, m->place, false, "%s: a list of addresses and domains has no keys", m->what);
            match_value(m, lua_gettop(L), depth + 1);
            lua_pop(L, 1);
            if (m->n > MATCH_MAX) {
                lua_pop(L, 1);
                return;
            }
        }
    } else if (!hky_lua_is_reported(L, index)) {
        hky_loader_complain(m->l, m->place, false, "%s: %s is no %s", m->what, hky_lua_kind_name(L, index),
                            m->of == HKY_MATCH_OF_HOST ? "mail host, .domain or set" : "address, domain or set");
    }
}

void hky_loader_read_match(struct hky_loader *l, int index, const char *what, struct hky_place place,
                           enum hky_match_of of, struct hky_match *out)
{
    struct match_read m = {l, what, place, of, out, 0};

    out->is_stated = true;
    out->set = hky_set_new();
    match_value(&m, index, 0);
    out->is_empty = (m.n == 1 && lua_type(l->vm->L, index) == LUA_TTABLE) ||
                    (l->problems->n_errors == 0 && out->n_lists == 0 && !out->set->is_everyone && !out->set->has_null &&
                     hky_set_n(out->set) == 0);
}

/* --- strings and secrets, kept by the policy --- */

const char *const *hky_loader_read_strings(struct hky_loader *l, int index)
{
    lua_State *L = l->vm->L;
    lua_Unsigned n = lua_type(L, index) == LUA_TTABLE ? lua_rawlen(L, index) : 1;
    const char **all;
    size_t k = 0;

    if (lua_type(L, index) != LUA_TTABLE && lua_type(L, index) != LUA_TSTRING)
        return NULL;
    all = hky_arena_alloc(&l->table->arena, (n + 1) * sizeof *all);
    if (lua_type(L, index) == LUA_TSTRING) {
        all[0] = hky_arena_z(&l->table->arena, lua_tostring(L, index));
        return all;
    }
    for (lua_Unsigned i = 1; i <= n; i++) {
        if (lua_rawgeti(L, index, (lua_Integer)i) == LUA_TSTRING)
            all[k++] = hky_arena_z(&l->table->arena, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    return all;
}

struct hky_secret_ref hky_loader_read_secret(struct hky_loader *l, int index, const char *key, const char *what,
                                             struct hky_place place)
{
    lua_State *L = l->vm->L;
    struct hky_secret_ref ref = {0};
    const struct hky_secret_ud *s;

    if (lua_type(L, index) == LUA_TSTRING) {
        hky_loader_complain(l, place, true,
                            "%s: a password in the policy can be read by whoever reads the file; write secret "
                            "\"name\"",
                            what);
        ref.literal = hky_arena_z(&l->table->arena, lua_tostring(L, index));
        return ref;
    }
    if (!hky_lua_is_kind(L, index, HKY_UD_SECRET)) {
        if (!hky_lua_is_reported(L, index) && lua_type(L, index) != LUA_TNIL && lua_type(L, index) != LUA_TBOOLEAN)
            hky_loader_complain(l, hky_loader_place_of(l, place, key, true), false,
                                "%s: %s must be secret \"name\", not %s: write secret \"name\"", what, key,
                                hky_lua_kind_name(L, index));
        return ref;
    }
    s = lua_touserdata(L, index);
    if (s->is_from_rows && (strncmp(s->name, "row-", 4) != 0 || !hky_secret_name_is_valid(s->name)))
        hky_loader_complain(l, place, false, "%s: a row reaches secrets named row-... only, not \"%s\"", what, s->name);
    ref.name = hky_arena_z(&l->table->arena, s->name);
    if (s->n_command > 0) {
        lua_getiuservalue(L, index, 1);
        ref.command = hky_loader_read_strings(l, lua_gettop(L));
        lua_pop(L, 1);
    }
    return ref;
}
