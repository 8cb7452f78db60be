"""The one table of error codes (language.md, section 10): title, exit status, explanation.

Imported only when an error is rendered or explained, never on the way to success. The examples of the
codes of the language are complete files: a line ``// file: NAME`` starts another next to it. Tests run each.
"""

from __future__ import annotations


class Code:
    """One row.

    ``title`` is a short meaning, ``status`` the exit status, ``explanation`` what it means and what to do.
    ``bad`` is a ``.ctst`` file that has the problem and ``good`` one without it; empty outside the language.
    """

    __slots__ = ("bad", "explanation", "good", "status", "title")

    def __init__(self, title: str, status: int, explanation: str, bad: str = "", good: str = "") -> None:
        self.title = title
        self.status = status
        self.explanation = explanation
        self.bad = bad
        self.good = good


CODES: dict[str, Code] = {
    "U001": Code(
        "wrong use of a command, option or variable",
        2,
        "A command, option, variable or SDK call was used in a way it does not have. `ctst COMMAND "
        "--help` shows the right one with two worked examples.",
    ),
    "E001": Code(
        "syntax: unexpected character, token or end",
        1,
        "The text is not of the language: a character, word or bracket stands where it cannot, or one "
        "is missing. The mark shows the first place that does not fit; the cause may stand just "
        "before it. Comments start with //, texts are in double quotes, = stands between name and "
        "value.",
        """\
COMPONENT web {
    image: "preset://busybox"
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
}
""",
    ),
    "E002": Code(
        "reference to an undefined component",
        1,
        "A name after CONNECT, EXPOSE or FROM, or in ${name.host}, belongs to no component that can "
        "be meant there. Correct the name, or define the component. A template is not deployed, so "
        "nothing can connect to it: write a component that starts FROM it.",
        """\
COMPONENT web {
    image = "preset://busybox"
}
CONNECT web -> databse
""",
        """\
COMPONENT web {
    image = "preset://busybox"
}
COMPONENT database {
    image = "preset://busybox"
}
CONNECT web -> database
""",
    ),
    "E003": Code(
        "defined twice",
        1,
        "A component, property, key or alias has two definitions in one place, and one of them would "
        "silently lose. Remove or rename one.",
        """\
COMPONENT web {
    image = "preset://busybox"
    pids = 10
    pids = 20
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    pids = 20
}
""",
    ),
    "E004": Code(
        "cycle",
        1,
        "Components depend on each other in a circle, or templates start from each other in one. "
        "Nothing could be started first. The message has the whole path: remove one of its "
        "connections.",
        """\
COMPONENT a {
    image = "preset://busybox"
}
COMPONENT b {
    image = "preset://busybox"
}
CONNECT a -> b
CONNECT b -> a
""",
        """\
COMPONENT a {
    image = "preset://busybox"
}
COMPONENT b {
    image = "preset://busybox"
}
CONNECT a -> b
""",
    ),
    "E005": Code(
        "missing required property or parameter",
        1,
        "Something required is missing: the image of a component, the command of a healthcheck, the "
        "port that ${name.port} refers to, or a parameter that a template lists in required_params. "
        "Set it in the component the message names.",
        """\
COMPONENT web {
    port = 80
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
""",
    ),
    "E006": Code(
        "wrong type, unknown property or key, value out of range",
        1,
        "A property or key does not exist, or its value has the wrong type or is out of range. The "
        "help says what is accepted. Numbers have no quotes, sizes and durations do.",
        """\
COMPONENT web {
    image = "preset://busybox"
    memory = 512
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    memory = "512MiB"
}
""",
    ),
    "E007": Code(
        "invalid image URI or digest",
        1,
        "An image reference is scheme://location, with an optional pin @sha256:<64 hex>. The schemes "
        "are file, tar, host, image, oci, https and preset. There is no default registry: the place "
        "an image comes from is written down.",
        """\
COMPONENT web {
    image = "alpine:3.21"
}
""",
        """\
COMPONENT web {
    image = "oci://docker.io/library/alpine:3.21"
}
""",
    ),
    "E008": Code(
        "import cannot be resolved, or is circular",
        1,
        "An imported file cannot be found, read or fetched, or imports itself by way of others. Paths "
        "start from the directory of the importing file, then from that of the entry file.",
        """\
IMPORT "missing.ctst" AS missing
COMPONENT web {
    image = "preset://busybox"
}
""",
        """\
IMPORT "base.ctst" AS base
COMPONENT web FROM base.service {
}
// file: base.ctst
COMPONENT service {
    image = "preset://busybox"
}
""",
    ),
    "E011": Code(
        "EXPOSE matches no component, or several",
        1,
        "EXPOSE without -> binds to the one component that has the container port. Here none has it, "
        "or several have. Name the component with ->.",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
EXPOSE 8080:81
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
EXPOSE 8080:80
""",
    ),
    "E012": Code(
        "host port or volume target used twice",
        1,
        "Two EXPOSE statements want the same port of the host, or two mounts of a component the same "
        "place in it. Only one could be reached.",
        """\
COMPONENT web {
    image = "preset://busybox"
    ports = [80, 81]
}
EXPOSE 8080:80
EXPOSE 8080:81
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    ports = [80, 81]
}
EXPOSE 8080:80
EXPOSE 8081:81
""",
    ),
    "E014": Code(
        "environment variable of the host is not set",
        1,
        "${env.NAME} takes a variable of the host, and that variable is not set. Set it before the "
        "command, or give the reference a default behind :-.",
        """\
COMPONENT web {
    image = "preset://busybox"
    env = { MODE = "${env.CONTAINUST_EXAMPLE_UNSET}" }
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    env = { MODE = "${env.CONTAINUST_EXAMPLE_UNSET:-production}" }
}
""",
    ),
    "E015": Code(
        "mutually exclusive properties",
        1,
        "Two properties say the same in different ways: port and ports, or volume and volumes. Use "
        "the plural for all of them.",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
    ports = [81]
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    ports = [80, 81]
}
""",
    ),
    "E016": Code(
        "content differs from its pin or lock",
        1,
        "What was fetched is not what the pin in the file or the line in .containust/imports.lock "
        "says. Somebody changed it, or the pin belongs to another version. Look at the new content; "
        "if the change is wanted, change the pin or remove the line of the lock.",
        """\
IMPORT "https://HOST/base.ctst@sha256:0000000000000000000000000000000000000000000000000000000000000000"
COMPONENT web FROM base {
}
""",
        """\
IMPORT "https://HOST/base.ctst"
COMPONENT web FROM base {
}
""",
    ),
    "E017": Code(
        "needs the network, but --offline",
        1,
        "The file imports something by https:// that is not in the cache, and --offline or "
        "CONTAINUST_OFFLINE forbids to fetch it. Run the command once with a network; from then on "
        "the cache has it. Or keep a copy next to the file.",
        """\
IMPORT "https://example.invalid/base.ctst"
COMPONENT web FROM base {
}
""",
        """\
IMPORT "base.ctst"
COMPONENT web FROM base {
}
// file: base.ctst
COMPONENT base {
    image = "preset://busybox"
}
""",
    ),
    "E018": Code(
        "ambiguous template name",
        1,
        "FROM with an alias alone works when that file has one component, or one of the alias's name. "
        "Otherwise say which: FROM alias.component.",
        """\
IMPORT "library.ctst"
COMPONENT web FROM library {
}
// file: library.ctst
COMPONENT one {
    image = "preset://busybox"
}
COMPONENT two {
    image = "preset://busybox"
}
""",
        """\
IMPORT "library.ctst"
COMPONENT web FROM library.one {
}
// file: library.ctst
COMPONENT one {
    image = "preset://busybox"
}
COMPONENT two {
    image = "preset://busybox"
}
""",
    ),
    "E019": Code(
        "connected components share no network",
        1,
        "CONNECT promises that the first component reaches the second, but the two have no network in "
        "common. Put both into one; a component can be in several.",
        """\
COMPONENT web {
    image = "preset://busybox"
    network = "front"
}
COMPONENT db {
    image = "preset://busybox"
    network = "back"
}
CONNECT web -> db
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    network = ["front", "back"]
}
COMPONENT db {
    image = "preset://busybox"
    network = "back"
}
CONNECT web -> db
""",
    ),
    "E020": Code(
        "secret not found",
        1,
        "${secret.name} is looked for in the host variable CONTAINUST_SECRET_<NAME>, then as a file "
        "in $CONTAINUST_SECRETS_DIR, .containust/secrets/ and /run/containust/secrets/. It is in "
        "none. Nothing is started before all are there.",
        """\
COMPONENT web {
    image = "preset://busybox"
    env = { TOKEN = "${secret.containust-example-missing}" }
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    env = { TOKEN = "${secret.containust-example-present}" }
}
""",
    ),
    "W009": Code(
        "unused import",
        0,
        "No FROM uses what this IMPORT brings. Remove the line.",
        """\
IMPORT "base.ctst"
COMPONENT web {
    image = "preset://busybox"
}
// file: base.ctst
COMPONENT base {
    image = "preset://busybox"
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
}
""",
    ),
    "W010": Code(
        "component that nothing mentions",
        0,
        "The file has several components, and nothing connects this one with the others or with the "
        "host. It is deployed all the same; often a CONNECT was forgotten.",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
COMPONENT worker {
    image = "preset://busybox"
}
EXPOSE 80
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
COMPONENT worker {
    image = "preset://busybox"
}
EXPOSE 80
CONNECT worker -> web
""",
    ),
    "W013": Code(
        "statement without effect",
        0,
        "The statement changes nothing: a CONNECT that stands there already, a CONNECT or EXPOSE in an "
        "imported file, which only brings templates, or an EXPOSE of a component on the host's network or none.",
        """\
COMPONENT web {
    image = "preset://busybox"
}
COMPONENT db {
    image = "preset://busybox"
}
CONNECT web -> db
CONNECT web -> db
""",
        """\
COMPONENT web {
    image = "preset://busybox"
}
COMPONENT db {
    image = "preset://busybox"
}
CONNECT web -> db
""",
    ),
    "W014": Code(
        "interpolation without CONNECT",
        0,
        "A reference such as ${db.host} orders nothing: without CONNECT both components start at the "
        "same time, and nobody waits for the other to be healthy.",
        """\
COMPONENT web {
    image = "preset://busybox"
    env = { DATABASE = "${db.host}" }
}
COMPONENT db {
    image = "preset://busybox"
}
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    env = { DATABASE = "${db.host}" }
}
COMPONENT db {
    image = "preset://busybox"
}
CONNECT web -> db
""",
    ),
    "W015": Code(
        "EXPOSE on all addresses",
        0,
        "The port can be reached from every network the host is in. EXPOSE without an address listens "
        "on 127.0.0.1 alone. Keep it if that is meant; a firewall may have to know.",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
EXPOSE "0.0.0.0":8080:80
""",
        """\
COMPONENT web {
    image = "preset://busybox"
    port = 80
}
EXPOSE 8080:80
""",
    ),
    "W016": Code(
        "image is not pinned by digest",
        0,
        "Only with `ctst check --strict`: the image is named without its digest, so that tomorrow the "
        "same name may bring something else. Append @sha256: and the digest that `ctst build` prints.",
        """\
COMPONENT web {
    image = "oci://docker.io/library/alpine:3.21"
}
""",
        """\
COMPONENT web {
    image = "oci://docker.io/library/alpine:3.21@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}
""",
    ),
    "R001": Code(
        "namespaces",
        1,
        "The kernel refused to make or to enter a namespace. Often user namespaces are switched off, "
        "their number is limited, or a security module forbids them. `ctst doctor` tells which, and "
        "the command that mends it.",
    ),
    "R002": Code(
        "cgroups",
        1,
        "A control group could not be made, joined or written. Without privileges a delegated subtree "
        "is needed; some controllers may be absent. `ctst doctor` lists what this host offers.",
    ),
    "R003": Code(
        "mounts",
        1,
        "A mount failed: an image, a volume, a tmpfs or one of the container's own file systems. The "
        "message names source and target. Look whether both exist, and whether the source is of the "
        "right kind: a file cannot be mounted on a directory.",
    ),
    "R004": Code(
        "process spawn",
        1,
        "The program of a container could not be started: it is not in the image (exit status 127), "
        "not executable (126), of another architecture, or its user does not exist there. Compare "
        "entrypoint and command with the image: `ctst images inspect NAME`.",
    ),
    "R005": Code(
        "no such container",
        4,
        "No container has this name, this id, or an id that starts like this; or several ids do. "
        "`ctst ps -a` lists all of the project.",
    ),
    "R006": Code(
        "already running",
        1,
        "The container runs already. `ctst restart NAME` starts it anew.",
    ),
    "R007": Code(
        "not running",
        1,
        "The command needs a running container, and this one is not. `ctst start NAME` starts it; "
        "`ctst logs NAME` shows why it ended.",
    ),
    "R008": Code(
        "exec",
        1,
        "A command could not be started in a running container: the program is missing there (127), "
        "cannot be executed (126), or the container ended meanwhile.",
    ),
    "R009": Code(
        "name belongs to another stack",
        1,
        "Another stack of this project has a container of this name. Rename the component, or remove "
        "the other with `ctst rm NAME`.",
    ),
    "R010": Code(
        "QEMU missing",
        1,
        "The VM backend needs QEMU, and it was not found. Install it (`ctst doctor` prints the "
        "command for this system), or use the native backend on Linux.",
    ),
    "R011": Code(
        "host port taken",
        1,
        "The port of the host belongs to another program or container; nothing of the stack was left "
        "half-made. Choose another: EXPOSE other:port. `ss -ltnup` shows who has it.",
    ),
    "R012": Code(
        "VM protocol",
        1,
        "The program inside the VM and this one do not understand each other: the VM is of another "
        "version, or it ended. `ctst vm stop` and `ctst vm start` renew it.",
    ),
    "R013": Code(
        "network set-up",
        1,
        "A bridge, an interface, an address or a packet filter rule of a network could not be made. "
        "The message names it. Often a network of the host uses the same addresses, or nftables is "
        "missing. `ctst doctor` tells.",
    ),
    "R014": Code(
        "unhealthy",
        1,
        "The health check of the container failed as often in a row as its `retries` say. `ctst logs "
        "NAME` and `ctst inspect NAME` show the last probes; give a slow program a longer "
        "start_period.",
    ),
    "R015": Code(
        "dependency failed",
        1,
        "A component that this one depends on by CONNECT failed or became unhealthy while starting, "
        "so this one was not started. The message names the first that failed: mend that one.",
    ),
    "R017": Code(
        "log output missed",
        1,
        "The container wrote faster than its log was read, and files that had not been read yet were "
        "rotated away. What was shown is right, but not all. Let `ctst logs -f` write to a file or a "
        "pipe that takes it faster than a terminal.",
    ),
    "I001": Code(
        "image not found",
        4,
        "The image is not there: no such directory, archive, catalog name, tag or preset. `ctst "
        "images ls` lists the catalog, `ctst images --presets` the presets.",
    ),
    "I002": Code(
        "digest mismatch",
        1,
        "The content is not what its digest says. It was changed or damaged on the way or on disk, or "
        "the tag was moved. Nothing of it was used. `ctst images verify` checks the store; a wanted "
        "change needs a new pin, or its line removed from .containust/images.lock.",
    ),
    "I003": Code(
        "extraction: unsafe or damaged entry",
        1,
        "An entry of the archive is damaged, would have been written outside the image, or goes "
        "beyond a limit on number, size or ratio. The message names it. Nothing of the archive was "
        "kept.",
    ),
    "I004": Code(
        "invalid archive",
        1,
        "The file is no archive of a known kind, or it ends too early. Root file systems, `docker "
        "save` archives and OCI layouts are read, plain or compressed with gzip, zstd, xz or bzip2.",
    ),
    "I005": Code(
        "remote source with --offline",
        1,
        "The image would have to be fetched, and --offline or CONTAINUST_OFFLINE forbids it. Pull it "
        "once with a network, or copy .containust/images from another machine.",
    ),
    "I006": Code(
        "download",
        1,
        "A download failed: address, name resolution, TLS, authentication or the server. The message "
        "has the server's answer. Credentials come from ~/.docker/config.json or "
        "CONTAINUST_REGISTRY_USER and _PASSWORD.",
    ),
    "I007": Code(
        "image in use",
        1,
        "A container or another image uses this image, so it was not removed. `ctst ps -a` shows "
        "which; remove that first.",
    ),
    "I008": Code(
        "no trusted signature",
        1,
        "--require-provenance or CONTAINUST_REQUIRE_PROVENANCE demands that fetched images are signed, and no "
        "key in .containust/trust, ~/.containust/trust or CONTAINUST_TRUST has signed this one. Nothing of it "
        "was fetched. Signatures are those of cosign with a key pair (ECDSA on P-256), beside the image in "
        "its registry.",
    ),
    "S001": Code(
        "state file corrupt",
        1,
        "A file of the project's state is damaged. The message names it. Restore it from a copy, or "
        "remove it: containers that run are found again by what the kernel knows of them.",
    ),
    "S002": Code(
        "state locked too long",
        1,
        "Another ctst command holds the lock of this project for too long. It may wait for something; "
        "`ps` shows it. The lock ends with that process.",
    ),
    "S003": Code(
        "permission",
        3,
        "A file or directory cannot be read or written by this user. Check its owner and mode, or "
        "choose another place with --state-file, CONTAINUST_IMAGE_STORE or CONTAINUST_ROOTFS_DIR.",
    ),
    "S004": Code(
        "no project or file here",
        4,
        "There is no such file, or no project here. Name the .ctst file, change to its directory, or use -C DIR.",
    ),
    "S005": Code(
        "secret file too open",
        1,
        "A file of a secret belongs to somebody else or can be read by others, so its content is no "
        "secret. `chmod 600` it and let it belong to you or to root.",
    ),
    "S006": Code(
        "state has a newer schema",
        1,
        "The state was written by a newer version of this program. Update this one, or use another --state-file.",
    ),
    "S007": Code(
        "plan out of date",
        1,
        "What `ctst plan --out` planned is not what would happen now: the file, an image or a "
        "container has changed since. Nothing was done. Look at the new plan and keep that one.",
    ),
}


def exit_status(code: str) -> int:
    """Exit status of a command that fails with ``code``; 1 for a code that is not in the table."""
    row = CODES.get(code)
    return row.status if row else 1
