"""``python -m studies.mnist``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
