"""What an ordinary user lacks is named with the command that mends it, by the start that fails and by `ctst doctor`."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from ordinary_user import NAME, User

from harness import BOX


def on_the_host(user: User, script: str) -> None:
    """Run a script as root of the user's host."""
    fds = f"--net=/proc/{os.getpid()}/fd/{user.network} --mount=/proc/{os.getpid()}/fd/{user.mounts}"
    subprocess.run(["nsenter", *fds.split(), "sh", "-ec", script], check=True)


def checks(user: User) -> dict[str, dict[str, str]]:
    found = json.loads(user("doctor", "--json").out)["checks"]
    return {check["name"]: check for check in found}


def hide(user: User, program: str) -> None:
    on_the_host(user, f"mount --bind /dev/null $(readlink -f $(command -v {program}))")


LACKS = {
    "no subordinate ids": ("> /etc/subuid; > /etc/subgid", f"usermod --add-subuids 100000-165535 {NAME}"),
    "too few": (f"echo {NAME}:500000:1000 > /etc/subuid", f"usermod --add-subuids 501000-566535 {NAME}"),
    "no newuidmap": ("mount --bind /dev/null /usr/bin/newuidmap", "apt-get install uidmap"),
    "no user namespaces": (
        "echo 0 > /tmp/zero-{pid}; mount --bind /tmp/zero-{pid} /proc/sys/user/max_user_namespaces; rm /tmp/zero-{pid}",
        "sysctl -w user.max_user_namespaces=15000",
    ),
}


@pytest.mark.parametrize("lack", LACKS)
def test_a_start_and_doctor_say_what_is_missing(user: User, lack: str) -> None:
    script, remedy = LACKS[lack]
    on_the_host(user, script.replace("{pid}", str(os.getpid())))
    done = user("run", "--rm", "--image", BOX, "--", "true")
    assert done.status == 3 and "S003" in done.err and f"as root: {remedy}" in done.err, done
    check = checks(user)["subordinate ids"]
    assert check["status"] == "fail"
    doctor = user("doctor")
    assert doctor.status == 1 and f"as root: {remedy}" in doctor.out
    user.clean()


def test_without_a_network_program_only_networks_are_refused(user: User) -> None:
    for program in ("pasta", "slirp4netns"):
        hide(user, program)
    assert user("run", "--rm", "--image", BOX, "--", "true").status == 0
    done = user("run", "--rm", "--network", "bridge", "--image", BOX, "--", "true")
    assert done.status == 3 and "neither pasta nor slirp4netns is installed" in done.err, done
    assert "apt-get install" in checks(user)["network program"]["help"]
    assert user.rows() == {}
    user.clean()


def test_a_closed_tun_device_is_named(user: User) -> None:
    on_the_host(user, "chmod 600 /dev/net/tun")
    done = user("run", "--rm", "--network", "bridge", "--image", BOX, "--", "true")
    assert done.status == 3 and "chmod 666 /dev/net/tun" in done.err, done
    assert checks(user)["network program"]["status"] == "fail"


def test_doctor_of_a_user_who_has_everything_passes_and_changes_nothing(user: User) -> None:
    before = sorted(user.home.rglob("*"))
    done = user("doctor")
    assert done.status == 0, done
    found = checks(user)
    assert {name for name, check in found.items() if check["status"] == "warn"} <= {"cgroups", "session", "landlock"}
    assert "R002" in found["cgroups"]["detail"]
    assert sorted(user.home.rglob("*")) == before
    assert not user.processes()


def test_a_setting_that_names_no_program_is_refused(user: User) -> None:
    env = {"CONTAINUST_ROOTLESS_NETWORK": "vpnkit"}
    done = user("run", "--rm", "--network", "bridge", "--image", BOX, "--", "true", env=env)
    assert done.status == 2 and "use pasta or slirp4netns" in done.err, done
