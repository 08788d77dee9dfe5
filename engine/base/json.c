#include "base/json.h"

#include "base/error.h"

#include <inttypes.h>
#include <math.h>

/* What comes before a value: the comma, and in an object the name. */
static void begin_value(struct hky_json *j, const char *key)
{
    uint32_t level = 1u << j->depth;

    HKY_ASSERT(((j->is_object & level) != 0) == (key != NULL || j->has_key)); /* members have names, items have none */
    HKY_ASSERT(j->depth > 0 || (j->has_item & level) == 0);                   /* there is only one outermost value */
    if (j->has_key) {
        j->has_key = false;
        return;
    }
    if ((j->has_item & level) != 0)
        hky_buf_add_c(j->out, ',');
    j->has_item |= level;
    if (key != NULL) {
        hky_buf_add_c(j->out, '"');
        hky_buf_add_z(j->out, key);
        hky_buf_add(j->out, "\":", 2);
    }
}

static void begin_level(struct hky_json *j, const char *key, bool is_object)
{
    begin_value(j, key);
    HKY_ASSERT(j->depth + 1 < HKY_JSON_DEPTH);
    j->depth++;
    j->has_item &= ~(1u << j->depth);
    j->is_object = is_object ? j->is_object | 1u << j->depth : j->is_object & ~(1u << j->depth);
    hky_buf_add_c(j->out, is_object ? '{' : '[');
}

static void end_level(struct hky_json *j, bool is_object)
{
    HKY_ASSERT(j->depth > 0 && !j->has_key && ((j->is_object >> j->depth & 1) != 0) == is_object);
    j->depth--;
    hky_buf_add_c(j->out, is_object ? '}' : ']');
}

void hky_json_begin_object(struct hky_json *j, const char *key)
{
    begin_level(j, key, true);
}

void hky_json_end_object(struct hky_json *j)
{
    end_level(j, true);
}

void hky_json_begin_array(struct hky_json *j, const char *key)
{
    begin_level(j, key, false);
}

void hky_json_end_array(struct hky_json *j)
{
    end_level(j, false);
}

void hky_json_key(struct hky_json *j, struct hky_str name)
{
    uint32_t level = 1u << j->depth;

    HKY_ASSERT((j->is_object & level) != 0 && !j->has_key);
    if ((j->has_item & level) != 0)
        hky_buf_add_c(j->out, ',');
    j->has_item |= level;
    hky_buf_add_json(j->out, name);
    hky_buf_add_c(j->out, ':');
    j->has_key = true;
}

void hky_json_str(struct hky_json *j, const char *key, struct hky_str value)
{
    begin_value(j, key);
    hky_buf_add_json(j->out, value);
}

void hky_json_z(struct hky_json *j, const char *key, const char *value)
{
    if (value == NULL)
        hky_json_null(j, key);
    else
        hky_json_str(j, key, hky_str_z(value));
}

void hky_json_int(struct hky_json *j, const char *key, int64_t value)
{
    begin_value(j, key);
    hky_buf_add_decimal(j->out, value);
}

void hky_json_uint(struct hky_json *j, const char *key, uint64_t value)
{
    char digits[HKY_DECIMAL_MAX];

    begin_value(j, key);
    hky_buf_add(j->out, digits, (size_t)(hky_decimal(digits, value) - digits));
}

void hky_json_real(struct hky_json *j, const char *key, double value, unsigned decimals)
{
    begin_value(j, key);
    if (isfinite(value))
        hky_buf_printf(j->out, "%.*f", (int)decimals, value);
    else
        hky_buf_add_z(j->out, "null"); /* JSON cannot express it */
}

void hky_json_bool(struct hky_json *j, const char *key, bool value)
{
    begin_value(j, key);
    hky_buf_add_z(j->out, value ? "true" : "false");
}

void hky_json_null(struct hky_json *j, const char *key)
{
    begin_value(j, key);
    hky_buf_add_z(j->out, "null");
}

void hky_json_hex(struct hky_json *j, const char *key, uint64_t value)
{
    begin_value(j, key);
    hky_buf_printf(j->out, "\"%016" PRIx64 "\"", value);
}

void hky_json_made(struct hky_json *j, const char *key, struct hky_str json)
{
    if (json.n == 0)
        return;
    begin_value(j, key);
    hky_buf_add_str(j->out, json);
}
