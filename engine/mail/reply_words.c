/* Finds in the words of a reply what its code does not tell. Pure. */
#include "mail/reply.h"

static bool says_one_of(const struct hky_reply *r, const char *const *words)
{
    struct hky_str text = hky_str_of(r->text, r->n);
    for (; *words != NULL; words++)
        if (hky_str_ifind(text, hky_str_z(*words)) != NULL)
            return true;
    return false;
}

bool hky_reply_counts_connections(const struct hky_reply *r)
{
    static const char *const words[] = {
        "too many connection",
        "too many concurrent",
        "too many simultaneous",
        "too many parallel",
        "too many open connection",
        "too many smtp connection",
        "too many session",
        "too many active",
        "number of connections",
        "number of concurrent",
        "number of simultaneous",
        "number of sessions",
        "connection limit",
        "connections limit",
        "session limit",
        "sessions limit",
        "limit of connections",
        "connections exceeded",
        "connection count exceeded",
        "concurrent connection",
        "simultaneous connection",
        "max connections",
        "maximum connections",
        "\xe5\x90\x8c\xe6\x99\x82\xe6\x8e\xa5\xe7\xb6\x9a", /* concurrent connection, in Japanese */
        NULL};
    return r->code >= 400 && says_one_of(r, words);
}

bool hky_reply_counts_recipients(const struct hky_reply *r)
{
    static const char *const words[] = {
        "too many recipient",
        "too many rcpt",
        "too many addresses",
        "max recipients",
        "maximum recipients",
        "number of recipients",
        "recipient limit",
        "recipients limit",
        "recipient count",
        "recipients per message",
        "recipients in message",
        "recipient at a time",
        "\xe5\xae\x9b\xe5\x85\x88\xe3\x81\x8c\xe5\xa4\x9a", /* many addressees, in Japanese */
        NULL};
    /* The limit of a day is not cured by a further message. */
    static const char *const windows[] = {"daily",   "per day", "today",     "hourly",  "per hour", "an hour",
                                          "24 hour", "24-hour", "this hour", "monthly", NULL};
    bool is_coded = r->enhanced[0] != 0 && r->enhanced[1] == 5 && r->enhanced_detail == 3;
    return r->code >= 400 && (is_coded || says_one_of(r, words)) && !says_one_of(r, windows);
}

bool hky_reply_counts_messages(const struct hky_reply *r)
{
    static const char *const words[] = {"messages per connection",
                                        "message per connection",
                                        "mails per connection",
                                        "messages per session",
                                        "message per session",
                                        "mails per session",
                                        "messages for this session",
                                        "messages for this connection",
                                        "messages in this session",
                                        "messages in this connection",
                                        "messages on this connection",
                                        "messages in one session",
                                        "messages in one connection",
                                        "messages this session",
                                        "messages during this session",
                                        "message limit for this connection",
                                        "message limit for this session",
                                        "message limit per connection",
                                        "per-connection message limit",
                                        "connection message limit",
                                        "transactions per connection",
                                        "transactions per session",
                                        "transactions in this session",
                                        "too many transactions",
                                        "too many mail transactions",
                                        NULL};
    return r->code >= 400 && says_one_of(r, words);
}
