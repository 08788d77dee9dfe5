/*
 * keys -- the tables of keys, one for each object of the policy language. Checks, messages and the manual are made from
 * them.
 */
#ifndef HKY_ROUTE_KEYS_H
#define HKY_ROUTE_KEYS_H

#include "hikyaku/policy.h"
#include "route/lua/texts.h"

#include <lua.h>

enum hky_key_type {
    HKY_KEY_STRING,
    HKY_KEY_BOOL,
    HKY_KEY_INT,      /* min..max */
    HKY_KEY_DURATION, /* seconds, min..max */
    HKY_KEY_OCTETS,   /* min..max */
    HKY_KEY_MATCH,    /* address, domain, .domain, set, list, or a table of these */
    HKY_KEY_FUNCTION, /* or the name of a matcher */
    HKY_KEY_VIA,
    HKY_KEY_SECRET,  /* secret "name" or a string */
    HKY_KEY_STRINGS, /* a string or a table of strings */
    HKY_KEY_TABLE,
    HKY_KEY_ANY,  /* checked where it is used */
    HKY_KEY_LATER /* a key of a later version: using it is an error that says so */
};

struct hky_key {
    const char *name;
    enum hky_key_type type;
    int64_t min, max;
    const char *doc;          /* a sentence or two for people */
    const char *lua;          /* its type, for editors */
    bool is_needed;           /* also for editors; whoever reads the object reports it when it is missing */
    enum hky_foreign_use use; /* what its strings may hold */
    bool has_own_keys;        /* tables in it have keys of their own, and are checked by them */
};

extern const struct hky_key hky_keys_engine[], hky_keys_bounds[], hky_keys_listen[], hky_keys_user[], hky_keys_relay[],
    hky_keys_oauth[], hky_keys_timeout[], hky_keys_route[], hky_keys_row[], hky_keys_step[], hky_keys_arm[],
    hky_keys_split[];

/* The key of that name in a table of keys, which ends with name NULL; NULL: there is none. */
const struct hky_key *hky_key_find(const struct hky_key *keys, struct hky_str name);

/* Check every key of the table at `index` (absolute) against `keys`; `array`: positive whole numbers are allowed too.
 * `what` names the table in messages: `relay "own"`. Problems are reported through hky_lua_problem. */
void hky_keys_check(lua_State *L, int index, const struct hky_key *const *keys, bool array, const char *what,
                    struct hky_place place);

/* Read values of a checked table: access is raw; the default is returned where the key is absent, false or wrong. */
const char *hky_key_get_string(lua_State *L, int index, const char *key, const char *otherwise); /* in Lua's memory */
bool hky_key_get_bool(lua_State *L, int index, const char *key, bool otherwise);
int64_t hky_key_get_int(lua_State *L, int index, const char *key, int64_t otherwise);
uint32_t hky_key_get_duration(lua_State *L, int index, const char *key, uint32_t otherwise);
uint64_t hky_key_get_octets(lua_State *L, int index, const char *key, uint64_t otherwise);
/* Push the raw value and return its type. */
int hky_key_get(lua_State *L, int index, const char *key);

#endif
