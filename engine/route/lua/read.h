/*
 * read -- reads values of the policy language from Lua: plans, parts of steps, mailboxes. Access is raw, and `index` is
 * absolute. Problems are reported through hky_lua_problem, while loading and while running.
 */
#ifndef HKY_ROUTE_READ_H
#define HKY_ROUTE_READ_H

#include "route/lua/keys.h"
#include "route/lua/vm.h"

/* Fill steps of `draft` from a plan value; false: it has nothing usable, which was reported. Strings are borrowed from
 * Lua. */
bool hky_lua_read_plan(lua_State *L, int index, const char *what, struct hky_place place, struct hky_plan *draft);
bool hky_lua_read_retry(lua_State *L, int index, struct hky_place place, struct hky_retry *out);
bool hky_lua_read_on(lua_State *L, int index, struct hky_place place, uint64_t *mask);
/* How the message "no class NAME" continues: with the class that was probably meant, the set of that name, or the list
 * of all classes. */
#define HKY_CLASS_HINT 480
const char *hky_lua_class_hint(struct hky_str name, bool may_be_set, char *out, size_t room);
/* Push the mailbox in canonical form as a string; false: the value is not a mailbox, which was reported. [-0, +1|0, m]
 */
bool hky_lua_push_mailbox(lua_State *L, int index, const char *key, const char *what, struct hky_place place);
/* Is the envelope sender an address, whatever {id} and {rcpt} in it become? False: it is not, which was reported. */
bool hky_lua_check_envelope(lua_State *L, const char *pattern, const char *what, struct hky_place place);
/* ', did you mean "own"?' for the name of a relay that is not in the policy, or "". [-0, +0, -] */
#define HKY_RELAY_HINT 160
const char *hky_lua_relay_hint(lua_State *L, const char *name, char out[HKY_RELAY_HINT]);
/* The key of a plan for interning: the draft's steps as octets. */
void hky_lua_plan_key(const struct hky_plan *draft, struct hky_buf *out);
struct hky_split *hky_lua_read_split(lua_State *L, struct hky_arena *arena, int index, const struct hky_plan *draft,
                                     struct hky_place place);

#endif
