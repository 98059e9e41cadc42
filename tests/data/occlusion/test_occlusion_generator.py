"""Whole occluded sets: reproducible, resumable, verifiable, and readable as a data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_zoo import OcclusionGenerator
from reid_zoo.data import InstanceLibrary, load_dataset
from reid_zoo.data.occlusion import OcclusionInstance, read_manifest
from reid_zoo.errors import ConfigurationError, DatasetError, ImageReadError

FOLDER = "Occluded-CUHK-PEDES"
MANIFEST = "occlusion_manifest.jsonl"
JOURNAL = "occlusion_manifest.unfinished.jsonl"


@pytest.fixture(scope="module")
def library() -> InstanceLibrary:
    rng = np.random.default_rng(3)
    return InstanceLibrary(
        [
            OcclusionInstance(name, 1, Image.fromarray(rng.integers(0, 256, (20, 14, 4), dtype=np.uint8)))
            for name in ("bench", "kite", "pedestrian", "suitcase")
        ]
    )


def write_dataset(root: Path, *, people: int = 8, images: int = 3, reverse: bool = False) -> Path:
    """A small CUHK-PEDES of noise: PNG and JPEG, three splits."""
    base = root / "CUHK-PEDES"
    records = []
    for person in range(people):
        split = "train" if person < people - 2 else ("val", "test")[person % 2]
        for number in range(images):
            path = f"{('cam_a', 'Market')[person % 2]}/{person}_{number}.{('png', 'jpg')[number % 2]}"
            rng = np.random.default_rng([person, number])
            file = base / "imgs" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(file)
            captions = [f"person {person} image {number} caption {c}" for c in range(2)]
            records.append({"split": split, "captions": captions, "id": person + 1, "file_path": path})
    (base / "reid_raw.json").write_text(json.dumps(records[::-1] if reverse else records))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def generator(library: InstanceLibrary, **options: object) -> OcclusionGenerator:
    return OcclusionGenerator("cuhk-pedes", library, **{"fraction": 0.5, **options})  # type: ignore[arg-type]


# --- the set ---------------------------------------------------------------------------------------------------------


def test_the_result_is_a_data_set(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    summary = generator(library).generate(data, tmp_path)
    assert summary.folder == tmp_path / FOLDER
    assert (summary.images, summary.written, summary.occluded) == (24, 24, 13)
    assert summary.occluded_by_split == {"train": 9, "val": 2, "test": 2}
    assert sum(summary.occluded_by_class.values()) == 13
    assert set(summary.occluded_by_class) <= {"bench", "kite", "pedestrian", "suitcase"}
    holistic, occluded = load_dataset("cuhk-pedes", data, "all"), load_dataset("occluded-cuhk-pedes", tmp_path, "all")
    assert [record.captions for record in occluded] == [record.captions for record in holistic]
    entries = {entry.output: entry for entry in read_manifest(summary.manifest).entries}
    for before, after in zip(holistic, occluded, strict=True):
        first, second = (np.asarray(Image.open(record.image_path)).astype(int) for record in (before, after))
        assert first.shape == second.shape
        entry = entries[after.image_path.relative_to(summary.folder).as_posix()]
        if after.image_path.suffix == ".png":
            assert (first != second).any() == (entry.instance is not None)
        if entry.visible_box is not None:
            left, top, right, bottom = entry.visible_box
            assert 0 <= left < right <= 24
            assert 0 <= top < bottom <= 48
            assert 0 < entry.visible_fraction < 1
        else:
            assert entry.visible_fraction == 1


def test_memory_and_disk_agree(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    made = generator(library)
    summary = made.generate(data, tmp_path)
    for entry in read_manifest(summary.manifest).entries:
        if entry.instance is not None and entry.image.endswith(".png"):
            image = Image.open(data / "CUHK-PEDES" / entry.image)
            pasted = made.occlude(image, entry.image.removeprefix("imgs/"))
            assert (pasted.instance.name, pasted.box) == (entry.instance, entry.box)
            assert pasted.image.tobytes() == Image.open(summary.folder / entry.output).tobytes()


def test_icfg_keeps_an_image_that_two_identities_share(library: InstanceLibrary, tmp_path: Path) -> None:
    """ICFG-PEDES names one training image twice; it is written once and stays in both rows."""
    base = tmp_path / "ICFG-PEDES"
    paths = ["train/0000/a.jpg", "test/0001/b.jpg", "train/0000/a.jpg", "test/0003/c.jpg"]
    splits = ["train", "train", "train", "test"]  # the folder says nothing about the split
    for path in paths:
        (base / "imgs" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 40)).save(base / "imgs" / path)
    rows = [
        {"split": split, "captions": ["a person"], "id": number, "file_path": path}
        for number, (path, split) in enumerate(zip(paths, splits, strict=True))
    ]
    (base / "ICFG-PEDES.json").write_text(json.dumps(rows))
    summary = OcclusionGenerator("icfg-pedes", library, fraction=1.0).generate(tmp_path, tmp_path / "out")
    assert (summary.images, summary.occluded_by_split) == (3, {"train": 2, "test": 1})
    assert [entry.output for entry in read_manifest(summary.manifest).entries] == [
        "imgs/train_occlusion_new/0000/a.jpg",
        "imgs/test_occlusion_new/0001/b.jpg",
        "imgs/test_occlusion_new/0003/c.jpg",
    ]
    assert len(json.loads((summary.folder / "processed_data" / "train_json.json").read_text())) == 3
    assert len(load_dataset("occluded-icfg-pedes", tmp_path / "out", "train")) == 3


def test_grey_images_stay_grey(library: InstanceLibrary, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "in", people=3)
    for path in (root / "CUHK-PEDES" / "imgs").rglob("*.*"):
        Image.open(path).convert("L").save(path)
    folder = generator(library, fraction=1.0).generate(root, tmp_path / "out").folder
    assert {Image.open(path).mode for path in (folder / "imgs").rglob("*.*")} == {"L"}


# --- determinism -----------------------------------------------------------------------------------------------------


def test_workers_and_progress_change_nothing(
    data: Path, library: InstanceLibrary, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = generator(library, seed=4).generate(data, tmp_path / "a").folder
    many = generator(library, seed=4).generate(data, tmp_path / "b", num_workers=5, progress=True).folder
    assert contents(one) == contents(many)
    assert "24/24" in capfd.readouterr().err


def test_the_order_of_the_records_changes_no_image(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "reversed", reverse=True)
    first = read_manifest(generator(library).generate(data, tmp_path / "a").manifest)
    second = read_manifest(generator(library).generate(other, tmp_path / "b").manifest)
    assert sorted(first.entries, key=lambda e: e.image) == sorted(second.entries, key=lambda e: e.image)
    assert first.entries != second.entries


def test_the_seed_decides(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    manifests = [
        read_manifest(generator(library, seed=seed).generate(data, tmp_path / str(seed)).manifest) for seed in (0, 1)
    ]
    chosen = [{entry.image for entry in manifest.entries if entry.instance} for manifest in manifests]
    assert chosen[0] != chosen[1]


# --- resuming --------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from reid_zoo.data.occlusion import generator as module, InstanceLibrary, OcclusionGenerator
write, count = module.write_whole_file, 0
def write_then_die(path, content):
    global count
    if path.parent.parent.name == "imgs":
        count += 1
        if count == 8:  # half of the file is there, and half of a line of the journal
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name + ".partial").write_bytes(content[: len(content) // 2])
            with next(Path(sys.argv[2]).rglob("*.unfinished.jsonl")).open("ab") as journal:
                journal.write(b'{"image": "imgs/ca')
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    write(path, content)
module.write_whole_file = write_then_die
library = InstanceLibrary.from_folder(sys.argv[3])
OcclusionGenerator("cuhk-pedes", library, fraction=0.5).generate(sys.argv[1], sys.argv[2])
"""


