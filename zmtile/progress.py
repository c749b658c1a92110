"""How a long run tells what it is doing; the stages know nothing of terminals."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NullProgress", "Progress"]


class Progress(Protocol):
    """Told of every stage and its steps, from the main thread.

    The stages of a build are 'read', 'measure', 'register', 'match', 'stack' and 'write'; a stage
    ends when the next one begins.
    """

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""

    def step(self, count: int = 1) -> None:
        """Count steps of the stage that are done."""

    def done(self) -> None:
        """End the last stage."""


class NullProgress:
    """Tells nobody."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def step(self, count: int = 1) -> None:
        """Do nothing."""

    def done(self) -> None:
        """Do nothing."""
