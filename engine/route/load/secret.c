/* Reads secrets. That happens neither while a policy is loaded nor on a loop. */
#include "route/load/secret.h"

#include "base/buf.h"
#include "base/clock.h"
#include "route/load/loader.h"
#include "route/table/foreign.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECRET_MAX 65536
#define ENDED_MS   5  /* between two checks whether a command has ended */
#define CHECK_MS   50 /* between two checks whether somebody still wants the secret */

/* How long a read may wait: until a moment, and no longer once *is_over is true. */
struct patience {
    int64_t most_ms, end_ms;
    const atomic_bool *is_over; /* NULL: it never is */
};

extern char **environ;

/* The octets without the final line end, and without the byte order mark that some editors put in front of UTF-8. */
static struct hky_secret *secret_of(char *p, size_t n)
{
    struct hky_str text;

    while (n > 0 && (p[n - 1] == '\n' || p[n - 1] == '\r'))
        n--;
    text = hky_utf8_unmarked(hky_str_of(p, n));
    return hky_secret_new(text);
}

static enum hky_err may_wait(const struct patience *w, struct hky_error *e)
{
    if (hky_mono_ms() >= w->end_ms)
        return hky_error_set(e, HKY_E_TIMEOUT, "took longer than %g s", (double)w->most_ms / 1000);
    if (w->is_over != NULL && atomic_load(w->is_over))
        return hky_error_set(e, HKY_E_STATE, "given up: the engine stops");
    return HKY_OK;
}

static enum hky_err read_fd(int fd, const struct patience *w, char buf[SECRET_MAX + 1], size_t *n, struct hky_error *e)
{
    *n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        enum hky_err err = may_wait(w, e);
        ssize_t got;
        if (err != HKY_OK)
            return err;
        if (poll(&p, 1, CHECK_MS) < 0 && errno != EINTR)
            return hky_error_sys(e, HKY_E_IO, errno, "poll");
        if (p.revents == 0)
            continue;
        got = read(fd, buf + *n, SECRET_MAX + 1 - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hky_error_sys(e, HKY_E_IO, errno, "cannot read it");
        if (got == 0)
            return HKY_OK;
        *n += (size_t)got;
        if (*n > SECRET_MAX)
            return hky_error_set(e, HKY_E_LIMIT, "more than %d octets", SECRET_MAX);
    }
}

/* Wait until the command has ended: it may close its output and live on. */
static enum hky_err wait_until(pid_t pid, const struct patience *w, int *status, struct hky_error *e)
{
    pid_t ended;
    enum hky_err err;

