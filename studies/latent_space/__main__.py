"""``python -m studies.latent_space``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
