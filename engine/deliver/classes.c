/*
 * What each class means, for people: hikyaku-classes(7) is made from this. The unit test of the classifier checks that
 * each typical reply below gets the class under which it is listed.
 */
#include "hikyaku/deliver.h"

#define OWN(stage_, text_)                                                                                             \
    {                                                                                                                  \
        HKY_STAGE_##stage_, true, text_                                                                                \
    }
#define RELAY(stage_, text_)                                                                                           \
    {                                                                                                                  \
        HKY_STAGE_##stage_, false, text_                                                                               \
    }

/* One text for the classes that another account may cure: they differ in their cause, not in what is done. */
#define OURS_PERMANENT "The next step is entered at once. With no step left, the recipient fails."
#define OURS_TEMPORARY                                                                                                 \
    "The same step is tried again, up to `tries` times; then the next step is entered. With no step left, the "        \
    "recipient is tried again until `expire`."
#define THEIRS_PERMANENT                                                                                               \
    "The recipient fails, and the sender gets a notice. Another step is entered only where its `on` names the class."
#define THEIRS_TEMPORARY                                                                                               \
    "The same step is tried again until `expire`. After `tries` attempts another step is entered where its `on` "      \
    "names the class."
#define ACCOUNT_DONE                                                                                                   \
    "The account is paused and the recipient takes the next step at once. With no step left, it waits for the "        \
    "account."

