"""Single containers of an ordinary user: the same commands, the same walls, and files that belong to the user."""

from __future__ import annotations

import os
import pty
import signal
import time

import pytest
from ordinary_user import User

from harness import BOX, PYTHON, eventually, read


def start(user: User, *options: str, name: str = "one", script: str = "sleep 1000") -> int:
    user.ok("run", "-d", "--name", name, *options, "--image", BOX, "--", "sh", "-c", script)
    return int(user.rows()[name]["pid"])


def test_run_gives_output_and_status(user: User) -> None:
    done = user("run", "--rm", "--image", BOX, "--", "sh", "-c", "id -u; echo oops >&2; exit 7")
    assert (done.status, done.out, done.err) == (7, "0\n", "oops\n")
    user.clean()


def test_the_container_has_a_user_namespace_of_its_own_in_the_user_s_ids(user: User) -> None:
    pid = start(user)
    keeper, (supervisor,) = user.keeper(), user.supervisors()
    ids = read(f"/proc/{pid}/status")
    assert f"Uid:\t{user.uid}\t" in ids
    spaces = {
        kind: {os.readlink(f"/proc/{p}/ns/{kind}") for p in (keeper, supervisor, pid)} for kind in ("user", "mnt")
    }
    assert {kind: len(found) for kind, found in spaces.items()} == {"user": 3, "mnt": 3}
    for kind in ("pid", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{supervisor}/ns/{kind}")
    seen = [line.split() for line in user.ok("exec", "one", "cat", "/proc/self/uid_map").splitlines()]
    assert seen == [["0", "0", "1"], ["1", "1", "65535"]]


def test_walls_stand_as_for_root(user: User) -> None:
    start(user)
    status = user.ok("exec", "one", "cat", "/proc/self/status")
    assert "CapEff:\t00000000000004fb" in status and "CapBnd:\t00000000000004fb" in status
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    script = "mount -t tmpfs x /tmp; echo $?; cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic; echo $?; "
    script += "mknod /tmp/null c 1 3; echo $?; unshare -U true; echo $?; ls /sys/firmware | wc -l"
    done = user("exec", "one", "sh", "-c", script)
    assert done.out.split() == ["1", "0", "1", "1", "1", "0"], done
    assert user.rows()["one"]["state"] == "running"


def test_devices_work(user: User) -> None:
    script = "echo x > /dev/null; head -c 5 /dev/zero | wc -c; head -c 6 /dev/urandom | wc -c; "
    script += "echo y > /dev/full || echo full; ls /dev/pts | head -n1; echo shm > /dev/shm/a; cat /dev/shm/a"
    done = user("run", "--rm", "--image", BOX, "--", "sh", "-c", script)
    assert done.out.split() == ["5", "6", "full", "ptmx", "shm"], done


def test_exec_joins_as_any_user_and_passes_statuses_on(user: User) -> None:
    start(user)
    assert user.ok("exec", "-u", "33:34", "one", "sh", "-c", "id -u; id -g").split() == ["33", "34"]
    assert user("exec", "one", "sh", "-c", "exit 9").status == 9
    assert user("exec", "one", "sh", "-c", "kill -TERM $$").status == 143
    assert user("exec", "one", "not-there").status == 127
    assert user("exec", "one", "/etc/hosts").status == 126
    done = user("exec", "-i", "one", "cat", stdin=open("/etc/hostname", "rb"))
    assert done.out == read("/etc/hostname")


def test_what_a_killed_client_of_exec_has_run_ends(user: User) -> None:
    start(user)
    client = user.popen("exec", "one", "sleep", "4321")
    eventually(lambda: "sleep" in [read(f"/proc/{p}/comm").strip() for p in user.running("sleep 4321")])
    client.kill()
    client.communicate()
    eventually(lambda: not user.running("sleep 4321"))


def test_files_in_volumes_have_the_right_owners(user: User) -> None:
    script = "touch /data/root /here/root; touch /data/web /here/web; chown 33:33 /data/web /here/web; ls -ln /here"
    user.own("project/here")
    out = user.ok("run", "--rm", "-v", "data:/data", "-v", "./here:/here", "--image", BOX, "--", "sh", "-c", script)
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["0", "33"]
    for place in (user.directory / "here", user.directory / ".containust/volumes/data"):
        assert os.stat(place / "root").st_uid == user.uid
        assert os.stat(place / "web").st_uid == user.first + 32  # id 1 of the container is the first subordinate id
    (user.directory / "here/mine").touch()
    os.chown(user.directory / "here/mine", user.uid, user.uid)
    assert user.ok("run", "--rm", "-v", "./here:/here", "--image", BOX, "--", "stat", "-c", "%u", "/here/mine") == "0\n"


def test_the_last_id_of_an_image_works(user: User) -> None:
    assert user.ok("run", "--rm", "-u", "65535:65535", "--image", BOX, "--", "id", "-u") == "65535\n"


def test_a_volume_that_the_user_cannot_read_stays_closed(user: User) -> None:
    (user.base / "of-root").mkdir(mode=0o700)
    (user.base / "of-root/secret").write_text("secret")
    done = user("run", "--rm", "-v", f"{user.base}/of-root:/here", "--image", BOX, "--", "cat", "/here/secret")
    assert done.status != 0 and "secret\n" not in done.out
    assert "Permission denied" in done.out + done.err


def test_writable_roots_and_restarts_keep_their_files(user: User) -> None:
    start(user, "--writable", script="cat /kept; echo again >> /kept; chown 5:5 /kept; exec sleep 1000")
    user.ok("restart", "-t", "1", "one")
    eventually(lambda: "again" in user.ok("logs", "one"))
    (upper,) = (user.directory / ".containust/rootfs").glob("*/upper")
    assert os.stat(upper / "kept").st_uid == user.first + 4
    user.ok("rm", "--force", "one")
    assert not (user.directory / ".containust/rootfs").exists()


def test_an_image_with_other_owners_is_seen_as_it_is(user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    tree = user.home / "tree"
    for name in ("bin", "var/lib"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/sh").write_bytes(open("/bin/busybox", "rb").read())
    (tree / "bin/sh").chmod(0o755)
    (tree / "var/lib/data").write_text("x")
    os.chown(tree / "var/lib/data", 999, 998)
    archive = user.home / "image.tar"
    assert os.system(f"tar -C {tree} -cf {archive} . && chmod 644 {archive}") == 0
    done = user("run", "--rm", "--image", f"tar://{archive}", "--", "/bin/sh", "-c", "ls -ln /var/lib")
    assert done.status == 0, done
    assert done.out.split("\n")[1].split()[2:4] == ["999", "998"], done


def test_logs_follow_and_ps_shows_it(user: User) -> None:
    start(user, script="echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last; sleep 1000; true")
    follower = user.popen("logs", "-f", "one")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"first\n"
    user.ok("exec", "one", "touch", "/tmp/go")
    assert follower.stdout.readline() == b"last\n"
    row = user.rows()["one"]
    assert row["state"] == "running" and row["pids"] >= 2 and row["memory"] > 0 and row["cpu_ns"] is not None
    user.ok("stop", "-t", "1")
    assert follower.wait(20) == 0
    follower.communicate()
    assert user.rows()["one"]["state"] == "stopped"


def test_stop_ends_every_process_without_a_control_group(user: User) -> None:
    start(user, script="trap '' TERM; for i in 1 2 3; do setsid sleep 4444 & done; wait")
    eventually(lambda: sum(read(f"/proc/{p}/comm") == "sleep\n" for p in user.running("sleep 4444")) == 3)
    user.ok("stop", "-t", "0")
    eventually(lambda: user.running("sleep 4444") == [])
    user.clean()


def test_a_limit_that_cannot_be_enforced_is_refused_by_its_name(user: User) -> None:
    for option, value, name in (("--memory", "64m", "memory"), ("--cpus", "0.5", "cpus"), ("--pids", "20", "pids")):
        done = user("run", "--rm", option, value, "--image", BOX, "--", "true")
        assert done.status == 1 and done.err.startswith(f"error[R002]: {name} cannot be enforced"), done
        assert "cgroup" in done.err
    assert user.rows() == {}
    user.clean()


def test_the_default_number_of_processes_holds_without_a_control_group(user: User) -> None:
    out = user.ok("run", "--rm", "--image", BOX, "--", "grep", "processes", "/proc/self/limits")
    assert out.split()[2:4] == ["4096", "4096"]


def test_health_probes_and_secrets_work(user: User) -> None:
    user.write(f"""
        COMPONENT web {{
            image = "{BOX}"
            command = ["sh", "-c", "echo $KEY; sleep 0.3; touch /tmp/up; exec sleep 1000"]
            env = {{ KEY = "${{secret.key}}" }}
            healthcheck = {{ command = ["test", "-e", "/tmp/up"] }}
        }}
        COMPONENT after {{
            image = "{BOX}"
            command = ["sleep", "1000"]
        }}
        CONNECT after -> web
        """)
    user.ok("run", "-d", env={"CONTAINUST_SECRET_KEY": "opensesame"})
    assert user.rows()["web"]["health"] == "healthy"
    assert "opensesame" not in user.ok("logs", "web") + user.ok("inspect", "web")


def test_python_runs(user: User) -> None:
    assert user.ok("run", "--rm", "--image", PYTHON, "--", "python3", "-c", "print(6*7)") == "42\n"


def test_two_projects_do_not_see_each_other(user: User) -> None:
    pid = start(user)
    other = user.own("other")
    user.own("other/.containust")
    user.ok("-C", str(other), "run", "-d", "--name", "two", "--image", BOX, "--", "sleep", "1001")
    try:
        theirs = [p for p in user.running("sleep 1001") if read(f"/proc/{p}/comm") == "sleep\n"]
        assert len(theirs) == 1
        assert set(user.rows()) == {"one"}
        assert user("exec", "two", "true").status == 4
        assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink(f"/proc/{theirs[0]}/ns/user")
        assert user.ok("exec", "one", "ps").count("sleep 1000") == 1
    finally:
        user.ok("-C", str(other), "rm", "--force")


def test_root_does_not_start_what_a_user_has_made(user: User) -> None:
    start(user)
    user.ok("stop", "-t", "0")
    pid = os.fork()  # root, on the user's host
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_RDWR), 2)
        os.chdir(user.directory)
        os.execv(user.command[0], [user.command[0], "start", "one"])
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    os.system(f"chown -R {user.uid}:{user.uid} {user.directory}/.containust/run {user.directory}/.containust/state")
    assert user.rows()["one"]["state"] != "running"


@pytest.mark.parametrize("victim", ["supervisor", "keeper", "both"])
def test_a_container_survives_and_is_found_again(user: User, victim: str) -> None:
    pid = start(user, script="while :; do date; sleep 0.1; done")
    for one in [*user.supervisors() * (victim != "keeper"), *[user.keeper()] * (victim != "supervisor")]:
        os.kill(one, signal.SIGKILL)
    time.sleep(0.05)
    assert user.ok("exec", "one", "echo", "there") == "there\n"
    assert user.rows()["one"]["pid"] == pid and user.rows()["one"]["state"] == "running"
    user.ok("stop", "-t", "0", "one")
    assert user.rows()["one"]["state"] == "stopped"
    user.ok("start", "one")
    assert user.rows()["one"]["state"] == "running"


def test_a_container_whose_everything_was_killed_is_cleaned_up(user: User) -> None:
    pid = start(user)
    for one in (*user.supervisors(), user.keeper(), pid):
        os.kill(one, signal.SIGKILL)
    eventually(lambda: not user.processes())
    assert user.rows()["one"]["state"] == "failed"
    user.clean()


def test_a_terminal_of_its_own(user: User) -> None:
    master, slave = pty.openpty()
    words = ("run", "--rm", "-it", "--image", BOX, "--", "sh", "-c", "tty; read line; echo got:$line; exit 9")
    process = user.popen(*words, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    while data := _read(master):
        if b"/dev/pts/0" in data:
            os.write(master, b"word\r")
        text += data
    os.close(master)
    assert process.wait(20) == 9
    assert text.count(b"got:word") == 1, text


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # EIO: the other side is closed
        return b""
