"""``file://`` with ``distroless``: of a directory's root file system, the programs named and what they need."""

from __future__ import annotations

import os
from stat import S_ISREG

from containust.common.types import ImageConfig
from containust.image.distroless import Collection
from containust.image.importing import DEFAULT_PATH, Imported, default_command, settle
from containust.image.layers import build_tree
from containust.image.pack import unreadable
from containust.image.programs import add_include, add_known, add_tls
from containust.image.sources.file import existing_directory, walk
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.common.reference import Reference
    from containust.image.staging import Staging


def import_reduced(
    staging: Staging, reference: Reference, words: Sequence[str], include: Sequence[str], traced: Sequence[str] = ()
) -> Imported:
    """Import what ``words`` need of the directory of ``reference``.

    The words are command lines of the component: each that names a program or a file of the directory is kept, the
    first must. ``include`` are paths or globs inside the directory, ``traced`` files that a run has opened; of these,
    those that are not there are passed over. Raises I001.
    """
    from containust.image.blind_spots import blind_spots

    directory = existing_directory(reference)
    words = list(words) or default_command(directory)
    if not words:
        raise missing(
            f"{reference.location} has no /bin/sh, and no `command` says which program to keep",
            'name it: command = ["/usr/bin/NAME"]',
        )
    collection = Collection(directory)
    programs = _add_words(collection, words)
    for pattern in include:
        add_include(collection, pattern if pattern.startswith("/") else f"/{pattern}")
    for path in traced:
        try:
            collection.add_tree(path) if not collection.root.is_directory(path) else collection.add(path)
        except OSError:
            continue
    collection.add_common()
    add_tls(collection)
    settle(max((s.st_ctime_ns for s in collection.sources.values()), default=0))
    try:
        collection.write(f"{staging.path}/layer.tar")
    except OSError as error:
        raise unreadable(directory, error) from error
    layer = staging.stage_layer(f"{staging.path}/layer.tar", reference.digest, reference.location)
    root, facts = staging.add_root(build_tree(staging.store, [layer]), [layer])
    before = {(s.st_dev, s.st_ino): s.st_size for _, s in walk(directory) if S_ISREG(s.st_mode)}
    after = {(s.st_dev, s.st_ino): s.st_size for s in collection.members.values() if S_ISREG(s.st_mode)}
    facts["distroless"] = {
        "before": {"files": len(before), "size": sum(before.values())},
        "after": {"files": len(after), "size": sum(after.values())},
        "unseen": blind_spots(collection, programs),
        "traced": list(traced),
    }
    config = ImageConfig(env=[DEFAULT_PATH], command=[programs[0]])
    return Imported(root, facts, config, collection.sources)


def _add_words(collection: Collection, words: Sequence[str]) -> list[str]:
    """Keep what the words of command lines name; the programs among them, in the order of the words."""
    programs = []
    for number, word in enumerate(words):
        path: str | None = word if word.startswith("/") else None
        if path is None and "/" not in word:
            path = collection.root.which(word)
        real = collection.root.real(path) if path is not None else None
        if path is None or real is None:
            if number:
                continue
            path, real = word, word
        if number and not S_ISREG(collection.stat(real).st_mode):
            continue  # a directory that a program serves is the user's to include
        if number and not os.access(collection.root.host(real), os.X_OK):
            collection.add(path)
            continue
        add_known(collection, path, collection.add_program(path))
        programs.append(path)
    return programs
