"""Attacks on containers, tried for real: by the tests, and by ``ctst doctor --attack`` on a user's own host.

``inside`` is what a hostile program does; :mod:`containust.sdk.attacks` starts containers that run it.
"""

RUN = "import sys; sys.path.insert(0, '/attack'); from inside.main import main; main('/attack/facts.json', {report!r})"
