/*
 * policy -- the policy as one immutable table, which `route` compiles from policy.lua and every stage reads. It is
 * counted; a reload makes a new one and swaps it in. Nothing here knows Lua: a function is known by its key
 * ("route/NAME/when").
 */
#ifndef HIKYAKU_POLICY_H
#define HIKYAKU_POLICY_H

#include "base/error.h"
#include "base/map.h"
#include "base/secret.h"
#include "hikyaku/outcome.h"
#include "hikyaku/plan.h"

#include <stdatomic.h>

enum hky_tls_mode { HKY_TLS_IMPLICIT, HKY_TLS_STARTTLS, HKY_TLS_OPPORTUNISTIC, HKY_TLS_NONE };
/* The values of `auth`. X(id, value in a policy, name on the wire, text in a listener's EHLO); the values between AUTO
 * and NONE are mechanisms. */
#define HKY_AUTHS(X)                                                                                                   \
    X(AUTO, "auto", "", "")                                                                                            \
    X(PLAIN, "plain", "PLAIN", " PLAIN")                                                                               \
    X(LOGIN, "login", "LOGIN", " LOGIN")                                                                               \
    X(CRAM_MD5, "cram-md5", "CRAM-MD5", "")                                                                            \
    X(SCRAM_SHA_256, "scram-sha-256", "SCRAM-SHA-256", " SCRAM-SHA-256")                                               \
    X(XOAUTH2, "xoauth2", "XOAUTH2", "")                                                                               \
    X(OAUTHBEARER, "oauthbearer", "OAUTHBEARER", "")                                                                   \
    X(NONE, "none", "", "")
enum hky_auth {
#define X(id, value, name, offered) HKY_AUTH_##id,
    HKY_AUTHS(X)
#undef X
        HKY_AUTH_N
};

struct hky_place { /* a line of a file of the policy */
    const char *file;
    uint32_t line;
};

/* A secret is only named when the policy is loaded; its value is read when it is first needed. */
struct hky_secret_ref {
    const char *name;           /* NULL = none */
    const char *const *command; /* NULL, or argv ended by NULL: its output is the secret */
    const char *literal;        /* a plain string written in the policy; check warns */
};

struct hky_cap {
    uint32_t n;
    uint32_t window_sec;
    bool counts_recipients; /* "N recipients/WINDOW" */
    bool is_spread;         /* windows up to an hour: also evenly within */
    const char *text;       /* as written, "10/min" */
};
#define HKY_CAPS_MAX 8

struct hky_relay_timeouts { /* milliseconds; RFC 5321 4.5.3.2 and facts */
    uint32_t connect_ms, greeting_ms, command_ms, data_ms, dot_ms;
};

struct hky_relay {
    const char *name;
    struct hky_place place;
    uint32_t index;     /* in policy->relays */
    const char *preset; /* "" none; the provider for the classifier */
    const char *host;   /* "" with is_mx */
    uint16_t port;
    bool is_mx; /* own delivery; port is for tests */
    enum hky_tls_mode tls;
    const char *ca;   /* PEM file, "" = the system's */
    uint64_t ca_hash; /* of the contents of `ca` when the policy was loaded */
    const char *pin;  /* SHA-256 of the certificate's public key, hex, "" none */
    const char *user; /* "" none */
    struct hky_secret_ref password;
    enum hky_auth auth;
    struct {
        const char *client, *token_url, *scope; /* "" none */
        struct hky_secret_ref client_secret, refresh;
        const char *const *token_command; /* NULL none; argv ended by NULL */
    } oauth;
    const char *from;            /* "" none */
    const char *const *sends_as; /* addresses, domains, "*"; ended by NULL; never NULL after loading */
    bool never_rewrite;          /* from = false */
    const char *envelope;        /* "" none; may hold {id} {rcpt} */
    struct hky_cap caps[HKY_CAPS_MAX];
    uint8_t n_caps;
    uint32_t connections; /* default 10 (own: per site), presets less */
    uint32_t messages_per_connection;
    uint32_t recipients_per_message;
    const char *hello;  /* EHLO name, "" = engine.hostname */
    const char *source; /* local address to connect from, "" any */
    bool overlap;
    bool is_localpart_raw; /* localpart = "raw" */
    bool is_paused;        /* by the policy */
    const char *instead;   /* name of the relay that all steps use, "" none */
    struct hky_relay_timeouts timeout;
    const char *account;    /* key of the account: "user@host:port" in lower case, for caps, pools, breakers */
    uint64_t settings_hash; /* of everything a connection depends on: connections with another hash are not reused */
};

