"""``python -m studies.survae``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
