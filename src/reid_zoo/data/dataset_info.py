"""What is known about every benchmark, as data: sizes, layout, where its images come from, how one gets it.

Sizes are those a loader must find in the released files (data set notes: CUHK-PEDES, ICFG-PEDES and RSTPReid from their
annotation files, the image-to-image sets as stated by the CLIP-ReID implementation). `None` stands for "not published".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigurationError, DatasetError
from .records import SPLITS, PersonDataset

__all__ = [
    "BENCHMARKS",
    "SINGLE_IMAGE_IDS",
    "CountDifference",
    "DatasetInfo",
    "SplitCounts",
    "check_split",
    "dataset_info",
    "published_counts",
    "require_acceptance",
    "verify_counts",
]

SINGLE_IMAGE_IDS = (1369, 4116, 6116)
"""Identities of CUHK-PEDES' train split that have one image only; MGCC leaves them out."""

Quantity = Literal["identities", "images", "captions"]
_QUANTITIES: tuple[Quantity, ...] = ("identities", "images", "captions")


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Size of one split: identities, images (rows of the annotation file) and captions; `None` if not published."""

    identities: int | None
    images: int | None
    captions: int | None = None


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One benchmark.

    Attributes:
        name: Name for `load_dataset`.
        title: Name in print.
        modality: `"text"` (captions search images) or `"image"` (images search images).
        subject: What the identities are.
        folders: Accepted folders below the data root, preferred one first.
        layout: What the data set's folder holds, in one line.
        splits: Splits that exist.
        counts: Published sizes by split.
        variant_counts: Published sizes of variants that a loader option selects, by `PersonDataset.variant` and split.
        num_cameras: Cameras, `None` where files do not tell.
        num_views: Distinct `view_id`.
        image_sources: Collections that the images were taken from; two sets that share one may share people.
        split_of: Set whose division into train and test this one keeps (its own name if it has its own).
        access: How one gets it.
        licence: Terms.
        retracted: Why it must not be used for new work, empty if it may.
        note: What else to know.
        aliases: Further names that `load_dataset` accepts (those of the released implementations).
        shared_ids: Whether equal ids in train and test mean the same person; false where each split counts from 0.
        repeated_paths: Rows that repeat the image of an earlier row in the released annotation file.
    """

    name: str
    title: str
    modality: Literal["text", "image"]
    folders: tuple[str, ...]
    layout: str
    splits: tuple[str, ...]
    counts: Mapping[str, SplitCounts]
    image_sources: tuple[str, ...]
    access: str
    licence: str
    subject: Literal["person", "vehicle"] = "person"
    variant_counts: Mapping[str, Mapping[str, SplitCounts]] = field(default_factory=dict)
    num_cameras: int | None = None
    num_views: int = 1
    split_of: str = ""
    retracted: str = ""
    note: str = ""
    aliases: tuple[str, ...] = ()
    shared_ids: bool = True
    repeated_paths: int = 0

    @property
    def summary(self) -> str:
        """One line for a list: title, folder, content."""
        mark = " (retracted)" if self.retracted else ""
        return f"{self.title}{mark}: {self.folders[0]}/{{{self.layout}}}"


_TEXT_SPLITS = ("train", "val", "test")
_IMAGE_SPLITS = ("train", "query", "gallery")
_UNKNOWN_LICENCE = "unknown; ask the authors"

_CUHK_COUNTS = {
    "train": SplitCounts(11_003, 34_054, 68_126),
    "val": SplitCounts(1_000, 3_078, 6_158),
    "test": SplitCounts(1_000, 3_074, 6_156),
}
_CUHK_VARIANTS = {"drop_single_image_ids": {**_CUHK_COUNTS, "train": SplitCounts(11_000, 34_051)}}
_ICFG_COUNTS = {"train": SplitCounts(3_102, 34_674, 34_674), "test": SplitCounts(1_000, 19_848, 19_848)}
_ICFG_VARIANTS = {
    "icfg_test_limit=10000": {
        "train": _ICFG_COUNTS["train"],
        "val": SplitCounts(None, 9_848, 9_848),
        "test": SplitCounts(None, 10_000, 10_000),
    }
}
_RSTP_COUNTS = {
    "train": SplitCounts(3_701, 18_505, 37_010),
    "val": SplitCounts(200, 1_000, 2_000),
    "test": SplitCounts(200, 1_000, 2_000),
}
_CUHK_SOURCES = ("CUHK01", "CUHK03", "Market-1501", "VIPeR", "a person search set")
_MADE_WITH_OGOR = (
    "Made from {title} with MGCC's occlusion generator (`reid-zoo occlude`); the authors' own images are not part of "
    "their repository and were drawn without a seed, so figures compare only roughly with the paper."
)
_DUKE_RETRACTION = (
    "DukeMTMC was taken down on 25 April 2019, after it emerged that recording and public release went beyond the "
    "approved study; printed figures are history"
)


