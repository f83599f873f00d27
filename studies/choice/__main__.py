"""``python -m studies.choice``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
