/*
 * PID 1 of a container with `init = true`: runs one program, passes signals on to it, waits for every
 * process that is left to it, and ends as the program does.
 *
 *     reaper PATH ARGV0 [ARGUMENT...]
 *
 * Exit status: the program's; 128 + N when signal N ended it; 126 or 127 when it cannot be executed.
 *
 * It is freestanding: no library, no memory but its stack, so one small file serves every image. Build, for each
 * architecture, with a compiler of it:
 *
 *     cc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie \
 *        -Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,-s -o reaper-$(uname -m) reaper.c
 */

#define SIG_SETMASK 2
#define SIGCHLD 17
#define WNOHANG 1
#define ENOENT 2
#define ENOTDIR 20
#define TIOCSPGRP 0x5410

#if defined(__x86_64__)
#define NR_rt_sigaction 13
#define NR_rt_sigprocmask 14
#define NR_ioctl 16
#define NR_getpid 39
#define NR_clone 56
#define NR_execve 59
#define NR_wait4 61
#define NR_kill 62
#define NR_setpgid 109
#define NR_rt_sigtimedwait 128
#define NR_exit_group 231
#elif defined(__aarch64__)
#define NR_ioctl 29
#define NR_exit_group 94
#define NR_kill 129
#define NR_rt_sigaction 134
#define NR_rt_sigprocmask 135
#define NR_rt_sigtimedwait 137
#define NR_setpgid 154
#define NR_getpid 172
#define NR_clone 220
#define NR_execve 221
#define NR_wait4 260
#endif

static long call(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
#endif
}

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

static void program(char **words, char **environment)
{
    unsigned long none = 0;
    int group;
    long error;

    /* A group of its own, in front of the terminal where there is one: a key then signals the program once, not once
       more through us. All signals are blocked still, so becoming the foreground cannot stop us. */
    call(NR_setpgid, 0, 0, 0, 0, 0);
    group = (int)call(NR_getpid, 0, 0, 0, 0, 0);
    call(NR_ioctl, 0, TIOCSPGRP, (long)&group, 0, 0);
    call(NR_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8, 0);
    error = call(NR_execve, (long)words[1], (long)(words + 2), (long)environment, 0, 0);
    end(error == -ENOENT || error == -ENOTDIR ? 127 : 126);
}

/* The stack as the kernel leaves it: argc, argv, 0, environment, 0. */
__attribute__((used)) void start(long *stack)
{
    char **words = (char **)(stack + 1);
    char **environment = words + stack[0] + 1;
    unsigned long all = ~0UL;
    long child, pid, number;
    int status;

    if (stack[0] < 3)
        end(126);
    call(NR_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, 8, 0);
    child = call(NR_clone, SIGCHLD, 0, 0, 0, 0);
    if (child < 0)
        end(126);
    if (child == 0)
        program(words, environment);
    show_as_caught();
    for (;;) {
        number = call(NR_rt_sigtimedwait, (long)&all, 0, 0, 8, 0);
        if (number != SIGCHLD) {
            if (number > 0)
                call(NR_kill, child, number, 0, 0, 0);
            continue;
        }
        while ((pid = call(NR_wait4, -1, (long)&status, WNOHANG, 0, 0)) > 0)
            if (pid == child)
                end(status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff);
    }
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call start\n");
#else
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n bl start\n");
#endif
