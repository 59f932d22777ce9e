"""bilevel: recipes and solvers for bilevel training of speech models."""

__version__ = "0.1.0"
