/*
 * An event as octets, and back: kind, instant, then the keys that apply, each with its value.
 */
#include "record/internal.h"

#include "base/hash.h"

#define TEXT_MOST 4000 /* octets of one text; a longer one is cut */

enum type { TEXT, NUMBER, TIME, ID, CLASS, SCOPE, STAGE, ENHANCED, LIST, PAIRS };

static const uint8_t types[] = {
#define X(id, name, type) type,
    HKY_EVENT_KEYS(X)
#undef X
};

/* A bit for each key whose value is text. */
static const uint64_t texts = 0
#define X(id, name, type) | (uint64_t)((type) == TEXT || (type) == LIST || (type) == PAIRS) << HKY_EVENT_KEY_##id
    HKY_EVENT_KEYS(X)
#undef X
    ;

static void add_text(struct hky_buf *b, enum hky_event_key key, struct hky_str s)
{
    uint16_t n = (uint16_t)(s.n < TEXT_MOST ? s.n : TEXT_MOST);
    char head[3] = {(char)key};

    if (n == 0)
        return;
    memcpy(head + 1, &n, sizeof n);
    hky_buf_add(b, head, sizeof head);
    hky_buf_add(b, s.p, n);
}

static void add_z(struct hky_buf *b, enum hky_event_key key, const char *z)
{
    if (z != NULL && z[0] != '\0')
        add_text(b, key, hky_str_z(z));
}

static void add_value(struct hky_buf *b, enum hky_event_key key, int64_t v)
{
    char head[9] = {(char)key};

    memcpy(head + 1, &v, sizeof v);
    hky_buf_add(b, head, sizeof head);
}

static void add_message(struct hky_buf *b, const struct hky_event *ev)
{
    static const struct {
        enum hky_event_key key;
        enum hky_fact fact;
    } at_the_door[] = {{HKY_EVENT_KEY_SENDER, HKY_FACT_SENDER}, {HKY_EVENT_KEY_AUTHOR, HKY_FACT_AUTHOR},
                       {HKY_EVENT_KEY_USER, HKY_FACT_USER},     {HKY_EVENT_KEY_CLIENT, HKY_FACT_CLIENT},
                       {HKY_EVENT_KEY_SOURCE, HKY_FACT_SOURCE}, {HKY_EVENT_KEY_MESSAGE_ID, HKY_FACT_MESSAGE_ID}};
    const struct hky_message *m = ev->message;
    struct hky_str facts[HKY_FACT_N];

    hky_message_facts(m, facts);
    add_value(b, HKY_EVENT_KEY_ID, (int64_t)m->id);
    add_text(b, HKY_EVENT_KEY_SCENARIO, facts[HKY_FACT_SCENARIO]);
    add_text(b, HKY_EVENT_KEY_REF, facts[HKY_FACT_REF]);
    if (ev->kind != HKY_EVENT_ACCEPTED && ev->kind != HKY_EVENT_REFUSED)
        return;
    for (size_t i = 0; i < sizeof at_the_door / sizeof at_the_door[0]; i++)
        add_text(b, at_the_door[i].key, facts[at_the_door[i].fact]);
    add_value(b, HKY_EVENT_KEY_SIZE, (int64_t)m->size);
}

/* Adds the relays of the plan's steps, each followed by NUL. */
static void add_plan(struct hky_buf *b, const struct hky_plan *plan)
{
    char packed[TEXT_MOST];
    size_t n = 0;

    for (unsigned i = 0; i < plan->n_steps; i++) {
        size_t k = strlen(plan->steps[i].relay) + 1;
        if (k > sizeof packed - n)
            break;
        memcpy(packed + n, plan->steps[i].relay, k);
        n += k;
    }
    add_text(b, HKY_EVENT_KEY_PLAN, hky_str_of(packed, n));
}

static void add_recipient(struct hky_buf *b, const struct hky_event *ev)
{
    const struct hky_recipient *r = ev->recipient;

    add_text(b, HKY_EVENT_KEY_RCPT, hky_recipient_address(r));
    if (r->plan != NULL) {
        add_z(b, HKY_EVENT_KEY_ROUTE, r->plan->route);
        if (ev->kind == HKY_EVENT_ACCEPTED || ev->kind == HKY_EVENT_DECIDED || ev->kind == HKY_EVENT_UNPARKED)
            add_plan(b, r->plan);
        else
            add_value(b, HKY_EVENT_KEY_STEP, r->step + 1);
    }
    if (r->arms != NULL && r->arms_n <= TEXT_MOST) /* left out when too long, because cutting could leave half a pair */
        add_text(b, HKY_EVENT_KEY_ARMS, hky_str_of(r->arms, r->arms_n));
    if (ev->kind != HKY_EVENT_ACCEPTED)
        add_value(b, HKY_EVENT_KEY_ATTEMPTS, r->attempts);
}

