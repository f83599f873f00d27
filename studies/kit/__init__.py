"""What all studies share: settings, rows that are kept as they come, the command line, and what reports are made of."""
