"""The QEMU backend for hosts without Linux namespaces. Not written yet: it arrives with its own issue."""
