/* Patterns: the step budget holds, captures lie in the subject, and where both answer, stock Lua answers the same. */
#include "route/table/pattern.h"

#include "base/error.h"

#include <lua5.4/lauxlib.h>
#include <lua5.4/lualib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS_MAX   20000
#define SLACK       2000 /* one item's scan over the subject is charged at its end */
#define SUBJECT_MAX 512

static lua_State *stock(void)
{
    static lua_State *L; /* one for all inputs: nothing of it survives an answer */

    if (L == NULL) {
        L = luaL_newstate();
        luaL_requiref(L, "string", luaopen_string, 1);
        lua_settop(L, 0);
    }
    return L;
}

/* string.find(subject, "^" .. pattern): does it end where `end` says? */
static void compare(struct hky_str subject, struct hky_str pattern, const char *end)
{
    lua_State *L = stock();

    lua_getglobal(L, "string");
    lua_getfield(L, -1, "find");
    lua_pushlstring(L, subject.p, subject.n);
    lua_pushliteral(L, "^");
    lua_pushlstring(L, pattern.p, pattern.n);
    lua_concat(L, 2);
    if (lua_pcall(L, 2, LUA_MULTRET, 0) == LUA_OK) {
        HKY_ASSERT((end != NULL) == (lua_type(L, 2) == LUA_TNUMBER));
        if (end != NULL)
            HKY_ASSERT(lua_tointeger(L, 3) == end - subject.p);
    } else {
        HKY_ASSERT(end == NULL); /* it looks at captures at the end of a match only */
    }
    lua_settop(L, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_pattern m = {0};
    const char *text = size > 0 ? (const char *)data : "", *split = memchr(text, '\n', size), *end;

    m.pattern = hky_str_of(text, split != NULL ? (size_t)(split - text) : size);
    m.subject = split != NULL ? hky_str_of(split + 1, size - m.pattern.n - 1) : hky_str_of("", 0);
    if (m.subject.n > SUBJECT_MAX)
        m.subject.n = SUBJECT_MAX;
    m.steps_max = STEPS_MAX;
    end = hky_pattern_at(&m, m.subject.p, m.pattern.p);
    HKY_ASSERT(m.steps <= STEPS_MAX + SLACK);
    HKY_ASSERT(m.n <= HKY_PATTERN_CAPTURES);
    if (end == NULL) {
        if (m.fault == NULL)
            compare(m.subject, m.pattern, NULL);
        return 0;
    }
    HKY_ASSERT(m.fault == NULL);
    HKY_ASSERT(end >= m.subject.p && end <= m.subject.p + m.subject.n);
    bool is_whole = true;
    for (unsigned i = 0; i < m.n; i++) {
        const struct hky_capture *c = &m.capture[i];
        HKY_ASSERT(c->p >= m.subject.p && c->p <= m.subject.p + m.subject.n);
        if (c->n >= 0)
            HKY_ASSERT(c->n <= m.subject.p + m.subject.n - c->p);
        else if (c->n == HKY_CAPTURE_OPEN)
            is_whole = false; /* whoever reads the captures says so */
    }
    if (is_whole)
        compare(m.subject, m.pattern, end);
    return 0;
}
