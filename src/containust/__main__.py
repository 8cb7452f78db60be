"""``python -m containust`` is ``ctst``."""

from containust.cli.main import run

run()
