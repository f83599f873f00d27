"""``python -m studies.em_as_elbo``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
