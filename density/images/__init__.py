"""Images as points: their shapes, and networks that see and make them."""
