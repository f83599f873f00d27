"""``python -m tests.studies.kit.fake``: every row that is begun is noted in the file that FAKE_LOG names."""

from studies.kit.run import main

raise SystemExit(main(__package__))
