"""All results on one page: ``python -m studies.report``.

For every study its question, claim and answer, then each result that there is: figure, tables, expected against
measured, provenance. The page is one HTML file with its figures inside; it needs no network.
"""
