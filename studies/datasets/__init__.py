"""Where data comes from: one file a kind of source. `studies.data` puts them together."""
