"""``python -m studies.images``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
