"""``python -m studies.naive_monte_carlo``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