def test_a_killed_run_continues(
    data: Path, library: InstanceLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "instances").mkdir()
    for instance in library:
        instance.image.save(tmp_path / "instances" / f"{instance.name}.png")
    arguments = [sys.executable, "-c", KILLED, str(data), str(tmp_path / "out"), str(tmp_path / "instances")]
    assert subprocess.run(arguments, env=os.environ, check=False).returncode not in (0, 1)  # 1: an exception
    folder = tmp_path / "out" / FOLDER
    assert len(list(folder.rglob("*.partial"))) == 1
    assert not (folder / MANIFEST).exists()
    with pytest.raises(DatasetError, match="is not finished"):
        OcclusionGenerator.verify(folder)
    times = {path: path.stat().st_mtime_ns for path in (folder / "imgs").rglob("*.*g")}
    assert len(times) == 7

    summary = generator(library).generate(data, tmp_path / "out")
    assert summary.written == 24 - 7
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert contents(folder) == contents(generator(library).generate(data, tmp_path / "again").folder)


def test_a_finished_set_is_kept_and_a_damaged_image_made_again(
    data: Path, library: InstanceLibrary, tmp_path: Path
) -> None:
    folder = generator(library).generate(data, tmp_path).folder
    before = contents(folder)
    assert generator(library).generate(data, tmp_path).written == 0
    damaged, lost, *_ = sorted((folder / "imgs").rglob("*.png"))
    damaged.write_bytes(damaged.read_bytes()[:-10])
    lost.unlink()
    assert generator(library).generate(data, tmp_path).written == 2
    assert contents(folder) == before


