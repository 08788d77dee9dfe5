/*
 * json -- writes one JSON value into a buffer: commas, quotes and escapes are its business, the caller names keys and
 * values. Bounds: HKY_JSON_DEPTH levels (asserted), the buffer's maximum (the buffer remembers that it is over).
 *
 *     struct hky_json j = hky_json_to(&buf);
 *     hky_json_begin_object(&j, NULL);
 *     hky_json_str(&j, "recipient", address);
 *     hky_json_begin_array(&j, "plan");
 *     hky_json_z(&j, NULL, "own");
 *     hky_json_end_array(&j);
 *     hky_json_end_object(&j);          {"recipient":"a@b.example","plan":["own"]}
 *
 * `key` is the member's name in an object, a word of the program that needs no escape; NULL in an array and for the
 * outermost value. For a name that comes from outside call hky_json_key first and give the value NULL as its key.
 */
#ifndef HKY_BASE_JSON_H
#define HKY_BASE_JSON_H

#include "base/buf.h"

#define HKY_JSON_DEPTH 16

struct hky_json {
    struct hky_buf *out;
    unsigned depth;
    uint32_t is_object; /* bit n: level n is an object, else an array */
    uint32_t has_item;  /* bit n: level n has one already, so that a comma comes first */
    bool has_key;       /* hky_json_key was called for the next value */
};

static inline struct hky_json hky_json_to(struct hky_buf *out)
{
    return (struct hky_json){.out = out};
}

/* Objects and arrays, up to HKY_JSON_DEPTH within each other. */
void hky_json_begin_object(struct hky_json *j, const char *key);
void hky_json_end_object(struct hky_json *j);
void hky_json_begin_array(struct hky_json *j, const char *key);
void hky_json_end_array(struct hky_json *j);

/* The name of the next member, when it comes from outside; it is escaped. */
void hky_json_key(struct hky_json *j, struct hky_str name);
void hky_json_str(struct hky_json *j, const char *key, struct hky_str value); /* escaped as hky_buf_add_json does */
void hky_json_z(struct hky_json *j, const char *key, const char *value);      /* NULL is written as null */
/* Numbers; a real one has `decimals` digits behind the point, and one that is not finite is written as null. */
void hky_json_int(struct hky_json *j, const char *key, int64_t value);
void hky_json_uint(struct hky_json *j, const char *key, uint64_t value);
void hky_json_real(struct hky_json *j, const char *key, double value, unsigned decimals);
void hky_json_bool(struct hky_json *j, const char *key, bool value);
void hky_json_null(struct hky_json *j, const char *key);
/* Hexadecimal with 16 digits, as a string: numbers of JSON lose what is above 2^53. */
void hky_json_hex(struct hky_json *j, const char *key, uint64_t value);
/* A value, or values with commas between them, that another writer made. Nothing is written when `json` is empty. */
void hky_json_made(struct hky_json *j, const char *key, struct hky_str json);

#endif