static void add_outcome(struct hky_buf *b, const struct hky_outcome *o)
{
    const struct hky_reply *r = &o->reply;

    add_value(b, HKY_EVENT_KEY_CLASS, o->class);
    if (o->class != HKY_CLASS_OK)
        add_value(b, HKY_EVENT_KEY_SCOPE, o->scope);
    if (o->stage != HKY_STAGE_NONE)
        add_value(b, HKY_EVENT_KEY_STAGE, o->stage);
    if (r->code != 0)
        add_value(b, HKY_EVENT_KEY_CODE, r->code);
    if (r->enhanced[0] != 0)
        add_value(b, HKY_EVENT_KEY_ENHANCED,
                  (int64_t)r->enhanced[0] << 32 | (int64_t)r->enhanced[1] << 16 | r->enhanced_detail);
    add_text(b, HKY_EVENT_KEY_REPLY, hky_str_of(r->text, r->n));
    if (o->latency_ms > 0)
        add_value(b, HKY_EVENT_KEY_LATENCY, o->latency_ms);
}

void record_encode(const struct hky_event *ev, struct hky_buf *b)
{
    bool is_until = ev->kind == HKY_EVENT_RELAY_PAUSED || ev->kind == HKY_EVENT_RELAY_DRAINED;

    hky_buf_add_c(b, (char)ev->kind);
    hky_buf_add(b, &ev->at_ms, sizeof ev->at_ms);
    if (ev->message != NULL)
        add_message(b, ev);
    if (ev->recipient != NULL)
        add_recipient(b, ev);
    else
        add_z(b, HKY_EVENT_KEY_ROUTE, ev->route);
    add_z(b, HKY_EVENT_KEY_RELAY, ev->relay);
    add_z(b, HKY_EVENT_KEY_TO, ev->to);
    add_z(b, HKY_EVENT_KEY_ACCOUNT, ev->account);
    add_z(b, HKY_EVENT_KEY_MX, ev->mx);
    add_z(b, HKY_EVENT_KEY_FROM, ev->from);
    add_z(b, ev->kind == HKY_EVENT_REFUSED ? HKY_EVENT_KEY_SENDER : HKY_EVENT_KEY_ENVELOPE, ev->sender);
    add_z(b, HKY_EVENT_KEY_RCPT, ev->rcpt);
    add_z(b, HKY_EVENT_KEY_USER, ev->user);
    add_z(b, HKY_EVENT_KEY_CLIENT, ev->client);
    if (ev->outcome != NULL)
        add_outcome(b, ev->outcome);
    if (ev->next_at_ms > 0)
        add_value(b, is_until ? HKY_EVENT_KEY_UNTIL : HKY_EVENT_KEY_NEXT_AT, ev->next_at_ms);
    if (ev->delay_ms > 0)
        add_value(b, HKY_EVENT_KEY_DELAY, ev->delay_ms);
    add_z(b, HKY_EVENT_KEY_TEXT, ev->text);
}

/* An event ends at a key that this version does not know; the keys before it are used. */
bool record_decode(struct hky_str s, struct hky_event_view *v)
{
    const char *p = s.p, *end = s.p + s.n;

    v->has = 0;
    if (s.n < 9 || (unsigned char)p[0] >= HKY_EVENT_N)
        return false;
    v->kind = (enum hky_event_kind)(unsigned char)*p++;
    memcpy(&v->at_ms, p, 8);
    p += 8;
    while (end - p >= 3) {
        unsigned key = (unsigned char)*p++;
        uint16_t n;

        if (key >= HKY_EVENT_KEY_N)
            return true;
        v->text[key] = HKY_STR("");
        v->value[key] = 0;
        if ((texts >> key & 1) != 0) {
            memcpy(&n, p, sizeof n);
            if (n > end - p - 2)
                return false;
            v->text[key] = hky_str_of(p + 2, n);
            p += 2 + n;
        } else {
            if (end - p < 8)
                return false;
            memcpy(&v->value[key], p, 8);
            p += 8;
        }
        v->has |= UINT64_C(1) << key;
    }
    return p == end;
}

/* ---- a line of the event log ---- */

static void format_second(int64_t second, struct record_stamp *s)
{
    time_t t = (time_t)second;
    struct tm tm;

    if (s->text[0] != '\0' && s->second == second)
        return;
    s->second = second;
    gmtime_r(&t, &tm);
    strftime(s->text, sizeof s->text, "%Y-%m-%dT%H:%M:%S", &tm);
}

