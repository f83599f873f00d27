"""``python -m studies.equivalence``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
