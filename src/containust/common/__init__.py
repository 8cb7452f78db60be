"""Errors and their codes, domain types, configuration and constants. No I/O, no algorithms."""
