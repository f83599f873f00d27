"""``python -m studies.audit``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