def test_an_image_that_cannot_be_read_stops_the_run_and_nothing_is_lost(
    library: InstanceLibrary, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "in")
    bad = root / "CUHK-PEDES" / "imgs" / "Market" / "5_1.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    for workers in (1, 3):
        with pytest.raises(ImageReadError, match=r"5_1.jpg"):
            generator(library).generate(root, tmp_path / "out", num_workers=workers)
    bad.write_bytes(good)
    assert 0 < generator(library).generate(root, tmp_path / "out").written < 24


# --- verifying and rebuilding ----------------------------------------------------------------------------------------


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_verify_finds_every_kind_of_difference(library: InstanceLibrary, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "in")
    folder = generator(library).generate(root, tmp_path / "out").folder
    assert OcclusionGenerator.verify(folder, root, library).ok
    assert OcclusionGenerator.verify(folder / MANIFEST).problems == []

    flip_byte(folder / "imgs" / "cam_a_occlusion_new" / "0_0.png")
    flip_byte(folder / "processed_data" / "train_save.json")
    (folder / "imgs" / "Market_occlusion_new" / "1_1.jpg").unlink()
    (folder / "imgs" / "cam_a_occlusion_new" / "extra.png").write_bytes(b"x")
    flip_byte(root / "CUHK-PEDES" / "imgs" / "cam_a" / "2_0.png")
    assert set(OcclusionGenerator.verify(folder, root, library).problems) == {
        "changed: imgs/cam_a_occlusion_new/0_0.png",
        "changed: processed_data/train_save.json",
        "missing: imgs/Market_occlusion_new/1_1.jpg",
        "not in the manifest: imgs/cam_a_occlusion_new/extra.png",
        "holistic image missing or changed: imgs/cam_a/2_0.png",
    }


def test_verify_notices_another_library_and_another_box(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    folder = generator(library).generate(data, tmp_path).folder
    others = [OcclusionInstance(i.class_name, i.number, i.image.rotate(180)) for i in library if i.class_name == "kite"]
    result = OcclusionGenerator.verify(folder, data, InstanceLibrary([*others, library["bench1"]]))
    assert result.changed_instances == ["kite1", "pedestrian1", "suitcase1"]
    lines = (folder / MANIFEST).read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if json.loads(line).get("instance") is not None)
    entry = json.loads(lines[place])
    entry["box"] = [value + 1 for value in entry["box"]]
    lines[place] = json.dumps(entry)
    (folder / MANIFEST).write_text("\n".join(lines) + "\n")
    assert OcclusionGenerator.verify(folder, data, library).not_reproduced == [entry["output"]]


