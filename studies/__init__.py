"""Questions asked of the models; one file a question, run with ``python -m studies.<name>``."""
