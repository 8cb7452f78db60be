"""The one exception type of the project and its rendering data.

Every failure that a user can meet is a :class:`ContainustError`: a code of the table in
:mod:`containust.common.codes`, what happened, on which object, and what to do about it. It is raised once with
all it needs, and rendered once, by the command line.
"""

from __future__ import annotations


class ContainustError(Exception):
    """A failure with a code.

    ``code`` is a key of :data:`containust.common.codes.CODES`, ``message`` one line without the code,
    ``help`` zero or more lines that each say something to do. ``status`` overrides the exit status that the
    table gives the code (used for 126 and 127 of a program that cannot be started). ``container`` is the name of
    the container whose behaviour was the reason, and ``output`` the last lines that it wrote.
    """

    def __init__(self, code: str, message: str, *help: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = list(help)
        self.container: str | None = None
        self.output: list[str] = []
        self._status = status

    @property
    def status(self) -> int:
        """Exit status of a command that ends with this error (cli.md, "Exit status")."""
        if self._status is not None:
            return self._status
        from containust.common.codes import exit_status

        return exit_status(self.code)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class UsageError(ContainustError):
    """Wrong use of a command or an option, an environment variable or an SDK call; exit status 2."""

    def __init__(self, message: str, *help: str) -> None:
        super().__init__("U001", message, *help, status=2)
