"""The project directory ``.containust/``: where everything of one stack lives (runtime.md, "State")."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The user whom this process runs for as root of a user namespace (runtime.rootless); None for the host's root.
rootless_user: int | None = None
NAME = ".containust"
DEFAULT_FILE = "containust.ctst"


class Project:
    """Paths of one project and the short id that names its cgroups, bridges and rules on the host.

    ``directory`` is absolute. The id is derived from it, so that what a crashed run left on the host can be found
    again even when the state file is gone.
    """

    __slots__ = ("directory", "id", "images", "rootfs", "state_file")

    def __init__(
        self,
        directory: str,
        environ: Mapping[str, str] | None = None,
        state_file: str | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.directory = os.path.abspath(directory)
        self.state_file = state_file or f"{self.directory}/state/state.json"
        self.images = environ.get("CONTAINUST_IMAGE_STORE") or f"{self.directory}/images"
        self.rootfs = environ.get("CONTAINUST_ROOTFS_DIR") or f"{self.directory}/rootfs"
        self.id = project_id(os.path.realpath(self.directory))

    @property
    def run(self) -> str:
        """FIFOs, the supervisor's lock, per-container run-time files."""
        return f"{self.directory}/run"

    @property
    def logs(self) -> str:
        """One log a container."""
        return f"{self.directory}/logs"

    @property
    def volumes(self) -> str:
        """Managed volumes."""
        return f"{self.directory}/volumes"

    @property
    def events(self) -> str:
        """The life-cycle event log, JSON lines."""
        return f"{self.directory}/events.jsonl"

    @property
    def base(self) -> str:
        """The directory the project directory lies in."""
        return os.path.dirname(self.directory)

    def exists(self) -> bool:
        """Whether anything was ever run here."""
        return os.path.exists(self.state_file)

    def create(self) -> None:
        """Make the directories, private to their owner. Raises ContainustError S003 when that is not permitted."""
        try:
            for path in (
                self.directory,
                f"{self.directory}/state",
                self.run,
                self.logs,
                os.path.dirname(self.state_file),
            ):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    pass
                except FileNotFoundError:
                    from containust.core.filesystem.private import make_private

                    make_private(path)
        except OSError as error:
            raise ContainustError(
                "S003",
                f"cannot create the project directory {error.filename}: {error.strerror}",
                "run from a directory that you may write to, or name one with --state-file",
            ) from None


def project_id(path: str) -> str:
    """Ten hexadecimal digits that stand for a project directory: FNV-1a of its real path."""
    value = 0xCBF29CE484222325
    for byte in os.fsencode(path):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value & 0xFFFFFFFFFF:010x}"


def for_file(path: str, state_file: str | None = None) -> Project:
    """The project of a ``.ctst`` file: ``.containust/`` beside it, or the directory of ``state_file``."""
    if state_file:
        return for_state_file(state_file)
    return Project(os.path.join(os.path.dirname(os.path.abspath(path)), NAME))


def for_state_file(state_file: str) -> Project:
    """The project whose state index is ``state_file``; the index's directory is the project directory."""
    state_file = os.path.abspath(state_file)
    if os.path.isdir(state_file):
        raise UsageError(f"--state-file {state_file} is a directory", "name a file, such as DIR/state.json")
    return Project(os.path.dirname(state_file), state_file=state_file)


def current(directory: str, state_file: str | None = None) -> Project:
    """The project that a command without a file acts on (cli.md): of the state file, of this directory, or the user's.

    ``directory`` is where the command runs.
    """
    if state_file:
        return for_state_file(state_file)
    here = os.path.join(directory, NAME)
    # The user's home holds the default project and the global cache; it is a project like any other.
    if os.path.isdir(here) or os.path.exists(os.path.join(directory, DEFAULT_FILE)):
        return Project(here)
    return default()


def default() -> Project:
    """The user's own project, ``~/.containust``."""
    return Project(os.path.join(os.path.expanduser("~"), NAME))
