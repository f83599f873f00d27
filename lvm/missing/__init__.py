"""Rows with missing entries: the interface of models that know them, and rows grouped by what they lack."""
