"""Mounts, OverlayFS, ``pivot_root`` and device nodes of a container's root."""
