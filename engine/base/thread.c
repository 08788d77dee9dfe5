#include "base/thread.h"

#include <signal.h>

int hky_thread_start(pthread_t *out, void *(*run)(void *), void *arg)
{
    sigset_t asked, before;
    int rc;

    sigemptyset(&asked);
    sigaddset(&asked, SIGHUP);
    sigaddset(&asked, SIGINT);
    sigaddset(&asked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &asked, &before); /* a thread inherits the mask of the thread that makes it */
    rc = pthread_create(out, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}
