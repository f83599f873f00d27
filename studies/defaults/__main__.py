"""``python -m studies.defaults``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
