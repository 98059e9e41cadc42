"""Galleries: durable indexes of person images, searched by sentence, image or vector."""

from ..model_identity import ModelIdentity
from .engines.base import GalleryStore
from .gallery import Gallery
from .image_sources import image_name
from .ingest import AddReport, FailedImage
from .results import GalleryHit, GalleryInfo

__all__ = [
    "AddReport",
    "FailedImage",
    "Gallery",
    "GalleryHit",
    "GalleryInfo",
    "GalleryStore",
    "ModelIdentity",
    "image_name",
]
