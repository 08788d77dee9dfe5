/*
 * Decides whether a failure notice (RFC 3464) is due, and journals it in one commit with the `finished` that it
 * reports. Recipients of one message that end within GATHER_MS, in digest mode within DIGEST_MS, share a notice. What
 * was or may have been delivered does not wait for its notice: its result is journalled at once, or a kill would have
 * it sent again.
 * Failures that cannot be reported to a sender (those of a notice, and of mail without a sender) are reported in the
 * log and to engine.owner.
 */
#include "hikyaku/notice.h"

#include "base/hash.h"
#include "base/heap.h"
#include "base/map.h"
#include "hikyaku/intake.h"
#include "mail/dsn.h"

#include <stdio.h>
#include <stdlib.h>

#define DIGEST_MS          60000
#define RETURN_FULL_MOST   (64u << 10) /* of a larger message RET=FULL returns the header only */
#define RETURN_HEADER_MOST (32u << 10)
#define NOTICE_MOST        (512u << 10)
#define GATHER_MS          1000 /* recipients of one message that end together share a notice */
#define ENDED_MOST         1000 /* recipients in one notice, at most */
#define OWNER_HOUR_MOST    30   /* notices to engine.owner in an hour, for each worker; the log has all */
#define HOUR_MS            INT64_C(3600000)
#define SLEEP_MOST_MS      1000 /* bounded because the clock may be moved */

/* A finished recipient that waits for its notice. */
struct ended {
    TAILQ_ENTRY(ended) link;
    struct hky_recipient *recipient; /* with its message reference */
    struct hky_reply reply;
    bool has_reply;
    bool is_recorded; /* the journal knows that it has ended */
    enum hky_dsn_action action;
};

/* One notice being made: all its recipients are of one message. */
struct making {
    TAILQ_ENTRY(making) link;
    struct hky_notice *owner;
    struct hky_message *about; /* kept by the recipients' references */
    TAILQ_HEAD(, ended) ended;
    unsigned n;
    bool is_open;             /* still gathers */
    char *owner_address;      /* gets the notice instead of the sender; owned */
    struct hky_heap_node due; /* while it gathers, by the elapsed time of the clock */
    struct hky_body_read read;
    bool is_submitted;
    struct hky_submission submission; /* of the notice, in one commit with the first of `ended` */
};

struct hky_notice {
    struct hky_notice_params p;
    struct hky_intake intake;
    TAILQ_HEAD(, making) makings;
    struct hky_idmap open; /* message id -> the making that still gathers */
    struct hky_heap due;   /* the same, by when they are due */
    struct hky_timer timer;
    int64_t owner_hour; /* the hour of `n_owner` */
    unsigned n_owner;   /* notices to the owner in this hour */
};

static void on_timer(struct hky_timer *timer);

struct hky_notice *hky_notice_new(const struct hky_notice_params *p)
{
    struct hky_notice *n = hky_calloc(1, sizeof *n);

    n->p = *p;
    n->intake = (struct hky_intake){.worker = p->worker,
                                    .loop = p->loop,
                                    .journal = p->journal,
                                    .clock = p->clock,
                                    .ctx = p->ctx,
                                    .decide = p->decide,
                                    .enqueue = p->enqueue};
    TAILQ_INIT(&n->makings);
    hky_idmap_init(&n->open);
    hky_heap_init(&n->due);
    hky_timer_init(&n->timer, p->loop, on_timer);
    return n;
}

static void close_digest(struct making *k)
{
    if (k->is_open)
        hky_idmap_remove(&k->owner->open, k->about->id);
    hky_heap_remove(&k->owner->due, &k->due);
    k->is_open = false;
}

static void free_making(struct making *k)
{
    struct ended *x;

    close_digest(k);
    TAILQ_REMOVE(&k->owner->makings, k, link);
    while ((x = TAILQ_FIRST(&k->ended)) != NULL) {
        struct hky_message *m = x->recipient->message;
        TAILQ_REMOVE(&k->ended, x, link);
        hky_message_unref(&m);
        free(x);
    }
    hky_body_unref(&k->read.body); /* NULL unless the loops stopped between the read and its callback */
    free(k->owner_address);
    hky_message_unref(&k->submission.message); /* NULL when there is no notice, or its commit has ended */
    free(k);
}

