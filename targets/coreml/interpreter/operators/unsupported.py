"""The error for what the reference does not do."""

from __future__ import annotations


class Unsupported(ValueError):
    """An attribute, dtype or shape that the documentation does not define or this reference does not know."""