struct hky_user { /* of a listener */
    const char *name;
    struct hky_secret_ref password;
    const char *const *scenarios; /* allowed; NULL = any. If there is exactly one, mail that names none gets it */
    const char *const *senders;   /* allowed envelope senders and authors: addresses, domains; NULL = any */
};
struct hky_cidr {
    uint8_t addr[16];
    uint8_t bits; /* of 128; IPv4 as v4-mapped */
};
enum hky_listen_tls { HKY_LISTEN_PLAIN, HKY_LISTEN_STARTTLS, HKY_LISTEN_IMPLICIT };
struct hky_listen {
    struct hky_place place;
    const char *addr; /* "127.0.0.1", "::1" */
    uint16_t port;
    enum hky_listen_tls tls;
    const char *cert, *key; /* PEM files, "" none */
    const struct hky_user *users;
    uint32_t n_users;
    const struct hky_cidr *allow;
    uint32_t n_allow;
    bool has_allow;
};

#define HKY_HEADER_MOST (512u << 10) /* octets of a header section, which is kept in memory as a whole */
struct hky_bounds {                  /* engine.bounds; defaults from facts/reliability.md 2.10 */
    uint32_t line_octets;            /* command line 2048 */
    uint32_t recipients;             /* per message 1000 */
    uint32_t header_octets;          /* 256 KiB; at most HKY_HEADER_MOST */
    uint32_t header_lines;           /* 1000 */
    uint32_t received;               /* 50 */
    uint32_t connections;            /* 2000 */
    uint32_t connections_per_client; /* 200 */
    uint32_t errors;                 /* 20 */
    uint32_t auth_tries;             /* 3 */
    uint32_t hosts;                  /* hosts tried in one attempt: 5; at most 20 */
    uint64_t body_memory;            /* 256 MiB */
    uint64_t spool_max;              /* 0 = no bound */
    uint64_t min_free;               /* 256 MiB */
    uint64_t segment_octets;         /* 0 = the journal's default; tests use small ones */
    uint32_t cold_after_ms;          /* 0 = the journal's default */
    uint32_t lua_instructions;       /* 100000 per call */
    uint32_t lua_ms;                 /* 5 per call */
    uint64_t lua_memory;             /* 64 MiB per worker */
    uint32_t lookup_ms;              /* 10 s for one look-up of the policy */
    uint32_t mail_hosts;             /* 10000 domains remembered per worker */
    uint32_t command_ms, data_ms;    /* listener: 300 s each */
};

struct hky_policy;
struct hky_recipient;
struct hky_engine_options {
    struct hky_place place;
    const char *hostname;
    const char *spool; /* absolute */
    const struct hky_listen *listen;
    uint32_t n_listen;
    const char *http; /* "127.0.0.1:8025" or "" */
    const char *owner;
    const char *timezone;
    uint32_t workers;     /* 0 = cores - 1, at least 1 */
    const char *resolver; /* "127.0.0.1:5353" or "" = the system's */
    struct hky_retry retry;
    uint32_t expire_sec, parked_sec;
    uint64_t max_message;
    enum hky_dsn_mode dsn;
    const char *log;                                                            /* level */
    const char *redirect;                                                       /* "host:port" or "" */
    bool (*reaches)(const struct hky_policy *p, const struct hky_recipient *r); /* only_to; NULL = everyone */
    struct hky_bounds bounds;
};

struct hky_route_table; /* route's private part: conditions, index, function keys */

