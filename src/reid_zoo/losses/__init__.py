"""Losses, one family per file; every one is a module that can be used outside of the zoo's models."""

from .cmpc import CMPCLoss
from .cmpm import CMPMLoss
from .cross_modal_triplet import CrossModalTripletLoss
from .diversity import DiversityLoss

__all__ = ["CMPCLoss", "CMPMLoss", "CrossModalTripletLoss", "DiversityLoss"]
