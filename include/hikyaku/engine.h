/*
 * engine -- the whole program: starts the stages in order and stops them in reverse. One process can run a second
 * engine with another spool and other ports.
 */
#ifndef HIKYAKU_ENGINE_H
#define HIKYAKU_ENGINE_H

#include "base/clock.h"
#include "base/error.h"
#include "hikyaku/route.h"

struct hky_engine;
struct hky_engine_params {
    const char *policy_path;
    const char *spool; /* NULL: as the policy says */
    int log_fd;
    const char *log_level;   /* NULL: as the policy says */
    struct hky_clock *clock; /* NULL: real */
};
/* Loads the policy, opens the spool and binds the ports; no mail is taken yet. `problems` has those of the policy. On
 * an error nothing is left open, and `e` says what failed and what to do (HKY_E_CONFIG: see `problems`; HKY_E_EXISTS:
 * another engine has the spool, or a port is in use). */
enum hky_err hky_engine_new(const struct hky_engine_params *p, struct hky_engine **out, struct hky_problems *problems,
                            struct hky_error *e);
/* Runs until it is stopped. SIGHUP reloads; SIGTERM and SIGINT let attempts under way end first, a second one stops at
 * once. Returns after all workers have ended. SIGTERM and SIGINT stay blocked, and until hky_engine_free returns they
 * still count: after a second one the process ends within 5 s, even if the disk hangs. HKY_E_LIMIT: the system allows
 * no thread. */
enum hky_err hky_engine_run(struct hky_engine *engine, struct hky_error *e);
void hky_engine_stop(struct hky_engine *engine); /* while it runs; any thread */
void hky_engine_free(struct hky_engine **engine);

#endif
