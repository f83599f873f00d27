"""``python -m studies.binary_tables``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
