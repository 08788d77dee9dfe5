/* A session that is open when a new policy comes into force. */
#include "accept/session_internal.h"

static const struct hky_user *user_of(const struct hky_listen *listen, const char *name)
{
    for (uint32_t i = 0; listen != NULL && i < listen->n_users; i++)
        if (strcmp(listen->users[i].name, name) == 0)
            return &listen->users[i];
    return NULL;
}

static bool same_word(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_words(const char *const *a, const char *const *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    while (*a != NULL && *b != NULL && strcmp(*a, *b) == 0)
        a++, b++;
    return *a == NULL && *b == NULL;
}

/* The password itself, which a file or a command gives, may have changed all the same; that shows at the next login. */
static bool same_password(const struct hky_user *a, const struct hky_user *b)
{
    return same_word(a->password.name, b->password.name) && same_word(a->password.literal, b->password.literal) &&
           same_words(a->password.command, b->password.command);
}

bool accept_review_keeps_rights(const struct accept_session *s)
{
    const struct accept_session_review *r = &s->review;

    if (s->user == NULL)
        return r->listen != NULL && r->is_allowed == s->p.is_allowed &&
               (r->listen->n_users == 0) == (s->p.listen->n_users == 0);
    const struct hky_user *user = user_of(r->listen, s->user->name);
    return user != NULL && same_password(s->user, user) && same_words(s->user->senders, user->senders) &&
           same_words(s->user->scenarios, user->scenarios);
}

void accept_review_apply(struct accept_session *s)
{
    const struct hky_user *before = s->user;
    bool could_send = accept_session_may_send(s);

    if (s->review.listen == NULL) {
        s->review.policy = NULL;
        accept_session_close(s, "4.3.2", "no longer accepts mail here");
        return;
    }
    s->user = before != NULL ? user_of(s->review.listen, before->name) : NULL;
    bool is_ended = before != NULL && (s->user == NULL || !same_password(before, s->user));
    s->p.policy = s->review.policy;
    s->p.listen = s->review.listen;
    s->p.is_allowed = s->review.is_allowed;
    s->review.policy = NULL;
    if (is_ended)
        accept_session_close(s, "4.7.0", "changed your login; log in again");
    else if (could_send && !accept_session_may_send(s))
        accept_session_close(s, "4.7.0", "no longer accepts mail from this address");
}
