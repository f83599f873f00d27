"""``python -m studies.elbo_gap``."""

from studies.kit.command import main

raise SystemExit(main(__package__))
