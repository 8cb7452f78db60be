"""The one table of error codes (language.md, section 10): title, exit status, explanation.

Imported only when an error is rendered or explained, never on a command's way to success.
"""

from __future__ import annotations


class Code:
    """One row: ``title`` a short meaning, ``status`` the exit status, ``explanation`` what it means and what to do."""

    __slots__ = ("explanation", "status", "title")

    def __init__(self, title: str, status: int, explanation: str) -> None:
        self.title = title
        self.status = status
        self.explanation = explanation


CODES: dict[str, Code] = {
    "U001": Code("wrong use of a command, option or variable", 2, "See `ctst COMMAND --help`."),
    "E001": Code("syntax: unexpected character, token or end", 1, ""),
    "E002": Code("reference to an undefined component", 1, ""),
    "E003": Code("defined twice", 1, ""),
    "E004": Code("cycle", 1, ""),
    "E005": Code("missing required property or parameter", 1, ""),
    "E006": Code("wrong type, unknown property or key, value out of range", 1, ""),
    "E007": Code("invalid image URI or digest", 1, ""),
    "E008": Code("import cannot be resolved, or is circular", 1, ""),
    "E011": Code("EXPOSE matches no component, or several", 1, ""),
    "E012": Code("host port or volume target used twice", 1, ""),
    "E014": Code("environment variable of the host is not set", 1, ""),
    "E015": Code("mutually exclusive properties", 1, ""),
    "E016": Code("content differs from its pin or lock", 1, ""),
    "E017": Code("needs the network, but --offline", 1, ""),
    "E018": Code("ambiguous template name", 1, ""),
    "E019": Code("connected components share no network", 1, ""),
    "E020": Code("secret not found", 1, ""),
    "W009": Code("unused import", 0, ""),
    "W010": Code("component that nothing mentions", 0, ""),
    "W013": Code("statement without effect", 0, ""),
    "W014": Code("interpolation without CONNECT", 0, ""),
    "W015": Code("EXPOSE on all addresses", 0, ""),
    "W016": Code("image is not pinned by digest", 0, ""),
    "R001": Code("namespaces", 1, ""),
    "R002": Code("cgroups", 1, ""),
    "R003": Code("mounts", 1, ""),
    "R004": Code("process spawn", 1, ""),
    "R005": Code("no such container", 4, ""),
    "R006": Code("already running", 1, ""),
    "R007": Code("not running", 1, ""),
    "R008": Code("exec", 1, ""),
    "R009": Code("name belongs to another stack", 1, ""),
    "R010": Code("QEMU missing", 1, ""),
    "R011": Code("host port taken", 1, ""),
    "R012": Code("VM protocol", 1, ""),
    "R013": Code("network set-up", 1, ""),
    "R014": Code("unhealthy", 1, ""),
    "R015": Code("dependency failed", 1, ""),
    "I001": Code("image not found", 4, ""),
    "I002": Code("digest mismatch", 1, ""),
    "I003": Code("extraction: unsafe or damaged entry", 1, ""),
    "I004": Code("invalid archive", 1, ""),
    "I005": Code("remote source with --offline", 1, ""),
    "I006": Code("download", 1, ""),
    "I007": Code("image in use", 1, ""),
    "S001": Code("state file corrupt", 1, ""),
    "S002": Code("state locked too long", 1, ""),
    "S003": Code("permission", 3, ""),
    "S004": Code("no project or file here", 4, ""),
    "S005": Code("secret file too open", 1, ""),
    "S006": Code("state has a newer schema", 1, ""),
}


def exit_status(code: str) -> int:
    """Exit status of a command that fails with ``code``; 1 for a code that is not in the table."""
    row = CODES.get(code)
    return row.status if row else 1
