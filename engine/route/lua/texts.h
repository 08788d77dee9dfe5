/*
 * texts -- what the strings of a policy may hold: no octets that would cut them or end a line, and no characters that
 * look like others.
 */
#ifndef HKY_ROUTE_TEXTS_H
#define HKY_ROUTE_TEXTS_H

#include "hikyaku/policy.h"
#include "route/table/foreign.h"

#include <lua.h>

struct hky_text_rule {
    enum hky_foreign_use use;
    bool may_have_lines;
    bool is_hidden;    /* a password: nothing of it is shown */
    bool is_login;     /* a name or password that a server compares */
    bool may_be_many;  /* a list of values could be there instead */
    bool has_own_keys; /* what tables with keys hold is checked by the tables of their keys */
};

struct hky_text_fault {
    bool is_warning;
    char text[HKY_FOREIGN_TEXT]; /* after "relay "x": user: " */
};

/* Can every string in the value at `index` (itself, or anywhere in a table) be used? False: `out` says for one string
 * why not; a string with an error comes before one with a warning. */
bool hky_texts_check(lua_State *L, int index, const struct hky_text_rule *rule, struct hky_text_fault *out);

/* The whole string at `index`; NULL when the value is not a string or cannot be used, which is reported as a problem of
 * `what`. */
const char *hky_lua_whole_string(lua_State *L, int index, const char *what, struct hky_place place);

#endif
