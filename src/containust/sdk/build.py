"""What ``ctst build`` does for one component: import its image, and say what became of it."""

from __future__ import annotations

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from containust.common.types import Component
    from containust.sdk.images import Images, Progress


def build(
    images: Images,
    component: Component,
    base: str,
    *,
    distroless: bool | None = None,
    traced: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One row: component, image, imported (whether it was missing), id, size in bytes, distroless.

    ``distroless`` overrules the component for ``file://`` images; ``traced`` are files to keep in one that is reduced.
    In the row it is None or ``{"before": {"files", "size"}, "after": …, "unseen": […], "traced": […]}``; a ``host://``
    image has ``unseen`` only. Relative paths start at ``base``.
    """
    from containust.image.importing import import_image
    from containust.image.store import reference_key
    from containust.runtime.reduced import words

    store = images.store
    reduced = component.distroless
    if distroless is not None and component.image.startswith("file://"):
        reduced = distroless
    kept = words(component) if reduced else None
    uri, include, live = component.image, component.include, component.live
    found = store.find(uri, include, base, distroless=kept, live=live)
    key = reference_key(uri, include, base, kept)
    path = store.entry_path(key)
    reducible = kept is not None and uri.startswith("file://") and not live
    earlier = (_report(path) or {}).get("traced", ())
    fresh = found is None or (reducible and not set(traced) <= set(earlier))
    row: dict[str, Any] = {
        "component": component.name,
        "image": uri,
        "imported": fresh,
        "id": None,
        "size": None,
        "distroless": None,
    }
    if fresh and not dry_run:
        kept_files = traced if reducible else ()
        found = import_image(
            store, uri, include, base, distroless=kept, traced=kept_files, live=live, progress=progress
        )
    if found is not None:
        row.update(id=found.id, size=found.size, distroless=None if live else _report(path))
    return row


def traced_files(path: str) -> list[str]:
    """The files that a trace names: ``ctst trace --files --json`` (``files``, each with a ``path``), or a path a line.

    Raises S003 when it cannot be read or is neither.
    """
    from json import loads

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError as error:
        raise ContainustError("S003", f"cannot read the trace {path}: {error.strerror}", "check its path") from error
    if text.lstrip().startswith("{"):
        try:
            items = loads(text)["files"]
            found = [item if isinstance(item, str) else item["path"] for item in items]
        except (ValueError, KeyError, TypeError) as error:
            raise ContainustError(
                "S003", f"{path} is no trace of files", "make it with `ctst trace NAME --files --json`"
            ) from error
    else:
        found = text.splitlines()
    kernel = ("/proc/", "/sys/", "/dev/")
    return sorted({name for name in found if name.startswith("/") and not name.startswith(kernel)})


def unseen(row: dict[str, Any]) -> list[str]:
    """What the analysis could not see, a line each."""
    from containust.image.blind_spots import describe

    report = row["distroless"] or {}
    return [describe(spot) for spot in report.get("unseen", ())]


def _report(path: str) -> dict[str, Any] | None:
    from containust.image.store import read_entry

    entry = read_entry(path)
    return entry["image"].get("distroless") if entry is not None else None
