/* The floor: the least a container can be, in C. New namespaces, an overlay root, /proc, /dev, pivot_root, exec.
 *
 *   floor ROOTFS SCRATCH PROGRAM [ARGUMENT...]
 *
 * No user namespace, no seccomp, no capabilities, no cgroup, no device nodes: a real runtime does all that on top.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(1);
    }
}

static void inside(char **argv)
{
    char options[4096], upper[1024], work[1024], merged[1024];

    need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    need(mount("tmpfs", argv[2], "tmpfs", 0, NULL), "scratch");
    snprintf(upper, sizeof upper, "%s/upper", argv[2]);
    snprintf(work, sizeof work, "%s/work", argv[2]);
    snprintf(merged, sizeof merged, "%s/merged", argv[2]);
    need(mkdir(upper, 0755), upper);
    need(mkdir(work, 0755), work);
    need(mkdir(merged, 0755), merged);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], upper, work);
    need(mount("overlay", merged, "overlay", 0, options), "overlay");
    need(chdir(merged), merged);
    need(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
    need(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "dev");
    need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    need(umount2(".", MNT_DETACH), "umount2");
    need(chdir("/"), "chdir");
    need(sethostname("floor", 5), "sethostname");
    execv(argv[3], argv + 3);
    need(-1, argv[3]);
}

int main(int argc, char **argv)
{
    int status;
    pid_t pid;

    if (argc < 4) {
        fputs("usage: floor ROOTFS SCRATCH PROGRAM [ARGUMENT...]\n", stderr);
        return 2;
    }
    need(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET), "unshare");
    pid = fork();
    need(pid, "fork");
    if (pid == 0)
        inside(argv);
    need(waitpid(pid, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
