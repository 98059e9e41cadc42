"""Losses, one family per file; every one is a module that can be used outside of the zoo's models."""

from .batch_hard_triplet import BatchHardTripletLoss
from .cmpc import CMPCLoss
from .cmpm import CMPMLoss
from .cross_modal_triplet import CrossModalTripletLoss
from .diversity import DiversityLoss
from .feature_calibration import FeatureCalibrationLoss
from .feature_distribution import FeatureDistributionLoss
from .identity import IdentityLoss
from .info_nce import InfoNCELoss
from .masked_image_modeling import MaskedImageModelingLoss
from .masked_language_modeling import MaskedLanguageModelingLoss
from .sampled_triplet import SampledTripletLoss
from .sdm import SDMLoss
from .semi_hard_ranking import SemiHardRankingLoss
from .similarity_contrastive import SimilarityContrastiveLoss
from .supervised_contrastive import SupervisedContrastiveLoss
from .token_alignment import TokenAlignmentLoss

__all__ = [
    "BatchHardTripletLoss",
    "CMPCLoss",
    "CMPMLoss",
    "CrossModalTripletLoss",
    "DiversityLoss",
    "FeatureCalibrationLoss",
    "FeatureDistributionLoss",
    "IdentityLoss",
    "InfoNCELoss",
    "MaskedImageModelingLoss",
    "MaskedLanguageModelingLoss",
    "SDMLoss",
    "SampledTripletLoss",
    "SemiHardRankingLoss",
    "SimilarityContrastiveLoss",
    "SupervisedContrastiveLoss",
    "TokenAlignmentLoss",
]
