/*
 * machine -- what the way into the kernel costs just now, in microseconds: a call that does nothing, a page that is
 * touched for the first time, 4 KB sent to and received from another socket of this machine, a switch between two
 * processes. Where a machine is shared these change by a factor of four within hours, and the CPU of a message with
 * them.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double call_us(void)
{
    const int n = 100000;
    double at = now_us();

    for (int i = 0; i < n; i++)
        (void)syscall(SYS_getppid);
    return (now_us() - at) / n;
}

static double fault_us(void)
{
    const size_t octets = 16u << 20, page = 4096;
    volatile char *p = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double at;

    if (p == MAP_FAILED)
        die("mmap");
    (void)madvise((void *)(size_t)p, octets, MADV_NOHUGEPAGE);
    at = now_us();
    for (size_t i = 0; i < octets; i += page)
        p[i] = 1;
    at = now_us() - at;
    munmap((void *)(size_t)p, octets);
    return at / (double)(octets / page);
}

static void connect_pair(int pair[2])
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof here;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || pair[0] < 0 || bind(listener, (struct sockaddr *)&here, n) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&here, &n) < 0 || connect(pair[0], (struct sockaddr *)&here, n) < 0 ||
        (pair[1] = accept(listener, NULL, NULL)) < 0)
        die("a pair of sockets");
    for (int i = 0; i < 2; i++)
        setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

/* There and back, as a dialogue is: answers carry the acknowledgements. */
static double loopback_us(void)
{
    const int n = 5000;
    char block[4096];
    int pair[2];
    double at;

    connect_pair(pair);
    memset(block, 'x', sizeof block);
    at = now_us();
    for (int i = 0; i < n; i++)
        for (int from = 0; from < 2; from++)
            if (send(pair[from], block, sizeof block, 0) != sizeof block ||
                recv(pair[!from], block, sizeof block, MSG_WAITALL) != sizeof block)
                die("loopback");
    at = now_us() - at;
    close(pair[0]);
    close(pair[1]);
    return at / n / 2;
}

static double switch_us(void)
{
    const int n = 5000;
    int pair[2];
    char c = 0;
    double at;
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || (child = fork()) < 0)
        die("fork");
    if (child == 0) {
        close(pair[0]);
        while (read(pair[1], &c, 1) == 1 && write(pair[1], &c, 1) == 1)
            continue;
        _exit(0);
    }
    close(pair[1]);
    at = now_us();
    for (int i = 0; i < n; i++)
        if (write(pair[0], &c, 1) != 1 || read(pair[0], &c, 1) != 1)
            die("switch");
    at = now_us() - at;
    close(pair[0]);
    waitpid(child, NULL, 0);
    return at / n / 2;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print_median(const char *name, double (*measure)(void))
{
    double took[ROUNDS];

    for (int i = 0; i < ROUNDS; i++)
        took[i] = measure();
    qsort(took, ROUNDS, sizeof *took, by_value);
    printf("%s\t%.3f\n", name, took[ROUNDS / 2]);
}

int main(void)
{
    print_median("a call that does nothing", call_us);
    print_median("a page fault", fault_us);
    print_median("4 KB sent and received on loopback", loopback_us);
    print_median("a switch between two processes", switch_us);
    return 0;
}
