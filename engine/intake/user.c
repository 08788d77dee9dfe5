/* What a login may use. Pure: the listener, explain and other ways in decide with the same code. */
#include "hikyaku/intake.h"

#include "mail/address.h"

#include <stdarg.h>
#include <stdio.h>

void hky_refusal_set(struct hky_refusal *r, int code, const char *enhanced, const char *fmt, ...)
{
    va_list ap;

    r->code = code;
    r->enhanced = enhanced;
    r->warning = NULL;
    va_start(ap, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, ap);
    va_end(ap);
}

void hky_refusal_set_storage(struct hky_refusal *r, enum hky_err err)
{
    if (err == HKY_OK)
        *r = (struct hky_refusal){0};
    else if (err == HKY_E_FULL)
        hky_refusal_set(r, 452, "4.3.1", "no space for mail at the moment; try again later");
    else if (err == HKY_E_LIMIT)
        hky_refusal_set(r, 552, "5.3.4", "too large for engine.bounds.segment with all its recipients; send to fewer");
    else
        hky_refusal_set(r, 451, "4.3.0", "mail cannot be stored at the moment; try again later");
}

const struct hky_user *hky_user_find(const struct hky_policy *policy, struct hky_str name)
{
    for (uint32_t i = 0; i < policy->engine.n_listen; i++) {
        const struct hky_listen *l = &policy->engine.listen[i];
        for (uint32_t k = 0; k < l->n_users; k++)
            if (hky_str_eq(hky_str_z(l->users[k].name), name))
                return &l->users[k];
    }
    return NULL;
}

bool hky_user_may_send_as(const struct hky_user *user, struct hky_str address)
{
    if (user == NULL || user->senders == NULL)
        return true;
    for (const char *const *z = user->senders; *z != NULL; z++)
        if (hky_address_fits(hky_str_z(*z), address))
            return true;
    return false;
}

bool hky_user_scenario(const struct hky_user *user, struct hky_str named, struct hky_str *out, struct hky_refusal *r)
{
    const char *const *may = user != NULL ? user->scenarios : NULL;

    *out = named;
    if (may == NULL)
        return true;
    if (named.n == 0) {
        if (may[0] != NULL && may[1] == NULL && strcmp(may[0], "*") != 0)
            *out = hky_str_z(may[0]);
        return true;
    }
    for (; *may != NULL; may++)
        if (hky_str_eq(hky_str_z(*may), named) || strcmp(*may, "*") == 0)
            return true;
    hky_refusal_set(r, 550, "5.7.1", "login %.30s may not use the scenario %.*s", user->name,
                    named.n < 50 ? (int)named.n : 50, named.p);
    r->warning = "scenario_not_allowed";
    return false;
}
