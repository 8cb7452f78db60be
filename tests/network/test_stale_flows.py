"""A UDP client that keeps its source port reaches what a published port leads to now."""

from __future__ import annotations

import json
import subprocess
import sys

from harness import PYTHON, Ctst

ECHO = (
    "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 53))\n"
    "while True:\n  data, who = s.recvfrom(100)\n  s.sendto(b'{}', who)"
)
# One socket for its whole life. Each line it reads is a question; it prints the answer, or "none" after 0.5 s.
CLIENT = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 40000))
s.settimeout(0.5)
for _ in sys.stdin:
    answer = "none"
    for attempt in range(10 if "patient" in _ else 1):
        try:
            s.sendto(b"question", ("127.0.0.1", 5353))
            answer = s.recv(100).decode()
            break
        except OSError:
            pass
    print(answer, flush=True)
"""


def stack(name: str) -> str:
    return f"""
        COMPONENT {name} {{
            image = "{PYTHON}"
            command = ["/usr/bin/python3", "-c", {json.dumps(ECHO.format(name))}]
            port = 53
        }}
        EXPOSE 5353:53/udp -> {name}
    """


def test_a_client_that_asked_too_early_and_one_whose_server_was_replaced(ctst: Ctst) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=ctst.enter,  # noqa: PLW1509
    )
    assert client.stdin and client.stdout

    def ask(how: str) -> str:
        assert client.stdin and client.stdout
        client.stdin.write(f"{how}\n")
        client.stdin.flush()
        return client.stdout.readline().strip()

    try:
        # Somebody translates addresses on this host already, so that its flows are tracked before ours are.
        ctst.ok("run", "-d", str(ctst.write(stack("other").replace("5353", "5454"), "other.ctst")))
        assert ask("once") == "none"
        ctst.ok("run", "-d", str(ctst.write(stack("first"))))
        assert ask("patient") == "first"
        ctst.ok("run", "-d", str(ctst.write(stack("second"))))
        assert ask("patient") == "second"
    finally:
        client.stdin.close()
        client.wait(10)
        client.stdout.close()
