"""ptk: raw text to a language model that has learned from it."""

__version__ = "0.1.0"
