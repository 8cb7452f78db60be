"""Containers, state, engine, supervisor, logs, metrics, networks, exec, and the backends that run them."""
