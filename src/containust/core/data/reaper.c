/*
 * Runs one program, passes signals on to it, waits for every process that is left to it, and ends as the program does.
 *
 *     reaper PATH ARGV0 [ARGUMENT...]
 *
 * Exit status: the program's; 128 + N when signal N ended it; 126 or 127 when it cannot be executed.
 *
 * As PID 1 it is that of a container with `init = true`. Otherwise it is above what joins a container, a probe or a
 * program of exec, whose orphans would be left to a PID 1 that need not wait for them. Descriptor 3 is then a socket:
 * "R" tells that the program runs, a report as runtime/launch.py makes them that it does not, and "S" with a status
 * that the program has ended and left others behind, for whose ends this process stays.
 *
 * It is freestanding: no library, no memory but its stack, so one small file serves every image. Build, for each
 * architecture, with a compiler of it:
 *
 *     cc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie \
 *        -Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,-s -o reaper-$(uname -m) reaper.c
 */

#include "call.h"

#define SIG_SETMASK 2
#define SIGCHLD 17
#define WNOHANG 1
#define ENOENT 2
#define ENOTDIR 20
#define SIGKILL 9
#define LEFT 63 /* the signal by which the kernel tells that the other end of the socket is dead */
#define ECHILD 10
#define TIOCSPGRP 0x5410
#define CLONE_VFORK 0x4000
#define F_SETFD 2
#define FD_CLOEXEC 1
#define PR_SET_PDEATHSIG 1
#define PR_SET_DUMPABLE 4
#define PR_SET_CHILD_SUBREAPER 36
#define CHANNEL 3

#if defined(__x86_64__)
#define NR_write 1
#define NR_close 3
#define NR_rt_sigaction 13
#define NR_rt_sigprocmask 14
#define NR_ioctl 16
#define NR_getpid 39
#define NR_clone 56
#define NR_execve 59
#define NR_wait4 61
#define NR_kill 62
#define NR_fcntl 72
#define NR_setpgid 109
#define NR_rt_sigtimedwait 128
#define NR_prctl 157
#define NR_exit_group 231
#elif defined(__aarch64__)
#define NR_fcntl 25
#define NR_ioctl 29
#define NR_close 57
#define NR_write 64
#define NR_exit_group 94
#define NR_kill 129
#define NR_rt_sigaction 134
#define NR_rt_sigprocmask 135
#define NR_rt_sigtimedwait 137
#define NR_setpgid 154
#define NR_prctl 167
#define NR_getpid 172
#define NR_clone 220
#define NR_execve 221
#define NR_wait4 260
#endif

static void end(long status)
{
    for (;;)
        call(NR_exit_group, status, 0, 0, 0, 0);
}

static void caught(void)
{
}

/* Says in /proc that signals are heeded, which whoever stops a container reads there. They are blocked, so the handler
   never runs; while they are waited for, /proc does not show them as blocked. */
static void show_as_caught(void)
{
    unsigned long action[4] = {(unsigned long)caught, 0, 0, 0};
    long number;

    for (number = 1; number <= 64; number++)
        call(NR_rt_sigaction, number, (long)action, 0, 8, 0);
}

static void program(char **words, char **environment, int first)
{
    unsigned long none = 0;
    char report[9] = {'e', 'x', 'e', 'c'};
    int group;
    long error;

    if (first) {
        /* A group of its own, in front of the terminal where there is one: a key then signals the program once, not
           once more through us. All signals are blocked still, so becoming the foreground cannot stop us. */
        call(NR_setpgid, 0, 0, 0, 0, 0);
        group = (int)call(NR_getpid, 0, 0, 0, 0, 0);
        call(NR_ioctl, 0, TIOCSPGRP, (long)&group, 0, 0);
    } else {
        call(NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        call(NR_fcntl, CHANNEL, F_SETFD, FD_CLOEXEC, 0, 0);
    }
    call(NR_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8, 0);
    error = call(NR_execve, (long)words[1], (long)(words + 2), (long)environment, 0, 0);
    if (!first) {
        report[5] = '0' + -error / 100 % 10;
        report[6] = '0' + -error / 10 % 10;
        report[7] = '0' + -error % 10;
        call(NR_write, CHANNEL, (long)report, 9, 0, 0);
    }
    end(error == -ENOENT || error == -ENOTDIR ? 127 : 126);
}

/* The stack as the kernel leaves it: argc, argv, 0, environment, 0. */
__attribute__((used)) void start(long *stack)
{
    char **words = (char **)(stack + 1);
    char **environment = words + stack[0] + 1;
    unsigned long all = ~0UL;
    int information[32]; /* of a signal: its number, an error, where it comes from */
    char ended[2] = {'S', 0};
    long child, pid, number;
    int first, status, over = 0;

    if (stack[0] < 3)
        end(126);
    call(NR_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, 8, 0);
    first = call(NR_getpid, 0, 0, 0, 0, 0) == 1;
    if (!first) {
        call(NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        call(NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
        call(NR_prctl, PR_SET_PDEATHSIG, LEFT, 0, 0, 0);
    }
    child = call(NR_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
    if (child < 0)
        end(126);
    if (child == 0)
        program(words, environment, first);
    if (first) {
        show_as_caught();
    } else {
        call(NR_write, CHANNEL, (long)"R", 1, 0, 0);
        for (number = 0; number < CHANNEL; number++) /* whoever reads the program's output waits for its end */
            call(NR_close, number, 0, 0, 0, 0);
    }
    for (;;) {
        number = call(NR_rt_sigtimedwait, (long)&all, (long)information, 0, 8, 0);
        if (number == LEFT && !first) {
            if (!over)
                call(NR_kill, child, SIGKILL, 0, 0, 0);
        } else if (number != SIGCHLD) {
            /* What a terminal sends, which is not from a process, its whole foreground gets. */
            if (number > 0 && !over && (first || information[2] <= 0))
                call(NR_kill, child, number, 0, 0, 0);
            continue;
        }
        while ((pid = call(NR_wait4, -1, (long)&status, WNOHANG, 0, 0)) > 0) {
            if (pid != child)
                continue;
            over = 1;
            ended[1] = status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff;
            if (first)
                end((unsigned char)ended[1]);
        }
        if (over && pid == -ECHILD)
            end((unsigned char)ended[1]);
        if (over == 1) {
            over = 2;
            call(NR_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
            call(NR_write, CHANNEL, (long)ended, 2, 0, 0);
        }
    }
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call start\n");
#else
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n bl start\n");
#endif
