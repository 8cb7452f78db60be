"""Hosts files follow a stack that changes while it runs."""

from __future__ import annotations

from harness import BOX, Ctst, eventually

A = f"""
COMPONENT a {{
    image = "{BOX}"
    command = ["sleep", "1000"]
}}
"""
B = f"""
COMPONENT b {{
    image = "{BOX}"
    command = ["busybox", "httpd", "-f", "-p", "80"]
    port = 80
}}
"""
ELSEWHERE = f"""
COMPONENT c {{
    image = "{BOX}"
    command = ["sleep", "1000"]
    network = "other"
}}
"""


def test_running_containers_learn_who_comes_and_goes(ctst: Ctst) -> None:
    stack = str(ctst.write(A))
    ctst.ok("run", "-d", stack)
    pid = ctst.rows()["a"]["pid"]
    assert " b" not in ctst.ok("exec", "a", "cat", "/etc/hosts")

    ctst.write(A + B + ELSEWHERE)
    ctst.ok("run", "-d", stack)
    said = ctst.ok("exec", "a", "cat", "/etc/hosts")
    address = ctst.rows()["b"]["networks"]["bridge"]
    assert f"{address}\tb\n" in said
    assert "\tc\n" not in said, "a network of c's own"
    reach = "nc -w 5 b 80 </dev/null && echo reached"
    assert eventually(lambda: ctst("exec", "a", "sh", "-c", reach).out == "reached\n")

    ctst.write(A)
    ctst.ok("run", "-d", stack)
    assert "\tb\n" not in ctst.ok("exec", "a", "cat", "/etc/hosts")
    assert ctst.rows()["a"]["pid"] == pid, "it was not restarted for any of this"


def test_removing_one_by_hand_is_told_too(ctst: Ctst) -> None:
    ctst.ok("run", "-d", str(ctst.write(A + B)))
    assert "\tb\n" in ctst.ok("exec", "a", "cat", "/etc/hosts")
    ctst.ok("rm", "--force", "b")
    assert "\tb\n" not in ctst.ok("exec", "a", "cat", "/etc/hosts")
    ctst.ok("rm", "--force", "a")
    ctst.assert_clean()