static bool is_about_success(const struct hky_recipient *r)
{
    return r->state == HKY_RCPT_DELIVERED;
}

/* Would one more attempt bring a further copy? Also when the route fails what a relay may have taken (its react to
 * ambiguous). What has expired is not attempted again, so it can come back for its notice. */
static bool may_be_delivered(const struct hky_recipient *r)
{
    return is_about_success(r) || (r->state == HKY_RCPT_FAILED && r->ambiguous > 0);
}

void hky_notice_stop(struct hky_notice *n)
{
    struct making *k;

    if (n == NULL)
        return;
    TAILQ_FOREACH (k, &n->makings, link) {
        struct ended *x;
        TAILQ_FOREACH (x, &k->ended, link) {
            bool is_with_notice = k->is_submitted && x == TAILQ_FIRST(&k->ended); /* the notice's record has it */
            if (!is_with_notice && (k->is_submitted || may_be_delivered(x->recipient)))
                hky_journal_finish(n->p.journal, x->recipient, NULL, NULL);
        }
    }
}

void hky_notice_free(struct hky_notice **n)
{
    struct making *k;

    if (*n == NULL)
        return;
    while ((k = TAILQ_FIRST(&(*n)->makings)) != NULL)
        free_making(k);
    hky_idmap_fini(&(*n)->open);
    hky_heap_fini(&(*n)->due);
    hky_timer_cancel(&(*n)->timer);
    free(*n);
    *n = NULL;
}

/* NONE: the sender gets no notice. */
static enum hky_dsn_mode mode_for(struct hky_notice *n, const struct hky_recipient *r, const struct hky_outcome *o)
{
    const struct hky_message *m = r->message;
    struct hky_policy *policy = n->p.policy(n->p.ctx, n->p.worker);
    enum hky_dsn_mode mode = r->plan != NULL ? r->plan->dsn : HKY_DSN_UNSET;

    if (m->is_notice || hky_message_fact(m, HKY_FACT_SENDER).n == 0 || r->state == HKY_RCPT_CANCELLED)
        return HKY_DSN_NONE;
    if (is_about_success(r))
        return (r->notify & HKY_NOTIFY_SUCCESS) != 0 && !(o != NULL && o->takes_dsn) ? HKY_DSN_EACH : HKY_DSN_NONE;
    if (r->notify != 0 && (r->notify & HKY_NOTIFY_FAILURE) == 0)
        return HKY_DSN_NONE;
    if (mode == HKY_DSN_UNSET)
        mode = policy->engine.dsn;
    if (mode == HKY_DSN_UNSET)
        mode = hky_message_fact(m, HKY_FACT_SCENARIO).n > 0 ? HKY_DSN_NONE : HKY_DSN_EACH;
    return mode;
}

/* There is no notice, or it did not reach the disk. The ends must still reach it, or the mail would be sent again. */
static void finish_all(struct making *k)
{
    struct ended *x;

    TAILQ_FOREACH (x, &k->ended, link)
        hky_journal_finish(k->owner->p.journal, x->recipient, NULL, NULL);
}

static void on_notice_durable(struct hky_submission *s, const struct hky_durable *durable, enum hky_err result)
{
    struct making *k = HKY_CONTAINER(s, struct making, submission);
    struct ended *x = TAILQ_FIRST(&k->ended);

    (void)durable;
    if (result != HKY_OK) {
        finish_all(k);
        return;
    }
    while ((x = TAILQ_NEXT(x, link)) != NULL)
        hky_journal_finish(k->owner->p.journal, x->recipient, NULL, NULL);
}

static void on_notice_over(struct hky_submission *s)
{
    free_making(HKY_CONTAINER(s, struct making, submission));
}