def _occluded(name: str, title: str, holistic: str, original_folder: str, parts: str, **shared: object) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=title,
        modality="text",
        folders=(title, original_folder),
        layout=parts,
        access=f"make it from {original_folder} with `reid-zoo occlude`",
        licence=f"that of {original_folder}",
        split_of=holistic,
        note=_MADE_WITH_OGOR.format(title=original_folder),
        **shared,  # type: ignore[arg-type]
    )


BENCHMARKS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="cuhk-pedes",
            title="CUHK-PEDES",
            modality="text",
            folders=("CUHK-PEDES",),
            layout="imgs/, reid_raw.json",
            splits=_TEXT_SPLITS,
            counts=_CUHK_COUNTS,
            variant_counts=_CUHK_VARIANTS,
            image_sources=_CUHK_SOURCES,
            access="on request, from a university address",
            licence="academic use only",
            note="9 images have more than two captions; 4 identities have a single image (1369, 4116 and 6116 in train).",
        ),
        DatasetInfo(
            name="icfg-pedes",
            title="ICFG-PEDES",
            modality="text",
            folders=("ICFG-PEDES",),
            layout="imgs/, ICFG-PEDES.json",
            splits=("train", "test"),
            counts=_ICFG_COUNTS,
            variant_counts=_ICFG_VARIANTS,
            image_sources=("MSMT17",),
            access="on request, by e-mail to the authors",
            licence=_UNKNOWN_LICENCE,
            num_cameras=15,
            note="No validation split; one training image stands in two rows with two identities.",
            repeated_paths=1,
        ),
        DatasetInfo(
            name="rstpreid",
            title="RSTPReid",
            modality="text",
            folders=("RSTPReid",),
            layout="imgs/, data_captions.json",
            splits=_TEXT_SPLITS,
            counts=_RSTP_COUNTS,
            image_sources=("MSMT17",),
            access="public link of the authors",
            licence=_UNKNOWN_LICENCE,
            num_cameras=15,
            note="Same pictures of MSMT17 as ICFG-PEDES under other names and ids.",
        ),
        _occluded(
            "occluded-cuhk-pedes",
            "Occluded-CUHK-PEDES",
            "cuhk-pedes",
            "CUHK-PEDES",
            "imgs/<part>_occlusion_new/, reid_raw.json",
            splits=_TEXT_SPLITS,
            counts=_CUHK_COUNTS,
            variant_counts=_CUHK_VARIANTS,
            image_sources=_CUHK_SOURCES,
        ),
        _occluded(
            "occluded-icfg-pedes",
            "Occluded-ICFG-PEDES",
            "icfg-pedes",
            "ICFG-PEDES",
            "imgs/{train,test}_occlusion_new/, ICFG-PEDES.json",
            splits=("train", "test"),
            counts=_ICFG_COUNTS,
            variant_counts=_ICFG_VARIANTS,
            image_sources=("MSMT17",),
            num_cameras=15,
            repeated_paths=1,
        ),
        _occluded(
            "occluded-rstpreid",
            "Occluded-RSTPReid",
            "rstpreid",
            "RSTPReid",
            "imgs_occlusion_new/, data_captions.json",
            splits=_TEXT_SPLITS,
            counts=_RSTP_COUNTS,
            image_sources=("MSMT17",),
            num_cameras=15,
        ),
        DatasetInfo(
            name="market-1501",
            title="Market-1501",
            modality="image",
            folders=("Market-1501-v15.09.15", "Market-1501"),
            layout="bounding_box_train/, query/, bounding_box_test/",
            splits=_IMAGE_SPLITS,
            counts={
                "train": SplitCounts(751, 12_936),
                "query": SplitCounts(750, 3_368),
                "gallery": SplitCounts(751, 15_913),
            },
            num_cameras=6,
            image_sources=("Market-1501",),
            access="public",
            licence=_UNKNOWN_LICENCE,
            note="Junk images (person -1, 3,819 of 19,732 in the test folder) are skipped; person 0, the background, "
            "stays in the gallery.",
            aliases=("market1501",),
        ),
        DatasetInfo(
            name="msmt17",
            title="MSMT17",
            modality="image",
            folders=("MSMT17", "MSMT17_V1", "MSMT17_V2"),
            layout="train/, test/ (V2: mask_train_v2/, mask_test_v2/), list_{train,val,query,gallery}.txt",
            splits=_IMAGE_SPLITS,
            counts={
                "train": SplitCounts(1_041, 32_621),
                "query": SplitCounts(3_060, 11_659),
                "gallery": SplitCounts(3_060, 82_161),
            },
            variant_counts={
                "combine_train_val=False": {
                    "train": SplitCounts(None, 30_248),
                    "val": SplitCounts(None, 2_373),
                    "query": SplitCounts(3_060, 11_659),
                    "gallery": SplitCounts(3_060, 82_161),
                }
            },
            num_cameras=15,
            image_sources=("MSMT17",),
            access="on request",
            licence=_UNKNOWN_LICENCE,
            note="Train and test both number their people from 0.",
            shared_ids=False,
        ),
        DatasetInfo(
            name="dukemtmc-reid",
            title="DukeMTMC-reID",
            modality="image",
            folders=("dukemtmcreid/DukeMTMC-reID", "DukeMTMC-reID"),
            layout="bounding_box_train/, query/, bounding_box_test/",
            splits=_IMAGE_SPLITS,
            counts={
                "train": SplitCounts(702, 16_522),
                "query": SplitCounts(702, 2_228),
                "gallery": SplitCounts(1_110, 17_661),
            },
            num_cameras=8,
            image_sources=("DukeMTMC",),
            access="withdrawn by its authors",
            licence="withdrawn",
            retracted=_DUKE_RETRACTION,
            aliases=("dukemtmc",),
        ),
        DatasetInfo(
            name="occluded-duke",
            title="Occluded-Duke",
            modality="image",
            folders=("dukemtmcreid/Occluded_Duke", "Occluded_Duke", "Occluded-Duke"),
            layout="bounding_box_train/, query/, bounding_box_test/",
            splits=_IMAGE_SPLITS,
            counts={
                "train": SplitCounts(702, 15_618),
                "query": SplitCounts(519, 2_210),
                "gallery": SplitCounts(1_110, 17_661),
            },
            num_cameras=8,
            image_sources=("DukeMTMC",),
            access="withdrawn: derived from DukeMTMC",
            licence="withdrawn",
            retracted=_DUKE_RETRACTION,
            note="The released loader repeats the sizes of DukeMTMC-reID; the ones here are right.",
            aliases=("occ-duke",),
        ),
        DatasetInfo(
            name="veri-776",
            title="VeRi-776",
            modality="image",
            subject="vehicle",
            folders=("VeRi",),
            layout="image_train/, image_query/, image_test/, keypoint_train.txt, keypoint_test.txt",
            splits=_IMAGE_SPLITS,
            counts={
                "train": SplitCounts(576, 37_778),
                "query": SplitCounts(200, 1_678),
                "gallery": SplitCounts(200, 11_579),
            },
            num_cameras=20,
            num_views=8,
            image_sources=("VeRi-776",),
            access="unknown",
            licence=_UNKNOWN_LICENCE,
            note="The views come from two keypoint files of the VehicleReIDKeyPointData project, not of the data set.",
            aliases=("veri", "veri776"),
        ),
        DatasetInfo(
            name="vehicleid",
            title="VehicleID",
            modality="image",
            subject="vehicle",
            folders=("VehicleID_V1.0", "VehicleID"),
            layout="image/, train_test_split/{train_list,test_list_800,test_list_1600,test_list_2400}.txt",
            splits=_IMAGE_SPLITS,
            counts={
                "train": SplitCounts(13_164, 113_346),
                "query": SplitCounts(800, 5_693),
                "gallery": SplitCounts(800, 800),
            },
            variant_counts={
                f"test_size={size}": {
                    "train": SplitCounts(13_164, 113_346),
                    "query": SplitCounts(size, queries),
                    "gallery": SplitCounts(size, size),
                }
                for size, queries in ((1_600, 11_777), (2_400, 17_377))
            },
            image_sources=("VehicleID",),
            access="unknown",
            licence=_UNKNOWN_LICENCE,
            note="No fixed queries: one random image per vehicle is the gallery, averaged over ten trials.",
        ),
    )
}
"""The benchmarks by name, in the order of the documentation."""

