"""``python -m studies.kl_term``."""

from studies.kit.command import main

raise SystemExit(main(__package__))
