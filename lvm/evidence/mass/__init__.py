"""Absolute checks of claims about log p(x), by masses: what they sum to, and between what the truth lies."""
