"""Images as points of flows: squeezes, masks, and networks as conditioners of couplings."""