/* The class in words for people, where nothing better is known. */
static const char *words_of(const struct hky_recipient *r)
{
    static const struct {
        enum hky_class class;
        const char *words;
    } table[] = {
        {HKY_CLASS_BAD_MAILBOX, "There is no such address. / 宛先のアドレスが存在しません。"},
        {HKY_CLASS_BAD_DOMAIN, "The domain takes no mail. / 宛先のドメインがメールを受け付けていません。"},
        {HKY_CLASS_INACTIVE, "The mailbox is closed or not in use. / このメールボックスは現在使われていません。"},
        {HKY_CLASS_MAILBOX_FULL, "The mailbox is full. / メールボックスの容量がいっぱいです。"},
        {HKY_CLASS_FILTERED,
         "The recipient's filter refused it. / 受信者の受信設定（フィルター）により拒否されました。"},
        {HKY_CLASS_AUTH_POLICY, "The sender could not be verified. / 送信ドメイン認証により拒否されました。"},
        {HKY_CLASS_BLOCKED_IP, "The receiving server blocks ours. / 受信側のサーバーが送信元を拒否しています。"},
        {HKY_CLASS_TLS, "No secure connection could be made. / 暗号化された接続ができませんでした。"},
        {HKY_CLASS_SIZE_FORMAT,
         "Its size or format was refused. / メールのサイズまたは形式が受け付けられませんでした。"},
        {HKY_CLASS_REPUTATION_CONTENT, "Its content was refused. / メールの内容により拒否されました。"},
        {HKY_CLASS_QUOTA_EXHAUSTED, "Our account may send no more. / 送信アカウントの上限に達しています。"},
        {HKY_CLASS_RELAY_AUTH, "Our account could not log in. / 送信アカウントの認証に失敗しました。"},
        {HKY_CLASS_RELAY_DENIED, "Our server may not send it. / 送信サーバーに配信を拒否されました。"},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (r->reason != NULL && strcmp(r->reason, hky_class_name(table[i].class)) == 0)
            return table[i].words;
    return r->reason;
}

/* The address that gets the notice. */
static struct hky_str address_of(const struct making *k)
{
    return k->owner_address != NULL ? hky_str_z(k->owner_address) : hky_message_fact(k->about, HKY_FACT_SENDER);
}

/* The part of the header section that is returned, cut behind a whole line. */
static struct hky_str returned_header(struct hky_str original, size_t header_octets)
{
    size_t n = original.n < header_octets ? original.n : header_octets;

    if (n > RETURN_HEADER_MOST)
        for (n = RETURN_HEADER_MOST; n > 0 && original.p[n - 1] != '\n'; n--)
            ;
    return hky_str_of(original.p, n);
}

static void add_recipients(struct making *k, struct hky_dsn *d, struct hky_dsn_recipient *rcpts)
{
    struct ended *x;

    d->recipients = rcpts;
    TAILQ_FOREACH (x, &k->ended, link) {
        struct hky_dsn_recipient *r = &rcpts[d->n++];
        r->address = hky_recipient_address(x->recipient);
        r->orcpt = hky_recipient_orcpt(x->recipient);
        r->action = x->action;
        r->reply = x->has_reply ? &x->reply : NULL;
        r->status = x->recipient->state == HKY_RCPT_EXPIRED ? "4.4.7" : NULL;
        r->why = words_of(x->recipient);
        r->remote_mta = "";
        r->last_attempt_ms = hky_clock_now_ms(k->owner->p.clock);
    }
}

/* Makes a notice of bounded size: if it is too large, less is said about each recipient, then less is returned. */
static char *format_bounded(struct hky_dsn *d, size_t *octets)
{
    static const struct {
        size_t n_in_text, diagnostic_most;
        bool has_original;
    } levels[] = {{100, 0, true}, {100, 300, true}, {20, 80, true}, {20, 1, false}};
    size_t all = d->n;

    for (size_t i = 0;; i++) {
        bool is_last = i + 1 >= sizeof levels / sizeof levels[0];
        struct hky_buf out;

        d->n_in_text = levels[is_last ? 3 : i].n_in_text;
        d->diagnostic_most = levels[is_last ? 3 : i].diagnostic_most;
        if (is_last) {
            d->original_header = HKY_STR("");
            d->original_body = hky_str_of(NULL, 0);
            d->n = i == 3 ? all : all >> (i - 3);
        }
        hky_buf_init(&out, NOTICE_MOST);
        hky_dsn_format(d, &out);
        if (!out.is_over || d->n == 1)
            return hky_buf_take(&out, octets);
        hky_buf_fini(&out);
    }
}

/* A notice that comes to the owner is returned with what it says: whose mail failed, and why. */
static bool returns_all(const struct hky_message *m)
{
    return m->ret == HKY_RET_FULL || m->is_notice;
}

static char *format_notice(struct making *k, uint64_t id, struct hky_str original, size_t *octets)
{
    const struct hky_message *m = k->about;
    struct hky_policy *policy = k->owner->p.policy(k->owner->p.ctx, k->owner->p.worker);
    struct hky_dsn_recipient *rcpts = hky_calloc(k->n, sizeof *rcpts);
    char queue_id[HKY_ID_TEXT], own_id[HKY_ID_TEXT], message_id[300], *text;
    struct hky_dsn d = {.is_for_owner = k->owner_address != NULL};

    hky_id_format(m->id, queue_id);
    hky_id_format(id, own_id);
    snprintf(message_id, sizeof message_id, "<%s@%s>", own_id, policy->engine.hostname);
    add_recipients(k, &d, rcpts);
    d.hostname = policy->engine.hostname;
    d.message_id = message_id;
    d.to = address_of(k);
    d.envid = hky_message_fact(m, HKY_FACT_ENVID);
    d.queue_id = queue_id;
    d.arrival_ms = m->accepted_at_ms;
    d.now_ms = hky_clock_now_ms(k->owner->p.clock);
    d.original_header = returned_header(original, m->header_octets);
    if (returns_all(m) && original.n == m->size)
        d.original_body = hky_str_of(original.p + m->header_octets, original.n - m->header_octets);
    d.is_8bit = m->is_8bit;
    d.is_smtputf8 = m->is_smtputf8;
    text = format_bounded(&d, octets);
    free(rcpts);
    return text;
}

static bool has_8bit(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
    return false;
}

/* Makes a message of the notice as of other mail. false: it would break a rule for all messages. */
static bool make_notice(struct making *k, struct hky_str original, struct hky_handed_in *out)
{
    struct hky_notice *n = k->owner;
    struct hky_letter_params params = {.policy = n->p.policy(n->p.ctx, n->p.worker), .is_notice = true};
    struct hky_letter_rcpt to = {.address = address_of(k), .notify = HKY_NOTIFY_NEVER};
    struct hky_letter_sender from = {.address = HKY_STR("")};
    struct hky_refusal why = {0};
    size_t octets;

    params.now_ms = hky_clock_now_ms(n->p.clock);
    params.id = hky_id_next(hky_journal_ids(n->p.journal), params.now_ms);
    char *p = format_notice(k, params.id, original, &octets);
    struct hky_letter *letter = hky_letter_new(&params);
    to.is_utf8 = from.is_smtputf8 = has_8bit(to.address);
    bool is_good = hky_letter_set_sender(letter, &from, &why) && hky_letter_add_recipient(letter, &to, &why);
    if (is_good) {
        hky_letter_begin(letter, &(struct hky_letter_origin){.source = "dsn", .client = "", .hello = ""}, octets);
        (void)hky_letter_add_octets(letter, p, octets);
        is_good = hky_letter_end(letter, out, &why);
    }
    hky_letter_free(&letter);
    free(p);
    return is_good;
}

/* A copy of engine.owner, or NULL when no notice about `r` may be sent there: `r` is a notice to the owner, or the
 * owner has had enough notices in this hour. */
static char *owner_for(struct hky_notice *n, const struct hky_recipient *r)
{
    const char *owner = n->p.policy(n->p.ctx, n->p.worker)->engine.owner;
    int64_t hour = hky_clock_now_ms(n->p.clock) / HOUR_MS;

    if (owner == NULL || owner[0] == '\0' ||
        (r->message->is_notice && hky_str_ieq(hky_recipient_address(r), hky_str_z(owner))))
        return NULL;
    if (hour != n->owner_hour)
        n->n_owner = 0;
    n->owner_hour = hour;
    return n->n_owner++ < OWNER_HOUR_MOST ? hky_strdup(owner) : NULL;
}

/* Is this a failure that cannot be reported to the sender, although NOTIFY does not exclude it? */
static bool is_for_owner(const struct hky_recipient *r)
{
    const struct hky_message *m = r->message;

    if (r->state != HKY_RCPT_FAILED && r->state != HKY_RCPT_EXPIRED)
        return false;
    return m->is_notice ||
           (hky_message_fact(m, HKY_FACT_SENDER).n == 0 && (r->notify == 0 || (r->notify & HKY_NOTIFY_FAILURE) != 0));
}

/* Logs the failure. Returns the owner's address for a notice, or NULL when none is to be sent. */
static char *report_to_owner(struct hky_notice *n, const struct hky_recipient *r, const struct hky_outcome *o)
{
    char *owner = owner_for(n, r);
    char id[HKY_ID_TEXT], reply[HKY_REPLY_TEXT + 32] = "";

    hky_id_format(r->message->id, id);
    if (o != NULL)
        (void)hky_reply_format(&o->reply, reply, sizeof reply);
    hky_log(n->p.log, r->message->is_notice ? HKY_LOG_ERROR : HKY_LOG_WARN, "notice_failed",
            "msg=%s rcpt=" HKY_STR_FMT " what=\"%s\" class=%s reply=\"%s\" owner=%s", id,
            HKY_STR_ARG(hky_recipient_address(r)),
            r->message->is_notice ? "a failure notice did not arrive" : "mail without a sender did not arrive",
            o != NULL           ? hky_class_name(o->class)
            : r->reason != NULL ? r->reason
                                : "none",
            reply, owner != NULL ? owner : "none");
    return owner;
}

static void on_original(struct hky_body_read *read)
{
    struct making *k = HKY_CONTAINER(read, struct making, read);
    struct hky_notice *n = k->owner;
    struct ended *first = TAILQ_FIRST(&k->ended);
    struct hky_str original = read->result == HKY_OK ? hky_str_of(read->p, read->n) : HKY_STR("");
    struct hky_event ev = {.kind = HKY_EVENT_NOTICE,
                           .at_ms = hky_clock_now_ms(n->p.clock),
                           .message = k->about,
                           .recipient = first->recipient};
    struct hky_handed_in notice = {0};
    char id[HKY_ID_TEXT];

    if (original.n > k->about->header_octets && (!returns_all(k->about) || original.n > RETURN_FULL_MOST))
        original.n = k->about->header_octets;
    bool is_made = make_notice(k, original, &notice);
    if (!is_made && k->owner_address == NULL && (k->owner_address = owner_for(n, first->recipient)) != NULL)
        is_made = make_notice(k, original, &notice);
    hky_body_read_release(read);
    if (!is_made) {
        char about[HKY_ID_TEXT];
        hky_id_format(k->about->id, about);
        hky_log(n->p.log, HKY_LOG_ERROR, "notice_failed",
                "msg=%s to=" HKY_STR_FMT " n=%u why=\"no notice can be made for this address\"", about,
                HKY_STR_ARG(address_of(k)), k->n);
        finish_all(k);
        free_making(k);
        return;
    }
    hky_id_format(notice.message->id, id);
    k->submission = (struct hky_submission){.done = on_notice_durable, .free = on_notice_over};
    k->is_submitted = true;
    hky_intake_submit_about(&n->intake, &k->submission, &notice, first->recipient);
    ev.text = id;
    if (n->p.record != NULL)
        hky_record_event(n->p.record, n->p.worker, &ev);
}

/* It is still to be finished with its notice, which needs the original: that stays in the journal until then. Any other
 * recipient is not recorded, because after a kill its notice would be lost; it is tried again instead. */
static void record_delivery(struct making *k, struct ended *x)
{
    if (!may_be_delivered(x->recipient) || x->is_recorded)
        return;
    x->is_recorded = true;
    hky_journal_attempt(k->owner->p.journal, x->recipient, NULL);
}

static void start_making(struct making *k)
{
    struct ended *x;

    close_digest(k);
    k->read = (struct hky_body_read){.loop = k->owner->p.loop, .message = k->about, .done = on_original};
    if (hky_journal_body(k->owner->p.journal, &k->read)) {
        on_original(&k->read);
        return;
    }
    TAILQ_FOREACH (x, &k->ended, link)
        record_delivery(k, x);
}

/* Waits for the notice that is due first. The timer only wakes the loop; the clock decides what is due. */
static void set_timer(struct hky_notice *n)
{
    const struct hky_heap_node *first = hky_heap_first(&n->due);

    if (first == NULL) {
        hky_timer_cancel(&n->timer);
        return;
    }
    int64_t left_ms = first->at - hky_clock_elapsed_ms(n->p.clock);
    hky_timer_set(&n->timer, left_ms < 1 ? 1 : left_ms < SLEEP_MOST_MS ? left_ms : SLEEP_MOST_MS);
}

void hky_notice_tick(struct hky_notice *n)
{
    int64_t now_ms = hky_clock_elapsed_ms(n->p.clock);
    struct hky_heap_node *node;

    while ((node = hky_heap_first(&n->due)) != NULL && node->at <= now_ms)
        start_making(HKY_CONTAINER(node, struct making, due)); /* removes the node */
    set_timer(n);
}

int64_t hky_notice_next_at(const struct hky_notice *n)
{
    const struct hky_heap_node *first = hky_heap_first(&n->due);

    if (first == NULL)
        return INT64_MAX;
    int64_t left_ms = first->at - hky_clock_elapsed_ms(n->p.clock);
    return hky_clock_now_ms(n->p.clock) + (left_ms > 0 ? left_ms : 0);
}

static void on_timer(struct hky_timer *timer)
{
    hky_notice_tick(HKY_CONTAINER(timer, struct hky_notice, timer));
}

static struct making *new_making(struct hky_notice *n, struct hky_message *about)
{
    struct making *k = hky_calloc(1, sizeof *k);

    k->owner = n;
    k->about = about;
    TAILQ_INIT(&k->ended);
    TAILQ_INSERT_TAIL(&n->makings, k, link);
    return k;
}

/* Recipients of one message that end close together share a notice; a message with one recipient need not wait. */
static struct making *making_for(struct hky_notice *n, struct hky_message *about, enum hky_dsn_mode mode)
{
    struct making *k = hky_idmap_get(&n->open, about->id);

    if (k != NULL)
        return k;
    k = new_making(n, about);
    if (mode == HKY_DSN_DIGEST || about->n_recipients > 1) {
        k->is_open = true;
        hky_idmap_put(&n->open, about->id, k);
        hky_heap_set(&n->due, &k->due,
                     hky_clock_elapsed_ms(n->p.clock) + (mode == HKY_DSN_DIGEST ? DIGEST_MS : GATHER_MS));
        if (hky_heap_first(&n->due) == &k->due)
            set_timer(n);
    }
    return k;
}

void hky_notice_finish(struct hky_notice *n, struct hky_recipient *r, const struct hky_outcome *o)
{
    enum hky_dsn_mode mode = mode_for(n, r, o);
    char *owner = is_for_owner(r) ? report_to_owner(n, r, o) : NULL;
    struct making *k;
    struct ended *x;

    if (mode == HKY_DSN_NONE && owner == NULL) {
        struct hky_message *m = r->message;
        hky_journal_finish(n->p.journal, r, NULL, NULL);
        hky_message_unref(&m);
        return;
    }
    k = owner != NULL ? new_making(n, r->message) : making_for(n, r->message, mode);
    k->owner_address = owner != NULL ? owner : k->owner_address;
    x = hky_calloc(1, sizeof *x);
    x->recipient = r;
    /* A relay has the mail, and whether it reached the mailbox is not known: "relayed" (RFC 3464 2.3.3). */
    x->action = is_about_success(r) ? HKY_DSN_RELAYED : HKY_DSN_FAILED;
    if (o != NULL) {
        x->reply = o->reply;
        x->has_reply = true;
    }
    TAILQ_INSERT_TAIL(&k->ended, x, link);
    k->n++;
    if (k->is_open)
        record_delivery(k, x);
    if (!k->is_open || k->n >= ENDED_MOST)
        start_making(k);
}
