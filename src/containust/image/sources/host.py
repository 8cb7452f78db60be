"""``host://``: programs of this host, with what they need, as a root file system.

``host:///usr/bin/python3`` or several, separated by commas; the first is the image's command. ``include`` adds further
paths or globs with the libraries they need.
"""

from __future__ import annotations

import os

from containust.common.types import ImageConfig
from containust.image.distroless import Collection
from containust.image.importing import DEFAULT_PATH, Imported, settle
from containust.image.layers import build_tree
from containust.image.programs import FOREGROUND, add_include, add_known, add_tls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.image.staging import Staging


def import_programs(staging: Staging, programs: Sequence[str], include: Sequence[str]) -> Imported:
    """Import a ``host://`` image. Raises I001 when a program, a library or an ``include`` is not there."""
    from containust.image.blind_spots import blind_spots

    collection = Collection()
    for program in programs:
        add_known(collection, program, collection.add_program(program))
    for pattern in include:
        add_include(collection, pattern)
    collection.add_common()
    add_tls(collection)
    settle(max((s.st_ctime_ns for s in collection.sources.values()), default=0))
    path = f"{staging.path}/layer.tar"
    collection.write(path)
    layer = staging.stage_layer(path)
    root, facts = staging.add_root(build_tree(staging.store, [layer]), [layer])
    facts["distroless"] = {"unseen": blind_spots(collection, programs)}
    arguments, stop_signal = FOREGROUND.get(os.path.basename(programs[0]), ([], ""))
    config = ImageConfig(command=[programs[0], *arguments], env=[DEFAULT_PATH])
    if stop_signal:
        config.stop_signal = stop_signal
    return Imported(root, facts, config, collection.sources)
