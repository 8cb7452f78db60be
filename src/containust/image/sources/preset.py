"""``preset://``: a small table of official root file systems, each pinned by its digest.

Only archives whose publisher keeps them under a fixed address are listed. ``CONTAINUST_PRESET_MIRROR`` names
a
directory or an https:// prefix that holds the same files under their own names.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.image.importing import Imported
from containust.image.sources.tar import import_file
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.reference import Reference
    from containust.image.staging import Staging
    from containust.image.store import Progress

# Name -> machine -> (address without scheme, sha256). Empty until digests have been verified at their
# publisher.
PRESETS: dict[str, dict[str, tuple[str, str]]] = {}


def import_preset(staging: Staging, reference: Reference, progress: Progress | None = None) -> Imported:
    """Import a ``preset://`` reference. Raises I001 for an unknown name, I005 offline, I002, I006."""
    from containust.image.sources.registry import download

    found = PRESETS.get(reference.location, {}).get(os.uname().machine)
    if found is None:
        names = ", ".join(sorted(PRESETS)) or "none yet"
        raise missing(
            f"there is no preset {reference.location}",
            f"presets: {names}",
            "`ctst pull` fetches from registries",
        )
    address, digest = found
    mirror = os.environ.get("CONTAINUST_PRESET_MIRROR", "").rstrip("/")
    name = address.rpartition("/")[2]
    path = f"{mirror}/{name}"
    if not mirror.startswith("/"):
        if staging.store.offline:
            raise ContainustError(
                "I005", f"{reference} would have to be fetched, but --offline is set", "run once online"
            )
        path = f"{staging.path}/download"
        download(f"{mirror}/{name}" if mirror else f"https://{address}", path, progress)
    imported = import_file(staging, path, f"sha256:{digest}", progress)[0][0]
    imported.sources = {}
    return imported
