"""Containers of an ordinary user: the same runtime, inside a user namespace in which that user is root.

Imported only where the caller is not root. The parts: what it takes (:mod:`.requirements`), the namespaces and the
process that holds them (:mod:`.keeper`, :mod:`.client`), the backend that enters them (:mod:`.backend`), the way out
to the host's network (:mod:`.programs`, :mod:`.networks`), and limits (:mod:`.groups`).

Id 0 of the namespace is the user, 1 to 65535 are the user's subordinate ids; a container gets a namespace of its own
below, with the same ids, so that its root is the user and what it writes into a volume belongs to the user.
"""
