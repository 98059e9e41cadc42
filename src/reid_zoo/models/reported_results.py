"""Figures that the papers (or the authors' repositories) report for the methods of the zoo; none of them was measured by us.

Read without importing any model. Ablations are in `ablations.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["REPORTED_RESULTS", "ReportedResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedResult:
    """Figures of one model on one data set.

    Attributes:
        variant: Which model of the method.
        dataset: Name of the data set; test split.
        metrics: Metric → per cent.
        source: Where it is printed.
    """

    variant: str
    dataset: str
    metrics: Mapping[str, float]
    source: str


def _results(
    variant: str, source: str, names: str, figures: Mapping[str, tuple[float, ...]]
) -> tuple[ReportedResult, ...]:
    return tuple(
        ReportedResult(
            variant=variant, dataset=dataset, metrics=dict(zip(names.split(), values, strict=False)), source=source
        )
        for dataset, values in figures.items()
    )


def _image_results(variant: str, figures: Mapping[str, tuple[float, float]]) -> tuple[ReportedResult, ...]:
    return _results(variant, "paper, Table 2", "mAP R1", figures)


_IRRA_REPOSITORY = "official repository"
_VFE_TPS_COMPARISONS = "VFE-TPS paper, Tables 1-3"

REPORTED_RESULTS: dict[str, tuple[ReportedResult, ...]] = {
    "cfine": (
        *_results(
            "CLIP ViT-B/16 + BERT",
            "paper, Tables I-III",
            "R1 R5 R10",
            {
                "cuhk-pedes": (69.57, 85.93, 91.15),
                "icfg-pedes": (60.83, 76.55, 82.42),
                "rstpreid": (50.55, 72.50, 81.60),
            },
        ),
        *_results(
            "ImageNet ViT-B/16 + BERT",
            "paper, Tables I-III",
            "R1 R5 R10",
            {
                "cuhk-pedes": (65.07, 83.01, 89.00),
                "icfg-pedes": (55.69, 72.72, 79.46),
                "rstpreid": (45.85, 70.30, 78.40),
            },
        ),
    ),
    "vfe_tps": _results(
        "CLIP ViT-B/16",
        "paper, Tables 1-3",
        "R1 R5 R10 mAP",
        {
            "cuhk-pedes": (72.47, 88.24, 93.24, 64.26),
            "icfg-pedes": (62.71, 78.73, 84.51, 43.08),
            "rstpreid": (59.25, 81.90, 88.85, 45.96),
        },
    ),
    "irra": _results(
        "CLIP ViT-B/16",
        _IRRA_REPOSITORY,
        "R1 R5 R10 mAP mINP",
        {
            "cuhk-pedes": (73.38, 89.93, 93.71, 66.13, 50.24),
            "icfg-pedes": (63.46, 80.24, 85.82, 38.05, 7.92),
            "rstpreid": (60.20, 81.30, 88.20, 47.17, 25.28),
        },
    ),
    "mgcc": _results(
        "CLIP ViT-B/32",
        "paper, Table 2",
        "R1 R5 R10 mAP Rsum",
        {
            "occluded-cuhk-pedes": (62.44, 82.44, 88.52, 54.18, 233.40),
            "occluded-icfg-pedes": (59.28, 78.32, 84.75, 33.30, 222.35),
            "occluded-rstpreid": (49.85, 74.95, 83.45, 38.48, 208.25),
        },
    ),
    "clip_reid": (
        *_results("ViT-B/16 + SIE + OLP", "paper, Table 3", "mAP R1", {"veri-776": (84.5, 97.3)}),
        *_image_results(
            "ViT-B/16 + SIE + OLP",
            {
                "msmt17": (75.8, 89.7),
                "market-1501": (90.5, 95.4),
                "dukemtmc-reid": (83.1, 90.8),
                "occluded-duke": (60.3, 67.2),
            },
        ),
        *_image_results(
            "ViT-B/16",
            {
                "msmt17": (73.4, 88.7),
                "market-1501": (89.6, 95.5),
                "dukemtmc-reid": (82.5, 90.0),
                "occluded-duke": (59.5, 67.1),
            },
        ),
        *_image_results(
            "RN50",
            {
                "msmt17": (63.0, 84.4),
                "market-1501": (89.8, 95.7),
                "dukemtmc-reid": (80.7, 90.0),
                "occluded-duke": (53.5, 61.0),
            },
        ),
        *_image_results(
            "ViT-B/16 baseline",
            {
                "msmt17": (66.1, 84.4),
                "market-1501": (86.4, 93.3),
                "dukemtmc-reid": (80.0, 88.8),
                "occluded-duke": (53.5, 60.8),
            },
        ),
        *_image_results(
            "RN50 baseline",
            {
                "msmt17": (60.7, 82.1),
                "market-1501": (88.1, 94.7),
                "dukemtmc-reid": (79.3, 88.6),
                "occluded-duke": (47.4, 54.2),
            },
        ),
        *_results("ViT-B/16 + OLP", "paper, Table 3", "R1 R5", {"vehicleid": (85.5, 97.2)}),
        *_results("ViT-B/16", "paper, Table 3", "mAP R1", {"veri-776": (83.3, 97.4)}),
        *_results("ViT-B/16", "paper, Table 3", "R1 R5", {"vehicleid": (85.3, 97.6)}),
        *_results("RN50", "paper, Table 3", "mAP R1", {"veri-776": (80.3, 96.8)}),
        *_results("RN50", "paper, Table 3", "R1 R5", {"vehicleid": (85.2, 97.1)}),
    ),
    "dual_encoder": (
        *_results(
            "CLIP ViT-B/16 fine-tuned",
            f"IRRA's {_IRRA_REPOSITORY}",
            "R1 R5 R10 mAP mINP",
            {
                "cuhk-pedes": (68.19, 86.47, 91.47, 61.12, 44.86),
                "icfg-pedes": (56.74, 75.72, 82.26, 31.84, 5.03),
                "rstpreid": (54.05, 80.70, 88.00, 43.41, 22.31),
            },
        ),
        *_results(
            "CLIP ViT-B/16 fine-tuned",
            "VFE-TPS paper, Table 5",
            "R1 R5 R10 mAP",
            {"cuhk-pedes": (66.78, 85.29, 91.20, 59.68)},
        ),
        *_results(
            "CLIP ViT-B/16 linear probe",
            "VFE-TPS paper, Table 5",
            "R1 R5 R10 mAP",
            {"cuhk-pedes": (24.16, 38.99, 46.69, 21.25)},
        ),
        *_results(
            "CLIP ViT-B/16 zero-shot",
            "VFE-TPS paper, Table 5",
            "R1 R5 R10 mAP",
            {"cuhk-pedes": (12.61, 27.08, 35.48, 12.36)},
        ),
        *_results(
            "ViT + BERT with VFE-TPS's training",
            _VFE_TPS_COMPARISONS,
            "R1 R5 R10 mAP",
            {
                "cuhk-pedes": (70.12, 87.96, 92.78, 63.69),
                "icfg-pedes": (60.98, 77.65, 83.51, 40.01),
                "rstpreid": (57.31, 79.98, 87.87, 44.01),
            },
        ),
    ),
}
"""Model type → figures, the strongest published model of each data set first."""