static void add_instant(struct hky_buf *b, struct record_stamp *s, int64_t at_ms)
{
    char ms[3];

    at_ms = at_ms < 0 ? 0 : at_ms;
    format_second(at_ms / 1000, s);
    hky_decimal_padded(ms, (uint64_t)(at_ms % 1000), 3);
    hky_buf_add_c(b, '"');
    hky_buf_add_z(b, s->text);
    hky_buf_add_c(b, '.');
    hky_buf_add(b, ms, sizeof ms);
    hky_buf_add(b, "Z\"", 2);
}

static void add_list(struct hky_buf *b, struct hky_str packed, bool is_pairs)
{
    struct hky_str item, value;
    bool is_first = true;

    hky_buf_add_c(b, is_pairs ? '{' : '[');
    for (size_t at = 0; hky_packed_next(packed, &at, &item) && (!is_pairs || hky_packed_next(packed, &at, &value));
         is_first = false) {
        if (!is_first)
            hky_buf_add_c(b, ',');
        hky_buf_add_json(b, item);
        if (!is_pairs)
            continue;
        hky_buf_add_c(b, ':');
        hky_buf_add_json(b, value);
    }
    hky_buf_add_c(b, is_pairs ? '}' : ']');
}

/* Adds a constant of this program, which needs no escaping. */
static void add_name(struct hky_buf *b, const char *name)
{
    hky_buf_add_c(b, '"');
    hky_buf_add_z(b, name);
    hky_buf_add_c(b, '"');
}

static void add_enhanced(struct hky_buf *b, int64_t v)
{
    hky_buf_add_c(b, '"');
    hky_buf_add_decimal(b, v >> 32 & 0xffff);
    hky_buf_add_c(b, '.');
    hky_buf_add_decimal(b, v >> 16 & 0xffff);
    hky_buf_add_c(b, '.');
    hky_buf_add_decimal(b, v & 0xffff);
    hky_buf_add_c(b, '"');
}

static void add_one(struct hky_buf *b, const struct hky_event_view *v, unsigned key)
{
    char id[HKY_ID_TEXT];
    struct record_stamp other = {0};
    int64_t n = v->value[key];

    switch ((enum type)types[key]) {
    case TEXT:
        hky_buf_add_json(b, v->text[key]);
        break;
    case LIST:
        add_list(b, v->text[key], false);
        break;
    case PAIRS:
        add_list(b, v->text[key], true);
        break;
    case NUMBER:
        hky_buf_add_decimal(b, n);
        break;
    case TIME:
        add_instant(b, &other, n);
        break;
    case ID:
        hky_id_format((uint64_t)n, id);
        add_name(b, id);
        break;
    case CLASS:
        add_name(b, hky_class_name((enum hky_class)n));
        break;
    case SCOPE:
        add_name(b, hky_scope_name((enum hky_scope)n));
        break;
    case STAGE:
        add_name(b, hky_stage_name((enum hky_stage)n));
        break;
    case ENHANCED:
        add_enhanced(b, n);
    }
}

/* This does not use base/json.h, because every message has two or three lines: keys made at compile time, with their
 * comma and quotes, save 54 ns of 237 for the line of a delivery (-O2, CPU time of 1,000,000 lines, five times). Both
 * escape with the same function. */
void record_format_line(const struct hky_event_view *v, struct record_stamp *stamp, struct hky_buf *b)
{
    static const struct hky_str keys[] = {
#define X(id, name, type) {",\"" name "\":", sizeof ",\"" name "\":" - 1},
        HKY_EVENT_KEYS(X)
#undef X
    };

    hky_buf_add_z(b, "{\"ev\":\"");
    hky_buf_add_z(b, hky_event_name(v->kind));
    hky_buf_add_z(b, "\",\"number\":");
    hky_buf_add_decimal(b, (int64_t)v->number);
    hky_buf_add_z(b, ",\"time\":");
    add_instant(b, stamp, v->at_ms);
    for (uint64_t has = v->has; has != 0; has &= has - 1) {
        unsigned key = (unsigned)__builtin_ctzll(has);
        hky_buf_add_str(b, keys[key]);
        add_one(b, v, key);
    }
    hky_buf_add(b, "}\n", 2);
}

static const char *const kind_names[] = {
#define X(id, name, doc) name,
    HKY_EVENTS(X)
#undef X
};

const char *hky_event_name(enum hky_event_kind k)
{
    return (unsigned)k < HKY_EVENT_N ? kind_names[k] : "?";
}
