"""The registry: published sizes, and comparing a loaded set with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reid_zoo.data.dataset_info import BENCHMARKS, dataset_info, published_counts, verify_counts
from reid_zoo.data.loading import load_dataset
from reid_zoo.data.records import PersonDataset, PersonRecord
from reid_zoo.errors import ConfigurationError


def test_published_sizes_add_up() -> None:
    """To the totals that the papers print."""
    totals = {
        name: tuple(sum(getattr(c, q) for c in BENCHMARKS[name].counts.values()) for q in ("identities", "images"))
        for name in ("cuhk-pedes", "icfg-pedes", "rstpreid", "occluded-rstpreid")
    }
    assert totals == {
        "cuhk-pedes": (13_003, 40_206),
        "icfg-pedes": (4_102, 54_522),
        "rstpreid": (4_101, 20_505),
        "occluded-rstpreid": (4_101, 20_505),
    }
    captions = {
        name: sum(c.captions or 0 for c in BENCHMARKS[name].counts.values()) for name in ("cuhk-pedes", "rstpreid")
    }
    assert captions == {"cuhk-pedes": 80_440, "rstpreid": 41_010}
    images = {name: sum(c.images or 0 for c in info.counts.values()) for name, info in BENCHMARKS.items()}
    assert images["msmt17"] == 126_441
    assert images["dukemtmc-reid"] == 36_411
    assert images["occluded-duke"] == 35_489
    assert images["market-1501"] - 3_368 + 3_819 == 32_668  # the paper counts junk and not the queries
    assert images["veri-776"] - 1_678 == 49_357  # nor the queries
    sizes = {variant: counts["query"].images for variant, counts in BENCHMARKS["vehicleid"].variant_counts.items()}
    assert {variant: (queries or 0) + int(variant[10:]) for variant, queries in sizes.items()} == {
        "test_size=1600": 13_377,
        "test_size=2400": 19_777,
    }


def test_retracted_sets_are_marked_and_nothing_else() -> None:
    assert [info.name for info in BENCHMARKS.values() if info.retracted] == ["dukemtmc-reid", "occluded-duke"]
    assert "(retracted)" in BENCHMARKS["occluded-duke"].summary


def test_names_and_aliases() -> None:
    assert dataset_info("OCC_Duke").name == "occluded-duke"
    assert dataset_info("market1501") is BENCHMARKS["market-1501"]
    with pytest.raises(ConfigurationError, match="'msmt18' is not a benchmark; did you mean 'msmt17'"):
        dataset_info("msmt18")


def write_cuhk(root: Path, per_split: int = 1) -> None:
    records = [
        {"id": 1, "file_path": f"{split}{index}.jpg", "captions": ["One.", "Two."], "split": split}
        for split in ("train", "test")
        for index in range(per_split)
    ]
    (root / "CUHK-PEDES" / "imgs").mkdir(parents=True)
    (root / "CUHK-PEDES" / "reid_raw.json").write_text(json.dumps(records))


def test_differences_are_reported_per_split_and_quantity(tmp_path: Path) -> None:
    write_cuhk(tmp_path)
    test = load_dataset("cuhk-pedes", tmp_path, "test", check_images=False)
    assert [str(difference) for difference in verify_counts(test)] == [
        "test: 1 identities, published 1,000",
        "test: 1 images, published 3,074",
        "test: 2 captions, published 6,156",
    ]
    everything = load_dataset("cuhk-pedes", tmp_path, "all", check_images=False)
    assert {difference.split for difference in verify_counts(everything)} == {"train", "val", "test"}


def test_only_published_figures_are_compared(tmp_path: Path) -> None:
    write_cuhk(tmp_path)
    train = load_dataset("cuhk-pedes", tmp_path, "train", check_images=False, drop_single_image_ids=True)
    assert [difference.quantity for difference in verify_counts(train)] == ["identities", "images"]
    limited = PersonDataset([], name="icfg-pedes", split="test", root=tmp_path, variant="icfg_test_limit=7")
    assert published_counts(limited) == {}
    assert verify_counts(limited) == []
    with pytest.raises(ConfigurationError, match="'folder' is not a benchmark"):
        verify_counts(PersonDataset([], name="folder", split="test", root=tmp_path))


def test_full_size_data_has_no_difference(tmp_path: Path) -> None:
    counts = BENCHMARKS["rstpreid"].counts["test"]
    records = [
        {
            "id": index % (counts.identities or 0),
            "img_path": f"{index}.jpg",
            "captions": ["One.", "Two."],
            "split": "test",
        }
        for index in range(counts.images or 0)
    ]
    base = tmp_path / "RSTPReid"
    (base / "imgs").mkdir(parents=True)
    (base / "data_captions.json").write_text(json.dumps(records))
    assert verify_counts(load_dataset("rstpreid", tmp_path, "test", check_images=False)) == []


def test_the_test_split_of_images_is_compared_as_queries_and_gallery(tmp_path: Path) -> None:
    records = [
        PersonRecord(tmp_path / f"{part}{index}.jpg", index, (), index % ids, 0, {"split": part})
        for part, ids, size in (("query", 750, 3_368), ("gallery", 751, 15_912))
        for index in range(size)
    ]
    found = verify_counts(PersonDataset(records, name="market-1501", split="test", root=tmp_path))
    assert [str(difference) for difference in found] == ["gallery: 15,912 images, published 15,913"]
