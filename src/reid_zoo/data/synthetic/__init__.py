"""Drawn pedestrians with true captions, written in the layout of CUHK-PEDES."""

from __future__ import annotations

from .attributes import PersonAttributes
from .generator import SyntheticImage, SyntheticPedestrians
from .view import View

__all__ = ["PersonAttributes", "SyntheticImage", "SyntheticPedestrians", "View"]
