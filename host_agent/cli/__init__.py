"""The operator's command ``vmaccord``, on top of the client: ``declared`` is what it can be asked, the rest are answers."""

from __future__ import annotations

from .declared import main

__all__ = ["main"]
