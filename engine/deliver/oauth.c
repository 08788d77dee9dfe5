#include "deliver/oauth.h"

#include "base/hash.h"
#include "base/json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_FOR_SEC 300
#define LONGEST_SEC     (24 * 3600)

void hky_oauth_token_fini(struct hky_oauth_token *t)
{
    hky_secret_unref(&t->access);
    hky_secret_unref(&t->refresh);
}

static void add_field(struct hky_buf *out, const char *name, struct hky_str value)
{
    static const char hex[] = "0123456789ABCDEF";
    if (value.n == 0)
        return;
    if (out->n > 0)
        hky_buf_add_c(out, '&');
    hky_buf_add_z(out, name);
    hky_buf_add_c(out, '=');
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                        c == '.' || c == '_' || c == '~';
        char escaped[3] = {'%', hex[c >> 4], hex[c & 15]};
        if (is_plain)
            hky_buf_add_c(out, (char)c);
        else
            hky_buf_add(out, escaped, 3);
    }
}

void hky_oauth_form(const struct hky_relay *r, struct hky_str refresh, struct hky_str client_secret,
                    struct hky_buf *out)
{
    add_field(out, "grant_type", HKY_STR("refresh_token"));
    add_field(out, "refresh_token", refresh);
    add_field(out, "client_id", hky_str_z(r->oauth.client));
    add_field(out, "client_secret", client_secret);
    add_field(out, "scope", hky_str_z(r->oauth.scope));
}

static struct hky_secret *secret_of(json_t *object, const char *name)
{
    json_t *v = json_object_get(object, name);
    if (!json_is_string(v) || json_string_length(v) == 0)
        return NULL;
    return hky_secret_new(hky_str_of(json_string_value(v), json_string_length(v)));
}

static int64_t lifetime_ms(json_t *object)
{
    json_t *v = json_object_get(object, "expires_in");
    json_int_t sec = DEFAULT_FOR_SEC;
    if (json_is_integer(v))
        sec = json_integer_value(v);
    else if (json_is_string(v)) /* some endpoints quote the number */
        sec = strtoll(json_string_value(v), NULL, 10);
    if (sec < 1)
        sec = DEFAULT_FOR_SEC;
    if (sec > LONGEST_SEC)
        sec = LONGEST_SEC;
    return (int64_t)sec * 1000;
}

/* RFC 6749 5.2 and 4.1.2.1, RFC 8628 3.5: words for trouble that passes. */
static bool is_for_the_moment(int status, const char *error)
{
    static const char *const words[] = {"temporarily_unavailable", "server_error", "slow_down"};
    bool is_moment = status >= 500 || status == 429 || status == 408;
    for (size_t i = 0; error != NULL && i < sizeof words / sizeof *words; i++)
        is_moment |= strcmp(error, words[i]) == 0;
    return is_moment;
}

/* The text is shown on terminals and written to logs. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = ' ';
}

static enum hky_err refused(int status, json_t *object, struct hky_error *e)
{
    const char *error = json_string_value(json_object_get(object, "error"));
    const char *text = json_string_value(json_object_get(object, "error_description"));
    enum hky_err code = is_for_the_moment(status, error) ? HKY_E_NET : HKY_E_DENIED;
    hky_error_set(e, code, "the token endpoint answered %d: %.60s%s%.120s", status,
                  error != NULL ? error : "no reason given", text != NULL ? " " : "", text != NULL ? text : "");
    make_printable(e->text);
    return code;
}

enum hky_err hky_oauth_parse(int status, struct hky_str body, struct hky_oauth_token *out, struct hky_error *e)
{
    *out = (struct hky_oauth_token){0};
    json_error_t problem;
    json_t *object = json_loadb(body.p, body.n, 0, &problem);
    enum hky_err err = HKY_OK;
    if (status < 200 || status > 299) {
        err = refused(status, object, e);
    } else if (!json_is_object(object)) {
        err = hky_error_set(e, HKY_E_SYNTAX, "the token endpoint's answer is not JSON");
    } else {
        out->access = secret_of(object, "access_token");
        out->refresh = secret_of(object, "refresh_token");
        out->for_ms = lifetime_ms(object);
        if (out->access == NULL) {
            hky_oauth_token_fini(out);
            err = hky_error_set(e, HKY_E_SYNTAX, "the token endpoint's answer has no access_token");
        }
    }
    json_decref(object);
    return err;
}

static void fingerprint(struct hky_str original, char out[17])
{
    snprintf(out, 17, "%016llx", (unsigned long long)hky_hash64(original.p, original.n, 0));
}

void hky_oauth_format_stored(const struct hky_oauth_token *t, struct hky_str original, struct hky_buf *out)
{
    char from[17];
    fingerprint(original, from);
    struct hky_str refresh = t->refresh != NULL ? hky_secret_value(t->refresh) : hky_str_of("", 0);
    struct hky_json j = hky_json_to(out);
    hky_json_begin_object(&j, NULL);
    hky_json_z(&j, "from", from);
    hky_json_str(&j, "refresh", refresh);
    hky_json_end_object(&j);
}

struct hky_secret *hky_oauth_stored_refresh(const char *stored, struct hky_str original)
{
    char from[17];
    fingerprint(original, from);
    json_error_t problem;
    json_t *object = stored != NULL ? json_loads(stored, 0, &problem) : NULL;
    const char *stored_from = json_string_value(json_object_get(object, "from"));
    struct hky_secret *s = NULL;
    if (stored_from != NULL && strcmp(stored_from, from) == 0)
        s = secret_of(object, "refresh");
    json_decref(object);
    return s != NULL ? s : hky_secret_new(original);
}
