"""Holds the version, which the package, the build and every record read from here."""

__version__ = "0.1.0"