_BY_ANY_NAME = {spelling: info for info in BENCHMARKS.values() for spelling in (info.name, *info.aliases)}


def dataset_info(name: str) -> DatasetInfo:
    """What is known about a benchmark.

    Args:
        name: Its name or an alias; upper case and underscores do not matter.

    Returns:
        The entry of `BENCHMARKS`.

    Raises:
        ConfigurationError: If it is none of the benchmarks (suggests the nearest one).
    """
    wanted = name.strip().lower().replace("_", "-")
    if wanted in _BY_ANY_NAME:
        return _BY_ANY_NAME[wanted]
    nearest = difflib.get_close_matches(wanted, _BY_ANY_NAME, n=1, cutoff=0.4)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ConfigurationError(f"{name!r} is not a benchmark; {suggestion}Known: {', '.join(BENCHMARKS)}.")


def check_split(info: DatasetInfo, split: str) -> None:
    """Refuse a split that is not one, or that this benchmark does not have.

    Args:
        info: The benchmark.
        split: What was asked for; `"test"` (queries and gallery together) and `"all"` are always there.

    Raises:
        ConfigurationError: If no data set has such a split.
        DatasetError: If others have it, but not this one.
    """
    if split not in (*SPLITS, "all"):
        raise ConfigurationError(f"Unknown split {split!r}; choose {', '.join(map(repr, SPLITS))} or 'all'.")
    if split not in (*info.splits, "test", "all"):
        raise DatasetError(
            f"{info.title} has no {split} split; use one of {', '.join(dict.fromkeys((*info.splits, 'test', 'all')))}."
        )