    while ((ended = waitpid(pid, status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if ((err = may_wait(w, e)) != HKY_OK)
            return err;
        poll(NULL, 0, ENDED_MS);
    }
    return HKY_OK;
}

static enum hky_err run_command(const char *name, const char *const *argv, const struct patience *w,
                                char buf[SECRET_MAX + 1], size_t *n, struct hky_error *e)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    int out[2], status = 0, rc;
    pid_t pid;
    struct hky_error why = {0};
    enum hky_err err;

    if (pipe2(out, O_CLOEXEC) != 0)
        return hky_error_sys(e, HKY_E_IO, errno, "secret \"%s\": pipe", name);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawnattr_init(&attr);
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    rc = posix_spawnp(&pid, argv[0], &actions, &attr, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    close(out[1]);
    if (rc != 0) {
        close(out[0]);
        return hky_error_sys(e, HKY_E_MISSING, rc, "secret \"%s\": cannot run %.80s", name, argv[0]);
    }
    err = read_fd(out[0], w, buf, n, &why);
    close(out[0]);
    if (err == HKY_OK)
        err = wait_until(pid, w, &status, &why);
    if (err != HKY_OK) {
        kill(-pid, SIGKILL); /* the command has a process group of its own, so its children are killed, too */
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        return hky_error_set(e, err, "secret \"%s\": %.80s: %s", name, argv[0], why.text);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return hky_error_set(e, HKY_E_DENIED, "secret \"%s\": %.80s ended with status %d", name, argv[0],
                             WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return HKY_OK;
}

static enum hky_err read_file(const char *path, bool owner_only, const struct patience *w, char buf[SECRET_MAX + 1],
                              size_t *n, struct hky_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    struct hky_error why;
    enum hky_err err;

    if (fd < 0 && errno == EACCES)
        return hky_error_set(e, HKY_E_DENIED,
                             "%.150s may not be read by this user: run as its owner, chown it, or have systemd pass it "
                             "(LoadCredential)",
                             path);
    if (fd < 0)
        return hky_error_sys(e, errno == ENOENT || errno == ENOTDIR ? HKY_E_MISSING : HKY_E_DENIED, errno, "%s", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        err = hky_error_set(e, HKY_E_DENIED, "%.150s is not a regular file", path);
    else if (owner_only && (st.st_mode & 077) != 0)
        err = hky_error_set(e, HKY_E_DENIED, "%.150s can be read by others: chmod 600 it", path);
    else if (owner_only && st.st_uid != geteuid() && geteuid() != 0)
        err = hky_error_set(e, HKY_E_DENIED, "%.150s belongs to another user: chown it to the user that runs hikyaku",
                            path);
    else if ((err = read_fd(fd, w, buf, n, &why)) != HKY_OK)
        hky_error_set(e, err, "%.150s: %s", path, why.text);
    close(fd);
    return err;
}

/* HIKYAKU_SECRET_NAME: upper case, other characters as _ */
static void environment_key(const char *name, char key[160])
{
    size_t n = (size_t)snprintf(key, 160, "HIKYAKU_SECRET_");

    for (; *name != 0 && n < 159; name++)
        key[n++] = isalnum((unsigned char)*name) ? (char)toupper((unsigned char)*name) : '_';
    key[n] = 0;
}

static enum hky_err read_named_secret(const struct hky_policy *p, const struct hky_secret_ref *ref,
                                      const struct patience *w, char buf[SECRET_MAX + 1], size_t *n,
                                      struct hky_error *e)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY"), *value;
    char path[PATH_MAX], key[160];
    enum hky_err err;

    environment_key(ref->name, key);
    value = getenv(key);
    if (value != NULL) {
        if (strlen(value) > SECRET_MAX)
            return hky_error_set(e, HKY_E_LIMIT, "$%.160s has more than %d octets", key, SECRET_MAX);
        *n = strlen(value);
        memcpy(buf, value, *n);
        return HKY_OK;
    }
    if (folder != NULL && (size_t)snprintf(path, sizeof path, "%s/%s", folder, ref->name) < sizeof path) {
        err = read_file(path, false, w, buf, n, e);
        if (err != HKY_E_MISSING)
            return err;
    }
    if ((size_t)snprintf(path, sizeof path, "%s/secrets/%s", p->dir, ref->name) >= sizeof path)
        return hky_error_set(e, HKY_E_LIMIT, "secret \"%s\": the path is too long", ref->name);
    err = read_file(path, true, w, buf, n, e);
    if (err == HKY_E_MISSING) {
        char near[HKY_SUGGESTION], secrets[PATH_MAX];
        snprintf(secrets, sizeof secrets, "%s/secrets", p->dir);
        hky_loader_suggest_file(secrets, ref->name, near);
        return hky_error_set(
            e, err,
            "secret \"%.40s\" is missing%.40s (Hikyaku looked for $%.50s, $CREDENTIALS_DIRECTORY/%.40s "
            "and %.80s)",
            ref->name, near, key, ref->name, path);
    }
    return err;
}

enum hky_err hky_secret_read(const struct hky_policy *p, const struct hky_secret_ref *ref, int64_t most_ms,
                             const atomic_bool *is_over, struct hky_secret **out, struct hky_error *e)
{
    const struct patience w = {most_ms, hky_mono_ms() + most_ms, is_over};
    char *buf;
    size_t n = 0;
    enum hky_err err;

    *out = NULL;
    if (ref->literal != NULL) {
        *out = hky_secret_new(hky_str_z(ref->literal));
        return HKY_OK;
    }
    if (ref->name == NULL)
        return hky_error_set(e, HKY_E_MISSING, "no secret is named");
    buf = hky_alloc(SECRET_MAX + 1);
    err = ref->command != NULL ? run_command(ref->name, ref->command, &w, buf, &n, e)
                               : read_named_secret(p, ref, &w, buf, &n, e);
    if (err == HKY_OK) {
        struct hky_secret *s = secret_of(buf, n);
        if (hky_secret_value(s).n == 0) {
            hky_secret_unref(&s);
            err = hky_error_set(e, HKY_E_SYNTAX, "secret \"%s\" is empty: write the password into it", ref->name);
        }
        *out = s;
    }
    hky_secret_wipe(buf, SECRET_MAX + 1);
    free(buf);
    return err;
}

enum hky_err hky_policy_read_secret(const struct hky_policy *p, const struct hky_secret_ref *ref,
                                    struct hky_secret **out, struct hky_error *e)
{
    return hky_secret_read(p, ref, HKY_SECRET_MOST_MS, NULL, out, e);
}

enum hky_err hky_policy_read_secret_unless(const struct hky_policy *p, const struct hky_secret_ref *ref,
                                           const atomic_bool *is_over, struct hky_secret **out, struct hky_error *e)
{
    return hky_secret_read(p, ref, HKY_SECRET_MOST_MS, is_over, out, e);
}

struct secret_check {
    const struct hky_policy *policy;
    void (*lacking)(void *ctx, const struct hky_lacking_secret *s);
    void *ctx;
};

/* Was the secret probably typed or pasted wrongly? Then `out` says how, without showing any of it. */
static bool looks_wrong(struct hky_str value, const char *name, char out[HKY_FOREIGN_TEXT])
{
    if (hky_foreign_find(value, HKY_FOREIGN_EXACT).kind != HKY_FOREIGN_NONE)
        snprintf(out, HKY_FOREIGN_TEXT,
                 "secret \"%.96s\" has a full-width, curly or invisible character: type it again", name);
    else if (memchr(value.p, '\n', value.n) != NULL)
        snprintf(out, HKY_FOREIGN_TEXT, "secret \"%.96s\" has several lines, all of which are sent", name);
    else if (hky_str_trim(value).n < value.n)
        snprintf(out, HKY_FOREIGN_TEXT, "secret \"%.96s\" has a blank at one end, which is sent as it is", name);
    else
        return false;
    return true;
}

static void check_secret(const struct secret_check *k, const struct hky_secret_ref *ref, struct hky_place place,
                         const char *what, const char *name)
{
    struct hky_secret *s = NULL;
    struct hky_error e;
    char of[160], text[sizeof e.text + HKY_FOREIGN_TEXT], wrong[HKY_FOREIGN_TEXT], near[HKY_SUGGESTION] = "";
    char secrets[PATH_MAX];
    struct hky_lacking_secret lacking = {.place = place, .name = ref->name, .of = of, .text = text, .near = near};
    bool is_fine;

    if (ref->name == NULL || ref->command != NULL)
        return;
    lacking.err = hky_policy_read_secret(k->policy, ref, &s, &e);
    is_fine = lacking.err == HKY_OK && !looks_wrong(hky_secret_value(s), ref->name, wrong);
    hky_secret_unref(&s);
    if (is_fine)
        return;
    snprintf(secrets, sizeof secrets, "%s/secrets", k->policy->dir);
    if (lacking.err == HKY_E_MISSING)
        hky_loader_suggest_file(secrets, ref->name, near);
    snprintf(of, sizeof of, "%s \"%.100s\"", what, name);
    snprintf(text, sizeof text, "%s: %s", of, lacking.err == HKY_OK ? wrong : e.text);
    k->lacking(k->ctx, &lacking);
}

void hky_policy_check_secrets(const struct hky_policy *p,
                              void (*lacking)(void *ctx, const struct hky_lacking_secret *s), void *ctx)
{
    const struct secret_check k = {p, lacking, ctx};

    for (uint32_t i = 0; i < p->engine.n_listen; i++) {
        const struct hky_listen *l = &p->engine.listen[i];
        for (uint32_t u = 0; u < l->n_users; u++)
            check_secret(&k, &l->users[u].password, l->place, "login", l->users[u].name);
    }
    for (uint32_t i = 0; i < p->n_relays && p->engine.redirect[0] == '\0'; i++) {
        const struct hky_relay *relay = &p->relays[i];
        check_secret(&k, &relay->password, relay->place, "relay", relay->name);
        check_secret(&k, &relay->oauth.client_secret, relay->place, "relay", relay->name);
        check_secret(&k, &relay->oauth.refresh, relay->place, "relay", relay->name);
    }
}
