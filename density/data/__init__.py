"""Data that a fit reads: rows with weights, a chunk at a time, and digests by which a checkpoint knows them."""