def require_acceptance(info: DatasetInfo, accept_retracted: bool) -> None:
    """Refuse a retracted data set unless its state was accepted explicitly.

    Args:
        info: The benchmark.
        accept_retracted: What the caller said.

    Raises:
        ConfigurationError: If the set is retracted and that was not accepted.
    """
    if info.retracted and not accept_retracted:
        raise ConfigurationError(
            f"{info.title} is retracted: {info.retracted}. To read a copy all the same, say so with "
            "accept_retracted=True (--accept-retracted)."
        )


@dataclass(frozen=True, slots=True)
class CountDifference:
    """One published figure that the files at hand do not reach or exceed."""

    split: str
    quantity: Quantity
    expected: int
    found: int

    def __str__(self) -> str:
        return f"{self.split}: {self.found:,} {self.quantity}, published {self.expected:,}"


def published_counts(dataset: PersonDataset) -> Mapping[str, SplitCounts]:
    """The published sizes that hold for a loaded benchmark, by split.

    Args:
        dataset: What `load_dataset` returned.

    Returns:
        Sizes by split; empty if the loader was given an option for which nothing was published.

    Raises:
        ConfigurationError: If the data set is none of the benchmarks.
    """
    info = dataset_info(dataset.name)
    return info.variant_counts.get(dataset.variant, {}) if dataset.variant else info.counts


def verify_counts(dataset: PersonDataset) -> list[CountDifference]:
    """Compare a loaded benchmark with its published size; people use subsets, so a difference is no error.

    Args:
        dataset: What `load_dataset` returned; with split `"all"` every split is compared, with the `"test"` of an
            image-to-image set queries and gallery are.

    Returns:
        The figures that differ; empty if all agree. Figures that were not published are not compared.

    Raises:
        ConfigurationError: If the data set is none of the benchmarks.
    """
    published = published_counts(dataset)
    if not published:
        return []
    present = {str(record.metadata.get("split", dataset.split)) for record in dataset}
    if dataset.split == "all":
        wanted = set(published)
    elif dataset.split == "test" and "test" not in published:
        wanted = {"query", "gallery"} & set(published)
    else:
        wanted = {dataset.split}
    differences = []
    for split in [split for split in SPLITS if split in wanted | present]:
        records = [record for record in dataset if record.metadata.get("split", dataset.split) == split]
        found: dict[Quantity, int] = {
            "identities": len({record.person_id for record in records}),
            "images": len(records),
            "captions": sum(len(record.captions) for record in records),
        }
        expected = published.get(split, SplitCounts(0, 0, 0))
        for quantity in _QUANTITIES:
            figure = getattr(expected, quantity)
            if figure is not None and figure != found[quantity]:
                differences.append(CountDifference(split, quantity, figure, found[quantity]))
    return differences
