/*
 * ctst, where a wheel is for one architecture: executes the interpreter beside this file with the script that does the
 * rest, as the first lines of that script do in a shell; half a millisecond quicker than the shell.
 *
 *     BIN/ctst ARGUMENT...   ->   BIN/python3 -I -S BIN/../share/containust/ctst ARGUMENT...
 *
 * BIN is where this file lies, behind symbolic links. Without an interpreter there, PATH's is taken. It is freestanding:
 * no library, no memory but its stack. Build, for each architecture, with a compiler of it:
 *
 *     cc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie \
 *        -Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,-s -o launcher-$(uname -m) launcher.c
 */

#include "../src/containust/core/data/call.h"

#define AT_FDCWD -100
#define LONGEST 4096 /* PATH_MAX */
#define SCRIPT "/../share/containust/ctst"
#define FAILED 127

#if defined(__x86_64__)
#define NR_write 1
#define NR_execve 59
#define NR_exit_group 231
#define NR_readlinkat 267
#elif defined(__aarch64__)
#define NR_write 64
#define NR_readlinkat 78
#define NR_exit_group 94
#define NR_execve 221
#endif

static char *append(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    *to = 0;
    return to;
}

static void execute(char *program, char **words, char **environment)
{
    words[0] = program;
    call(NR_execve, (long)program, (long)words, (long)environment, 0);
}

/* The stack as the kernel leaves it: argc, argv, 0, environment, 0. */
__attribute__((used)) void start(long *stack)
{
    long count = stack[0], length, position;
    char **given = (char **)(stack + 1);
    char **environment = given + count + 1;
    char *words[count + 4];
    char program[LONGEST + 64], script[LONGEST + 64], *end;
    const char *path = 0, *complaint = "ctst: no python3, neither beside this command nor in PATH\n";

    words[1] = "-I";
    words[2] = "-S";
    words[3] = script;
    for (position = 1; position <= count; position++)
        words[position + 3] = given[position];

    length = call(NR_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)program, LONGEST);
    if (length > 0) {
        while (program[length - 1] != '/')
            length--;
        program[length - 1] = 0;
        append(append(script, program), SCRIPT);
        append(program + length - 1, "/python3");
        execute(program, words, environment);

        for (position = 0; environment[position]; position++) {
            end = environment[position];
            if (end[0] == 'P' && end[1] == 'A' && end[2] == 'T' && end[3] == 'H' && end[4] == '=')
                path = end + 5;
        }
        while (path && *path) {
            for (end = program; *path && *path != ':' && end < program + LONGEST; path++)
                *end++ = *path;
            append(end, "/python3");
            execute(program, words, environment);
            while (*path && *path != ':')
                path++;
            if (*path)
                path++;
        }
    } else {
        complaint = "ctst: /proc is not mounted\n";
    }
    for (length = 0; complaint[length];)
        length++;
    call(NR_write, 2, (long)complaint, length, 0);
    for (;;)
        call(NR_exit_group, FAILED, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call start\n");
#else
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n bl start\n");
#endif
