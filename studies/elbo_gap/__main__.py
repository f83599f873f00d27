"""``python -m studies.elbo_gap``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
