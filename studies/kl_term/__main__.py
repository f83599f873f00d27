"""``python -m studies.kl_term``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
