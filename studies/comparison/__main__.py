"""``python -m studies.comparison``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
