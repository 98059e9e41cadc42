"""Tiny copies of the benchmarks' folders: real layout, real file names, empty or tiny images."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

MARKET = {
    "bounding_box_train": ("0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg", "0002_c6s1_000776_01.jpg"),
    "query": ("0001_c1s1_001051_00.jpg", "0003_c2s1_000001_00.jpg"),
    "bounding_box_test": (
        "-1_c3s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c2s1_000301_00.jpg",
        "0003_c2s1_000002_00.jpg",
    ),
}
DUKE = {
    "bounding_box_train": ("0001_c2_f0046182.jpg", "7140_c8_f0046302.jpg"),
    "query": ("0005_c2_f0046985.jpg",),
    "bounding_box_test": ("0005_c5_f0051421.jpg", "0033_c1_f0057706.jpg"),
}
VERI = {
    "image_train": ("0001_c001_00016450_0.jpg", "0004_c020_00084250_0.jpg", "0004_c003_00084251_0.jpg"),
    "image_query": ("0002_c002_00030600_0.jpg",),
    "image_test": ("0002_c002_00030600_0.jpg", "0002_c004_00084250_0.jpg", "-1_c001_00000001_0.jpg"),
}
MSMT17 = {
    "list_train.txt": ("0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_000_15_0303noon_0008_0_ex.jpg 1"),
    "list_val.txt": ("0001/0001_001_03_0303noon_0009_0.jpg 1",),
    "list_query.txt": ("0000/0000_004_05_0303morning_0020_0.jpg 0",),
    "list_gallery.txt": (
        "0000/0000_005_06_0303morning_0021_0.jpg 0",
        "0001/0001_000_01_0303morning_0022_0.jpg 1",
    ),
}
VEHICLEID = {
    "train_list.txt": ("0000001 5", "0000002 5", "0000003 9"),
    "test_list_800.txt": ("0000011 21", "0000012 21", "0000013 21", "0000014 22", "0000015 22", "0000016 23"),
    "test_list_1600.txt": ("0000011 21", "0000012 21"),
}


def draw(path: Path, shade: int = 90) -> None:
    """Write an image of a few pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), (shade % 256, 120, 60)).save(path)


def write_folders(base: Path, folders: dict[str, tuple[str, ...]]) -> Path:
    """Market-1501, DukeMTMC-reID, Occluded-Duke and VeRi-776: folders of named images."""
    for folder, names in folders.items():
        for index, name in enumerate(names):
            draw(base / folder / name, 20 * index)
    return base


def write_msmt17(base: Path, train: str = "train", test: str = "test") -> Path:
    """MSMT17: list files and images."""
    for list_file, lines in MSMT17.items():
        folder = train if list_file in ("list_train.txt", "list_val.txt") else test
        for line in lines:
            draw(base / folder / line.split()[0])
        (base / list_file).write_text("\n".join(lines) + "\n")
    return base


def write_vehicleid(base: Path) -> Path:
    """VehicleID: list files and images."""
    for list_file, lines in VEHICLEID.items():
        (base / "train_test_split").mkdir(parents=True, exist_ok=True)
        (base / "train_test_split" / list_file).write_text("\n".join(lines) + "\n")
        for line in lines:
            draw(base / "image" / f"{line.split()[0]}.jpg")
    return base


def write_keypoints(base: Path, train: Iterable[tuple[str, int]], test: Iterable[tuple[str, int]]) -> None:
    """VeRi-776: the two keypoint files, from (image path, view)."""
    for name, entries in (("keypoint_train.txt", train), ("keypoint_test.txt", test)):
        lines = [" ".join([image, *["-1"] * 40, str(view)]) for image, view in entries]
        (base / name).write_text("\n".join(lines) + "\n")


def write_cuhk(base: Path, people: Iterable[tuple[str, int]] = (("train", 1), ("val", 2), ("test", 3))) -> Path:
    """CUHK-PEDES: two images with two captions of each person, given as (split, identity)."""
    records = []
    for split, person in people:
        for index in range(2):
            relative = f"cam_a/{person:03d}_{index}.png"
            draw(base / "imgs" / relative, 25 * person)
            captions = [f"Person {person} in a coat.", f"View {index} of person {person}."]
            records.append({"split": split, "captions": captions, "file_path": relative, "id": person})
    (base / "reid_raw.json").write_text(json.dumps(records))
    return base
