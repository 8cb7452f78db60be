/* A sender and its server for bench/network.py: one static binary that runs in every runtime's container.
 *
 *     stream serve PORT               swallows what connections that begin with 's' send, echoes those with 'e'
 *     stream send ADDRESS PORT SECS   prints bytes a second, as 128 KiB writes (iperf3's size) get them through
 *     stream turn ADDRESS PORT COUNT  prints microseconds of a one-byte round trip
 *
 * What is sent in bulk goes by "reno", the one congestion control that every namespace lets everyone choose: the
 * default may be bbr, which paces what it sends by its own estimates, so that a rate says more of those than of the path.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char block[128 * 1024];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int connection(const char *address, int port, char kind)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, address, &to.sin_addr);
    if (kind == 's' && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) {
        perror("TCP_CONGESTION");
        exit(1);
    }
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
        perror("connect");
        exit(1);
    }
    if (kind == 'e') /* with it, a packet ends with every write, however full it is */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (write(fd, &kind, 1) != 1)
        exit(1);
    return fd;
}

static void answer(int fd)
{
    char kind;
    ssize_t size;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (read(fd, &kind, 1) != 1)
        return;
    if (kind == 's')
        while (read(fd, block, sizeof block) > 0)
            ;
    else
        while ((size = read(fd, block, 1)) > 0)
            if (write(fd, block, size) != size)
                return;
}

static int serve(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd, server = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (struct sockaddr *)&at, sizeof at) || listen(server, 16))
        return 1;
    while ((fd = accept(server, NULL, NULL)) >= 0) {
        if (!fork()) {
            answer(fd);
            _exit(0);
        }
        close(fd);
    }
    return 1;
}

int main(int argc, char **argv)
{
    double start, end, sent = 0;
    int fd, turns;
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve(atoi(argv[2]));
    if (argc != 5)
        return 2;
    if (!strcmp(argv[1], "send")) {
        fd = connection(argv[2], atoi(argv[3]), 's');
        start = now();
        end = start + atof(argv[4]);
        while (now() < end) {
            ssize_t size = write(fd, block, sizeof block);
            if (size < 0)
                return 1;
            sent += size;
        }
        printf("%.0f\n", sent / (now() - start));
        return 0;
    }
    turns = atoi(argv[4]);
    fd = connection(argv[2], atoi(argv[3]), 'e');
    start = now();
    for (int i = 0; i < turns; i++)
        if (write(fd, block, 1) != 1 || read(fd, block, 1) != 1)
            return 1;
    printf("%.3f\n", (now() - start) / turns * 1e6);
    return 0;
}
