"""The page: which controls there are, and which action each one calls. No logic."""

from space.layout.page import build, launch

__all__ = ["build", "launch"]
