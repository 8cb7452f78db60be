"""Argument parsing and output only; everything else is reached through :mod:`containust.sdk`."""
