/*
 * thread -- a thread beside the main one. It takes none of the signals that ask the program for something (SIGHUP,
 * SIGINT, SIGTERM): while the main thread holds them back they wait for it, and no other thread ends the process.
 */
#ifndef HKY_BASE_THREAD_H
#define HKY_BASE_THREAD_H

#include <pthread.h>

/* As pthread_create with the default attributes: 0, or why not (errno's numbers). */
int hky_thread_start(pthread_t *out, void *(*run)(void *), void *arg);

#endif