def test_a_set_can_be_rebuilt_from_its_manifest_alone(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    options = {"seed": 9, "size": "uniform", "position": "random_horizontal", "drop_single_image_ids": False}
    first = generator(library, **options).generate(data, tmp_path / "a")
    copy = tmp_path / "manifest.jsonl"
    copy.write_bytes(first.manifest.read_bytes())
    second = OcclusionGenerator.rebuild(copy, data, tmp_path / "b", library)
    assert contents(first.folder) == contents(second.folder)
    assert OcclusionGenerator.rebuild(copy, data, tmp_path / "b", library).written == 0


def test_rebuilding_uses_the_recorded_placement_not_the_seed(
    data: Path, library: InstanceLibrary, tmp_path: Path
) -> None:
    summary = generator(library).generate(data, tmp_path / "a")
    lines = summary.manifest.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if json.loads(line).get("instance") is not None)
    lines[place] = json.dumps(json.loads(lines[place]) | {"box": [0, 0, 12, 12]})
    copy = tmp_path / "manifest.jsonl"
    copy.write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match="pixels do not come out as the manifest records"):
        OcclusionGenerator.rebuild(copy, data, tmp_path / "b", library)


def test_rebuilding_needs_the_same_images_annotations_and_instances(library: InstanceLibrary, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "in")
    manifest = generator(library).generate(root, tmp_path / "a").manifest
    with pytest.raises(DatasetError, match="another bench1 than this library has"):
        OcclusionGenerator.rebuild(manifest, root, tmp_path / "b", InstanceLibrary([library["kite1"]]))
    flip_byte(root / "CUHK-PEDES" / "imgs" / "cam_a" / "2_0.png")
    with pytest.raises(DatasetError, match=r"2_0.png: is not the file that the manifest was made with"):
        OcclusionGenerator.rebuild(manifest, root, tmp_path / "b", library)
    write_dataset(root, people=5)
    with pytest.raises(DatasetError, match=r"reid_raw.json: is not the annotation file"):
        OcclusionGenerator.rebuild(manifest, root, tmp_path / "c", library)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], "is cut off"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "holds 23 images, its header says 24"),
        (lambda text: text.replace('"output_sha256"', '"output"', 1), "line 2 is not one of an occlusion manifest"),
        (lambda text: text.replace('"imgs/cam_a/0_0.png"', '"imgs/../../x.png"', 1), "a path leaves the folder"),
        (lambda text: "[1, 2]\n", "line 1 is not one of an occlusion manifest"),
        (lambda text: "", "is empty"),
        (lambda text: text.replace("manifest 1", "manifest 99", 1), "format"),
    ],
)
def test_a_damaged_manifest_is_refused_by_line(
    data: Path, library: InstanceLibrary, tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    manifest = generator(library).generate(data, tmp_path).manifest
    manifest.write_text(damage(manifest.read_text()))
    with pytest.raises(DatasetError, match=message):
        OcclusionGenerator.verify(manifest)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file; give a manifest"):
        OcclusionGenerator.verify(tmp_path)


# --- where to write --------------------------------------------------------------------------------------------------


def test_a_foreign_folder_is_not_touched(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"thesis.txt was not made by this command"):
        generator(library).generate(data, tmp_path)
    assert contents(tmp_path) == {f"{FOLDER}/thesis.txt": b"mine"}


def test_beside_the_holistic_images(library: InstanceLibrary, tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    before = contents(root)
    folder = generator(library).generate(root, root).folder
    assert folder == root / "CUHK-PEDES"
    after = contents(root)
    assert {name: after[name] for name in before} == before
    assert OcclusionGenerator.verify(folder, root, library).ok
    assert generator(library).generate(root, root / "CUHK-PEDES").written == 0
    assert len(load_dataset("occluded-cuhk-pedes", root, "all")) == len(load_dataset("cuhk-pedes", root, "all"))


@pytest.mark.parametrize("foreign", ["processed_data", "imgs/cam_a_occlusion_new"])
def test_beside_the_holistic_images_nothing_foreign_is_overwritten(
    library: InstanceLibrary, tmp_path: Path, foreign: str
) -> None:
    root = write_dataset(tmp_path)
    (root / "CUHK-PEDES" / foreign).mkdir()
    with pytest.raises(DatasetError, match=f"{foreign} was not made by this command"):
        generator(library).generate(root, root)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 5}, r"seed \(0, not 5\)"),
        ({"fraction": 0.4}, r"options.fraction.train \(0.5, not 0.4\)"),
        ({"position": "algorithm1"}, r"options.position \('class_anchor', not 'algorithm1'\)"),
    ],
)
def test_other_options_need_another_folder(
    data: Path, library: InstanceLibrary, tmp_path: Path, options: dict[str, object], difference: str
) -> None:
    generator(library).generate(data, tmp_path)
    with pytest.raises(DatasetError, match=f"made with other {difference}"):
        generator(library, **options).generate(data, tmp_path)


