/* Decisions by the policy itself. They have a file of their own, so that a program with another `decide` does not link
 * Lua. */
#include "rehearse/internal.h"

static bool header_read(void *ctx, struct hky_str *out)
{
    const struct hky_message *m = ctx;
    const struct hky_body *b = m->body;

    *out = hky_str_of(b != NULL ? b->p : "", b == NULL ? 0 : m->header_octets < b->n ? m->header_octets : b->n);
    return true;
}

void hky_rehearsal_decide_by_vm(void *vm, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out)
{
    struct hky_route_query q = {
        .message = r->message, .recipient = r, .now_ms = now_ms, .header_read = header_read, .header_ctx = r->message};

    hky_route_decide(vm, &q, out);
}
