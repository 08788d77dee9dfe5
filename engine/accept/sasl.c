/* What a login dialogue keeps: its buffers and, for SCRAM, the session of GNU SASL. */
#include "accept/sasl.h"

#include "base/secret.h"

#include <stdlib.h>

struct accept_sasl *accept_sasl_new(void)
{
    struct accept_sasl *sasl = hky_calloc(1, sizeof *sasl);

    if (gsasl_init(&sasl->gsasl) != GSASL_OK) {
        free(sasl);
        return NULL;
    }
    return sasl;
}

void accept_sasl_free(struct accept_sasl **sasl)
{
    if (*sasl == NULL)
        return;
    gsasl_done((*sasl)->gsasl);
    free(*sasl);
    *sasl = NULL;
}

void accept_auth_wipe(struct hky_buf *b)
{
    if (b->p != NULL)
        hky_secret_wipe(b->p, b->cap);
    hky_buf_fini(b);
}

void accept_auth_free(struct accept_auth_dialogue **pa)
{
    struct accept_auth_dialogue *a = *pa;

    if (a == NULL)
        return;
    if (a->scram != NULL)
        gsasl_finish(a->scram);
    hky_buf_fini(&a->name);
    accept_auth_wipe(&a->password);
    hky_buf_fini(&a->challenge);
    free(a);
    *pa = NULL;
}
