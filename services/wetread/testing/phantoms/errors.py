"""Errors of the phantom generators."""

from __future__ import annotations


class PhantomError(Exception):
    """A phantom could not be made or written as asked."""


class PhantomSeedError(PhantomError):
    """A seed was asked of a split that does not own it."""


class PhantomSpecError(PhantomError):
    """A request contradicts itself or leaves the range that the generator covers."""
