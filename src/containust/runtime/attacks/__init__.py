"""Attacks on containers, tried for real: by the tests, and by ``ctst doctor --attack`` on a user's own host.

``inside`` is the program that a hostile container runs, ``battery`` starts such containers and gathers what they say.
"""