static const struct hky_class_doc docs[] = {
    [HKY_CLASS_OK] =
        {
            .meaning = "The server took the message and is responsible for it from now on.",
            .done = "The recipient is finished.",
            .replies = {RELAY(DOT, "250 2.0.0 Ok: queued as 4F1B2")},
            .operator= "Nothing. If the message does not appear, ask the operator of the server that took it; the "
                       "words of the reply help to find it there.",
        },
    [HKY_CLASS_BAD_MAILBOX] =
        {
            .meaning = "There is no such mailbox at the domain.",
            .permanent = THEIRS_PERMANENT,
            .temporary = THEIRS_TEMPORARY,
            .replies = {OWN(RCPT, "550 5.1.1 <x@example.jp>: Recipient address rejected: User unknown"),
                        OWN(RCPT, "550 5.1.1 The email account that you tried to reach does not exist"),
                        OWN(RCPT, "550 5.4.1 Recipient address rejected: Access denied")},
            .operator= "Take the address off the list, or correct it.",
        },
    [HKY_CLASS_BAD_DOMAIN] =
        {
            .meaning = "The domain does not exist, or says that it takes no mail.",
            .permanent = THEIRS_PERMANENT,
            .temporary = THEIRS_TEMPORARY,
            .replies = {OWN(RCPT, "556 5.1.10 Recipient address has null MX"),
                        RELAY(RCPT, "550 5.1.2 <x@exmaple.jp>: Recipient address rejected: Domain not found")},
            .operator=
                "Look for a typing mistake in the domain. If many domains end like this at once, check the resolver "
                "of this machine (`engine.resolver`).",
        },
    [HKY_CLASS_INACTIVE] =
        {
            .meaning = "The mailbox existed and is closed, suspended or no longer used.",
            .permanent = THEIRS_PERMANENT,
            .temporary = THEIRS_TEMPORARY,
            .replies = {OWN(RCPT, "550 5.2.1 The email account that you tried to reach is disabled"),
                        OWN(RCPT, "554 5.7.1 mailbox is inactive")},
            .operator= "Take the address off the list.",
        },
    [HKY_CLASS_MAILBOX_FULL] =
        {
            .meaning = "The recipient's mailbox has no room.",
            .permanent =
                "The same step is tried again every 6 hours until `within` or `expire`; then the recipient fails. A "
                "later step that names the class in `on` is entered instead of failing, when `within` is over (by "
                "default half of the time until `expire`).",
            .temporary = "The same step is tried again every 6 hours until `expire`. A later step that names the class "
                         "in `on` is entered when `within` is over (by default half of the time until `expire`). "
                         "`tries` does not count.",
            .replies = {OWN(RCPT, "452 4.2.2 The recipient's inbox is out of storage space"),
                        OWN(DOT, "552 5.2.2 Mailbox quota exceeded")},
            .operator=
                "Nothing at first. An address that stays full for weeks is no longer read: take it off the list.",
        },
    [HKY_CLASS_FILTERED] =
        {
            .meaning = "A filter of the recipient refuses the sender; mobile carriers have such filters.",
            .permanent = OURS_PERMANENT,
            .temporary = OURS_TEMPORARY,
            .replies = {OWN(DOT, "550 refused due to recipient preferences"),
                        OWN(DOT, "550 5.2.1 <x@example.jp>: User unknown"),
                        OWN(RCPT, "550 5.7.1 blocked by the recipient")},
            .operator=
                "Let another account send to these recipients, or ask them to allow your address. \"User unknown\" "
                "that a carrier says at the end of the data belongs to this class, too: the address exists.",
        },
    [HKY_CLASS_AUTH_POLICY] =
        {
            .meaning =
                "The sender's address is not accepted: SPF, DKIM or DMARC fails, its domain has no DNS records, or "
                "the account may not send as that address.",
            .permanent = OURS_PERMANENT,
            .temporary = OURS_TEMPORARY,
            .replies = {OWN(DOT, "550 5.7.26 Unauthenticated email is not accepted due to domain's DMARC policy"),
                        RELAY(RCPT, "553 5.7.1 <a@shop.example>: Sender address rejected: not owned by user"),
                        OWN(RCPT, "450 4.1.8 <a@shop.example>: Sender address rejected: Domain not found")},
            .operator=
                "Send through a relay that may send for the From domain, or set `from` to the account's own (or a "
                "verified) address. Check the SPF, DKIM and DMARC records of the domain.",
        },
    [HKY_CLASS_BLOCKED_IP] =
        {
            .meaning =
                "The address of the sending machine is refused: it is on a block list, is a dynamic address, has no "
                "reverse DNS, or has a bad reputation there.",
            .permanent = OURS_PERMANENT,
            .temporary = OURS_TEMPORARY,
            .replies = {OWN(RCPT, "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org"),
                        OWN(GREETING, "554 5.7.1 Missing reverse DNS for 192.0.2.1"),
                        OWN(MAIL, "550 5.7.1 part of their network is on our block list (S3150)")},
            .operator=
                "Send through a relay that has another address, or have this address delisted. Check its reverse DNS.",
        },
    [HKY_CLASS_TLS] =
        {
            .meaning = "There is no trusted TLS connection: the server offers no STARTTLS, its certificate does not "
                       "verify, or the handshake fails. A server that refuses mail without TLS is in this class, too.",
            .done = "The account is paused and the next step is entered at once. With no step left, the recipient is "
                    "tried again until `expire`.",
            .replies = {RELAY(MAIL, "530 5.7.0 Must issue a STARTTLS command first"),
                        RELAY(TLS, "502 5.5.1 Command not implemented")},
            .operator=
                "Check port and `tls`: 587 starttls, 465 implicit. `hikyaku probe` shows the certificate. A server "
                "with an authority of its own needs `ca` or `pin`; an expired certificate must be renewed by the "
                "server's operator.",
        },
    [HKY_CLASS_SIZE_FORMAT] =
        {
            .meaning = "The server does not take this message's size or format, or cannot read the address.",
            .permanent = OURS_PERMANENT,
            .temporary = OURS_TEMPORARY,
            .replies = {RELAY(MAIL, "552 5.3.4 Message size exceeds fixed limit"), OWN(DOT, "554 5.6.0 line too long"),
                        OWN(RCPT, "553 5.1.3 The recipient address is not a valid RFC 5321 address")},
            .operator= "Make the message smaller, or correct the program that writes it. Another relay may take more.",
        },
    [HKY_CLASS_QUOTA_EXHAUSTED] =
        {
            .meaning = "The account's quota of an hour, a day or a month is used up, whatever the code is.",
            .done = ACCOUNT_DONE " The pause lasts as long as the reply says, or the provider is known to count (a day "
                                 "at some); else for the "
                                 "longest window of an hour up to a day among the caps of the relay, else "
                                 "for a minute and longer each time.",
            .replies = {RELAY(DOT, "550 5.4.5 Daily user sending limit exceeded"),
                        RELAY(DATA, "554 5.7.1 You may send only 10 messages per day"),
                        RELAY(DOT, "454 Throttling failure: Daily message quota exceeded")},
            .operator= "Set `cap` so that the quota is not reached again, and give the route a further step.",
        },
    [HKY_CLASS_RELAY_AUTH] =
        {
            .meaning = "The relay refuses the login, or asks for one.",
            .done = ACCOUNT_DONE
            " The pause grows with each failure. A login that gets a 4xx reply has the class system_temp, except at "
            "Amazon SES, where it means that the password is wrong.",
            .replies = {RELAY(AUTH, "535 5.7.8 Username and Password not accepted"),
                        RELAY(AUTH, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled"),
                        RELAY(MAIL, "530 5.7.0 Authentication required")},
            .operator= "`hikyaku probe` names the cause and the cure. Many providers want the full address as user "
                       "name and an app password. Afterwards type `hikyaku relay resume NAME`.",
        },
    [HKY_CLASS_RELAY_DENIED] =
        {
            .meaning =
                "The relay does not send for us: it takes mail only for its own domains, or the account is suspended.",
            .done = ACCOUNT_DONE " The pause grows with each failure.",
            .replies = {RELAY(RCPT, "554 5.7.1 <x@example.jp>: Relay access denied"),
                        RELAY(DOT, "550 Your account has been suspended")},
            .operator= "A login is missing (set `user` and `password`), or the provider has stopped the account: ask "
                       "the provider.",
        },
    [HKY_CLASS_RATE_LIMITED] =
        {
            .meaning = "The server got too many messages, connections or recipients at once. It takes mail again after "
                       "some seconds, or after an hour at most.",
            .done = "The account, or the way to the domain, slows down. The recipient is tried again when the time "
                    "that the reply names is over, and leaves the step only when `within` is over.",
            .replies = {OWN(MAIL, "421 4.7.0 Too many connections from your host, try again in 60 minutes"),
                        OWN(DOT, "421 4.7.0 Messages from 192.0.2.1 temporarily deferred due to unexpected volume"),
                        RELAY(DOT, "454 Throttling failure: Maximum sending rate exceeded")},
            .operator= "If it happens often, lower `cap` or `connections`.",
        },
    [HKY_CLASS_REPUTATION_CONTENT] =
        {
            .meaning = "The content, a link in it, or the name of the sender's domain is refused as spam or a virus.",
            .permanent = "The recipient fails, because the same content would spoil the reputation of the next "
                         "account, too. Another step is "
                         "entered only where its `on` names the class, or `react` says so.",
            .temporary = THEIRS_TEMPORARY,
            .replies = {OWN(DOT, "550 5.7.1 Our system has detected that this message is likely unsolicited mail"),
                        RELAY(DOT, "554 5.7.1 Message content rejected")},
            .operator= "Look at the text, its links and the list of recipients. A machine that was broken into sends "
                       "such mail, too.",
        },
    [HKY_CLASS_NETWORK] =
        {
            .meaning = "The server was not reached, or the connection was lost before the whole message was sent.",
            .done = OURS_TEMPORARY,
            .replies = {OWN(RCPT, "450 4.4.1 no answer from host"),
                        RELAY(DOT, "451 4.4.2 lost connection with mx.example.jp")},
            .operator= "Nothing, if it soon stops. Otherwise check host, port and firewall; many networks block "
                       "outgoing port 25.",
        },
    [HKY_CLASS_SYSTEM_TEMP] =
        {
            .meaning = "The server is busy, has a fault, or greylists: it takes the mail later.",
            .done = OURS_TEMPORARY " If the reply names a time, the next attempt waits for it.",
            .replies = {OWN(RCPT, "450 4.2.0 Recipient address rejected: Greylisted, try again in 300 seconds"),
                        RELAY(DOT, "452 4.3.1 Insufficient system storage"),
                        RELAY(AUTH, "454 4.7.0 Temporary authentication failure")},
            .operator= "Nothing: the server takes the mail later.",
        },
    [HKY_CLASS_UNKNOWN] =
        {
            .meaning = "The reply does not say why.",
            .permanent =
                "The same step is tried once more after 15 minutes, then the next step. With no step left, the "
                "recipient fails.",
            .temporary = OURS_TEMPORARY,
            .replies = {OWN(RCPT, "550 no"), OWN(RCPT, "450 not now"), OWN(DOT, "554 5.4.6 Too many hops")},
            .operator= "Read the reply in the event log (`reply`). With `react` a route can change what is done with "
                       "the class.",
        },
    [HKY_CLASS_AMBIGUOUS] =
        {
            .meaning =
                "The connection was lost between the final dot and its reply: nobody knows whether the server took the "
                "message.",
            .done = "The same step is tried again after 10 minutes or more, with the same Message-ID, at most twice; "
                    "then the recipient is held. It stays with its step and is held, too, where its plan would end "
                    "otherwise: another relay would send a second copy, and a failure notice might be wrong.",
            .operator=
                "Ask the recipient, or look into the relay's log; then `hikyaku queue release ID` or `hikyaku queue "
                "cancel ID`.",
        },
    [HKY_CLASS_SUPPRESSED] =
        {
            .meaning =
                "The address is on a list of addresses that get no mail. No recipient ends in this class yet, because "
                "Hikyaku has no such list.",
            .done = "The recipient fails without an attempt.",
            .operator= "Nothing.",
        },
    [HKY_CLASS_EXPIRED] =
        {
            .meaning = "The time to deliver (`expire`, or the deadline of the message) is over; or a server reports in "
                       "a notice that it gave up.",
            .done = "The recipient fails.",
            .operator= "The event's `text` and the attempts before it say what the mail waited for.",
        },
    [HKY_CLASS_FULL] =
        {
            .meaning = "The account has used up its `cap` for now.",
            .done = "A step whose `on` names it, or has no `on`, is entered at once. With no step left, the recipient "
                    "waits for its turn.",
            .operator= "Nothing. `hikyaku relay list` shows the caps.",
        },
    [HKY_CLASS_PAUSED] =
        {
            .meaning = "The account is paused, by an operator, by the policy, or by Hikyaku after a failure.",
            .done = "A step whose `on` names it, or has no `on`, is entered at once. With no step left, the recipient "
                    "waits until the pause ends.",
            .operator= "`hikyaku relay list` shows why and until when; `hikyaku relay resume NAME` ends it.",
        },
    [HKY_CLASS_SENDS_AS] =
        {
            .meaning = "The account may not send as this author (`sends_as`).",
            .done = "The step is skipped. With no step left, the recipient fails.",
            .operator=
                "Give the step or the relay a `from`, or add a step with an account that may send as the author.",
        },
};
_Static_assert(sizeof docs / sizeof docs[0] == HKY_CLASS_N, "every class is explained");

const struct hky_class_doc *hky_class_doc(enum hky_class c)
{
    HKY_ASSERT((unsigned)c < HKY_CLASS_N);
    return &docs[c];
}
