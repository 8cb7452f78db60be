/*
 * Makes a prepared sequence of system calls, without the interpreter (core/calls.py prepares it and says why).
 *
 * Not a program but position-independent code: core/calls.py maps it and calls what stands at its start and at byte 16,
 *
 *     0:   long make(struct sequence *)                         in the calling process: how many calls were made, at the
 *                                                               first that failed; 0 when all succeeded
 *     16:  long clone(struct clone_args *, size, struct sequence *, stack)     clone3(2), in whose child the sequence
 *                                                               is made; the child's process id, or an error below 0
 *
 * It is freestanding: no library, no memory but its stack and the sequence's. Build, for each architecture, with a
 * compiler of it:
 *
 *     cc -Os -nostdlib -ffreestanding -fpie -fno-stack-protector -fno-asynchronous-unwind-tables -fno-jump-tables \
 *        -static -Wl,--build-id=none,-z,noexecstack,-Ttext=0 -o calls.elf calls.c
 *     objcopy -O binary -j .text calls.elf calls-$(uname -m)
 */

#include "call.h"

#define ENOENT 2
#define ENOTDIR 20
#define AT_FDCWD -100
#define AT_EMPTY_PATH 0x1000
#define X_OK 1

#if defined(__x86_64__)
#define NR_read 0
#define NR_write 1
#define NR_execve 59
#define NR_exit_group 231
#define NR_faccessat 269
#define NR_execveat 322
#elif defined(__aarch64__)
#define NR_faccessat 48
#define NR_read 63
#define NR_write 64
#define NR_exit_group 94
#define NR_execve 221
#define NR_execveat 281
#endif
#define NR_fsconfig 431
#define NR_fsmount 432

/* What is no system call but done here. */
#define END -1
#define LOAD -2    /* the int at an address */
#define STORE -3   /* an int to an address */
#define COMPARE -4 /* the byte at an address with another: the third argument is the error when they differ */
#define EXECUTE -5 /* the first of several paths that is there; below a program already open, if there is one */
#define GO_ON -6   /* with what stands in `more` of the sequence by now */

#define ANY 0xffff

struct call {
    int number;
    unsigned short forgiven[2]; /* errors after which the sequence goes on */
    unsigned char result;       /* the slot that takes the result */
    unsigned char slots;        /* bit N: argument N is the number of a slot, whose value is meant */
    unsigned char after;        /* how many calls to pass over when this one succeeded */
    unsigned char otherwise;    /* the same, when its error was forgiven */
    int unused;
    long arguments[6];
};

struct sequence {
    const struct call *calls, *more;
    long channel;   /* where a child tells what failed */
    long slots[64]; /* slot 0 is nobody's */
    struct {
        int kind, made, error; /* kind is 0, what begins a report of the interpreter's is not */
        char text[244];        /* what a file system said of its options */
    } report;
    long length; /* of the report */
    long passed; /* how many calls there were before those of `more` */
};

/* execve(2) of the first candidate that is there, as a shell looks through PATH; with `above` that program is executed
   instead, and the candidate is its first argument. */
static long execute(char **candidates, char **arguments, char **environment, long above)
{
    long result, error = -ENOENT;
    char empty = 0;

    for (; *candidates; candidates++) {
        if (above < 0) {
            result = call(NR_execve, (long)*candidates, (long)arguments, (long)environment, 0, 0, 0);
        } else {
            result = call(NR_faccessat, AT_FDCWD, (long)*candidates, X_OK, 0, 0, 0);
            if (!result) {
                arguments[1] = *candidates;
                result = call(NR_execveat, above, (long)&empty, (long)arguments, (long)environment, AT_EMPTY_PATH, 0);
            }
        }
        if (result != -ENOENT && result != -ENOTDIR)
            error = result;
    }
    return error;
}

__attribute__((used)) long make_calls(struct sequence *sequence)
{
    const struct call *first = sequence->calls, *one;
    long argument[6], result, passed = 0;
    int position;

    for (one = first; one->number != END; one++) {
        for (position = 0; position < 6; position++)
            argument[position] = one->slots >> position & 1 ? sequence->slots[one->arguments[position]]
                                                            : one->arguments[position];
        if (one->number == LOAD) {
            result = *(int *)argument[0];
        } else if (one->number == STORE) {
            *(int *)argument[0] = argument[1];
            result = 0;
        } else if (one->number == COMPARE) {
            result = *(unsigned char *)argument[0] == argument[1] ? 0 : -argument[2];
        } else if (one->number == GO_ON) {
            passed = sequence->passed;
            first = sequence->more;
            one = first - 1;
            continue;
        } else if (one->number == EXECUTE) {
            result = execute((char **)argument[0], (char **)argument[1], (char **)argument[2], argument[3]);
        } else {
            result = call(one->number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
        }
        if (result < 0 && result > -4096) {
            if (one->forgiven[0] != ANY && -result != one->forgiven[0] && -result != one->forgiven[1]) {
                sequence->report.made = passed + (one - first);
                sequence->report.error = -result;
                sequence->length = 12;
                if (one->number == NR_fsconfig || one->number == NR_fsmount) {
                    result = call(NR_read, argument[0], (long)sequence->report.text, 244, 0, 0, 0);
                    if (result > 0)
                        sequence->length += result;
                }
                return sequence->report.made + 1;
            }
            one += one->otherwise;
        } else {
            sequence->slots[one->result] = result;
            one += one->after;
        }
    }
    return 0;
}

/* The child's whole life before it executes something, or ends. */
__attribute__((used)) void child_calls(struct sequence *sequence)
{
    make_calls(sequence);
    call(NR_write, sequence->channel, (long)&sequence->report, sequence->length, 0, 0, 0);
    for (;;)
        call(NR_exit_group, 125, 0, 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".section .text.startup,\"ax\"\n.globl _start\n_start:\n"
        "jmp make_calls\n"
        ".balign 16\n"
        "mov %rcx, %r9\n" /* the stack, which the call below keeps; it changes rcx and r11 */
        "mov %rdx, %r8\n"
        "mov $435, %eax\n"
        "syscall\n"
        "test %rax, %rax\n"
        "jz 1f\n"
        "ret\n"
        "1: xor %ebp, %ebp\n"
        "mov %r9, %rsp\n"
        "mov %r8, %rdi\n"
        "call child_calls\n");
#else
__asm__(".section .text.startup,\"ax\"\n.globl _start\n_start:\n"
        "b make_calls\n"
        ".balign 16\n"
        "mov x9, x2\n"
        "mov x10, x3\n"
        "mov x8, #435\n"
        "svc 0\n"
        "cbz x0, 1f\n"
        "ret\n"
        "1: mov x29, #0\n"
        "mov sp, x10\n"
        "mov x0, x9\n"
        "bl child_calls\n");
#endif
