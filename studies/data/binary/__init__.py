"""Tables of zeros and ones."""
