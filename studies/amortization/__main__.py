"""``python -m studies.amortization``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
