"""Linux primitives: system calls, namespaces, cgroups, mounts, capabilities, seccomp, netlink.

Knows nothing of images or compositions.
"""
