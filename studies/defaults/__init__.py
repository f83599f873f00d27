"""Which arrangement, which base, which training: do the builders' defaults win on tables nobody tuned for?

Claim: x

Paper: y

Command: python -m studies.defaults

Run time: z

Expected: w

Answer: v
"""
