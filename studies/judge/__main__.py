"""``python -m studies.judge``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
