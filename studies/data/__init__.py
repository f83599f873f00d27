"""Where data comes from: one file a kind of source, and `load`, which puts them together.

What is heavy (pandas, scipy, scikit-learn) is imported by the reader that needs it, when it reads: settings import this
package, and ``--help`` stays quick.
"""