# --- options ---------------------------------------------------------------------------------------------------------


def test_encodings(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    released = generator(library).generate(data, tmp_path / "a").manifest
    high = generator(library, encoding="high_quality").generate(data, tmp_path / "b").manifest
    for low_entry, high_entry in zip(read_manifest(released).entries, read_manifest(high).entries, strict=True):
        files = [path.parent / entry.output for path, entry in ((released, low_entry), (high, high_entry))]
        if low_entry.instance is None:
            assert high_entry.output_sha256 == high_entry.source_sha256
            assert high_entry.pixels_sha256 is None
        elif low_entry.output.endswith(".jpg"):
            # the first quantisation table of the image library's default, quality 75, and of quality 95
            assert Image.open(files[0]).quantization[0][0] == 8  # type: ignore[attr-defined]
            assert Image.open(files[1]).quantization[0][0] == 2  # type: ignore[attr-defined]
        else:
            assert files[0].read_bytes() == files[1].read_bytes()
    again = [
        entry for entry in read_manifest(released).entries if entry.instance is None and entry.image.endswith("jpg")
    ]
    assert all(entry.output_sha256 != entry.source_sha256 for entry in again)


def test_first_of_run_ignores_the_seed(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    for seed in (0, 1):
        manifest = generator(library, selection="first_of_run", seed=seed).generate(data, tmp_path / str(seed)).manifest
        flags = [entry.instance is not None for entry in read_manifest(manifest).entries]
        assert flags == [True, False, False] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "occlusion.seed is -1"),
        ({"seed": 1.5}, "occlusion.seed is 1.5"),
        ({"fraction": 1.2}, "occlusion.fraction is 1.2"),
        ({"fraction": float("nan")}, "occlusion.fraction is nan"),
        ({"fraction": {"trian": 0.3}}, "'trian'"),
        ({"selection": "all"}, "occlusion.selection is 'all'"),
        ({"size": "tiny"}, "occlusion.size is 'tiny'"),
        ({"position": "centre"}, "occlusion.position is 'centre'"),
        ({"encoding": "webp"}, "occlusion.encoding is 'webp'"),
        ({"selection": "first_of_run", "keep_clean": True}, "keep_clean works with selection='random_fraction' only"),
        ({"icfg_test_limit": 10}, "icfg_test_limit=10 is for icfg-pedes"),
    ],
)
def test_wrong_options_are_named(library: InstanceLibrary, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        generator(library, **options)


def test_unknown_data_set_and_workers_are_refused(data: Path, library: InstanceLibrary, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"occlusion.dataset is 'market1501'"):
        OcclusionGenerator("market1501", library)
    with pytest.raises(ConfigurationError, match="num_workers is 0"):
        generator(library).generate(data, tmp_path, num_workers=0)


def test_a_format_that_cannot_be_written_again_is_refused(library: InstanceLibrary, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "in", people=3)
    file = root / "CUHK-PEDES" / "imgs" / "cam_a" / "0_0.png"
    file.rename(file.with_suffix(".gif"))
    annotation = root / "CUHK-PEDES" / "reid_raw.json"
    annotation.write_text(annotation.read_text().replace("cam_a/0_0.png", "cam_a/0_0.gif"))
    with pytest.raises(DatasetError, match=r"0_0.gif: cannot be written again as .gif"):
        generator(library).generate(root, tmp_path / "out")
