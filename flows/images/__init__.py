"""Images as points: their shapes, how features are arranged in them, networks that see them."""
