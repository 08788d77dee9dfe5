#include "route/lua/texts.h"

#include "route/lua/collect.h"
#include "route/table/typed.h"

#include <stdio.h>

#define STRINGS_MAX 400000 /* more in one value is refused elsewhere */
#define DEPTH_MAX   8

struct walk {
    lua_State *L;
    const struct hky_text_rule *rule;
    struct hky_text_fault *fault;
    bool is_found;
    unsigned n;
};

/* True for a string that no rule concerns: most strings, and those of functions that give a plan for each recipient. */
static bool is_plain(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || (unsigned char)s.p[i] >= 0x7f)
            return false;
    return s.n == 0 || (s.p[0] != ' ' && s.p[s.n - 1] != ' ');
}

/* Octets that cut a string, or end a line, where it is used. */
static const char *octets_fault(struct hky_str s, bool may_have_lines)
{
    if (!may_have_lines)
        return hky_typed_fault(s);
    while (s.n > 0) {
        const char *end = s.p, *fault;
        while (end < s.p + s.n && *end != '\n' && *end != '\r' && *end != '\t')
            end++;
        if ((fault = hky_typed_fault(hky_str_of(s.p, (size_t)(end - s.p)))) != NULL)
            return fault;
        end += end < s.p + s.n;
        s = hky_str_of(end, (size_t)(s.p + s.n - end));
    }
    return NULL;
}

static void check_foreign(struct walk *w, struct hky_str s)
{
    struct hky_foreign f = hky_foreign_find(s, w->rule->use);
    struct hky_text_fault *out = w->fault;
    char text[HKY_FOREIGN_TEXT], hint[HKY_TYPED_HINT] = "";
    bool is_warning = f.is_warning_only || w->rule->is_hidden;

    if (f.kind == HKY_FOREIGN_NONE || (w->is_found && is_warning))
        return;
    w->is_found = true;
    out->is_warning = is_warning;
    if (w->rule->may_be_many && (f.kind == HKY_FOREIGN_BLANK || f.ascii == ','))
        hky_typed_hint(s, true, hint);
    if (strstr(hint, "several") != NULL)
        snprintf(out->text, sizeof out->text, "\"%.30s\"%s", s.p, hint);
    else
        snprintf(out->text, sizeof out->text, "there %s%s", hky_foreign_text(s, &f, !w->rule->is_hidden, text),
                 is_warning && !w->rule->is_hidden ? ", unless it is meant so" : "");
}

/* Names and passwords with a blank at an end, which never equal the same name typed without it elsewhere. Addresses and
 * words of the language with one are reported as errors by the code that reads them. */
static void check_ends(struct walk *w, struct hky_str s)
{
    struct hky_str trimmed = hky_str_trim(s);

    if (trimmed.n == s.n || w->is_found || !(w->rule->use == HKY_FOREIGN_NAME || w->rule->is_login))
        return;
    w->is_found = true;
    w->fault->is_warning = true;
    if (w->rule->is_hidden)
        snprintf(w->fault->text, sizeof w->fault->text, "there is a blank at one end of it, which is sent as it is");
    else
        snprintf(w->fault->text, sizeof w->fault->text,
                 "there is a blank at one end of it: write \"%.*s\", unless it is meant so",
                 trimmed.n < 80 ? (int)trimmed.n : 80, trimmed.p);
}

static void check_string(struct walk *w, int index)
{
    struct hky_str s;
    const char *fault;

    s.p = lua_tolstring(w->L, index, &s.n);
    if (is_plain(s))
        return;
    fault = octets_fault(s, w->rule->may_have_lines);
    if (fault != NULL) {
        w->is_found = true;
        w->fault->is_warning = false;
        snprintf(w->fault->text, sizeof w->fault->text, "there %s in it", fault);
    } else if (w->rule->use != HKY_FOREIGN_FREE) {
        check_foreign(w, s);
        check_ends(w, s);
    }
}

static bool is_over(const struct walk *w)
{
    return w->is_found && !w->fault->is_warning;
}

static bool has_names(lua_State *L, int index)
{
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            lua_pop(L, 1);
            return true;
        }
    }
    return false;
}

static void check_value(struct walk *w, int index, int depth)
{
    lua_State *L = w->L;
    const struct hky_text_rule *rule = w->rule, own = {.use = HKY_FOREIGN_FREE};
    bool has_own_keys;

    if (lua_type(L, index) == LUA_TSTRING)
        check_string(w, index);
    if (lua_type(L, index) != LUA_TTABLE || depth > DEPTH_MAX)
        return;
    luaL_checkstack(L, 8, NULL);
    has_own_keys = rule->has_own_keys && has_names(L, index);
    if (has_own_keys)
        w->rule = &own;
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        int key = lua_gettop(L) - 1;
        if (++w->n < STRINGS_MAX && lua_type(L, key) == LUA_TSTRING)
            check_string(w, key);
        if (!has_own_keys && !is_over(w) && w->n < STRINGS_MAX)
            check_value(w, key + 1, depth + 1);
        lua_pop(L, 1);
        if (is_over(w)) {
            lua_pop(L, 1);
            break;
        }
    }
    w->rule = rule;
}

bool hky_texts_check(lua_State *L, int index, const struct hky_text_rule *rule, struct hky_text_fault *out)
{
    struct walk w = {.L = L, .rule = rule, .fault = out};

    check_value(&w, index, 0);
    return !w.is_found;
}

const char *hky_lua_whole_string(lua_State *L, int index, const char *what, struct hky_place place)
{
    static const struct hky_text_rule rule = {.use = HKY_FOREIGN_NAME};
    struct hky_text_fault fault;
    struct hky_str s;

    if (lua_type(L, index) != LUA_TSTRING)
        return NULL;
    s.p = lua_tolstring(L, index, &s.n);
    if (is_plain(s))
        return s.p;
    if (hky_texts_check(L, index, &rule, &fault) || fault.is_warning)
        return s.p;
    hky_lua_problem(L, place, "%s: %s", what, fault.text);
    return NULL;
}