struct hky_policy {
    int refs;      /* atomic */
    uint64_t hash; /* of all files loaded: records name the policy that decided by it */
    int64_t loaded_at_ms;
    const char *path; /* absolute */
    const char *dir;  /* its folder, which holds secrets/ and to which relative paths refer */
    struct hky_engine_options engine;
    const struct hky_relay *relays;
    uint32_t n_relays;
    struct hky_map relay_by_name; /* name -> struct hky_relay * */
    const struct hky_class_rule *rules;
    uint32_t n_rules;
    struct hky_route_table *table;
};

/* Counted; any thread. The last unref frees it. */
struct hky_policy *hky_policy_ref(struct hky_policy *p);
void hky_policy_unref(struct hky_policy **p);
/* The relay of that name, or NULL. `instead` is not followed. */
const struct hky_relay *hky_policy_relay(const struct hky_policy *p, struct hky_str name);
/* Calls `each` for every scenario that routes, rows and logins name; it may be called several times for one name. */
void hky_policy_each_scenario(const struct hky_policy *p, void (*each)(void *ctx, const char *name), void *ctx);
/* The relay that serves a step of that name: `instead` is followed. */
const struct hky_relay *hky_policy_serving_relay(const struct hky_policy *p, struct hky_str name);

struct hky_lists_news {
    unsigned n_taken;         /* lists that changed */
    unsigned n_waiting;       /* files that changed and have not been still for long enough: look again soon */
    struct hky_error warning; /* HKY_OK: none; the first list that lost more than half of its entries */
    struct hky_error fewer;   /* HKY_OK: none; the first list that was taken with fewer entries, with the counts */
    struct hky_error error;   /* HKY_OK: none; the first file that cannot be read or has a bad line: its list stays */
};
/* Look at the files of the policy's lists, and read those again that changed and are complete; `mono_ms` is a clock
 * that never runs backwards. Blocks (files): call it every few seconds from a thread that may block, one caller at a
 * time. */
void hky_policy_refresh_lists(struct hky_policy *p, int64_t mono_ms, struct hky_lists_news *news);

/*
 * For a policy that will follow `before`, in force until now, and that nobody uses yet: its lists whose files may be
 * half written keep the entries that counted until now, and hky_policy_refresh_lists takes the files when they are
 * complete. Returns how many lists wait, and the name of the first, NULL when none does. `mono_ms` as there, `now_ms`
 * is the time of day, as files have it. Called by the caller of hky_policy_refresh_lists.
 */
unsigned hky_policy_succeed_lists(struct hky_policy *p, const struct hky_policy *before, int64_t mono_ms,
                                  int64_t now_ms, const char **first);

/* Read a secret now: $HIKYAKU_SECRET_NAME, $CREDENTIALS_DIRECTORY/name, secrets/name beside the policy (owner only),
 * or its command (no shell, 10 s, 64 KiB). May block, so never call it on a loop. The caller gets one reference.
 * HKY_E_MISSING: the text of `e` says where it was looked for; HKY_E_SYNTAX: it is empty; HKY_E_DENIED: its file is
 * readable by others. */
enum hky_err hky_policy_read_secret(const struct hky_policy *p, const struct hky_secret_ref *ref,
                                    struct hky_secret **out, struct hky_error *e);
/* The same, but it gives up (HKY_E_STATE) soon after *is_over became true, because a command may take 10 s. */
enum hky_err hky_policy_read_secret_unless(const struct hky_policy *p, const struct hky_secret_ref *ref,
                                           const atomic_bool *is_over, struct hky_secret **out, struct hky_error *e);

struct hky_lacking_secret {
    enum hky_err err; /* HKY_OK: it can be used but looks wrong; HKY_E_MISSING: it does not exist; else it may not or
                       * cannot be read, or is empty */
    struct hky_place place;
    const char *name;
    const char *of;   /* "relay \"x\"" */
    const char *text; /* "relay \"x\": secret ..." */
    const char *near; /* with HKY_E_MISSING: ", did you mean ...?", or "" */
};
/* Calls `lacking` for every secret of logins and relays that cannot be read now, or looks wrong. Secrets that a command
 * prints are left out, and so are those of relays when all mail is redirected. Blocks, as above. */
void hky_policy_check_secrets(const struct hky_policy *p,
                              void (*lacking)(void *ctx, const struct hky_lacking_secret *s), void *ctx);

#endif
