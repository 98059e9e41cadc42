"""OGor reproduces the released tool: every size and box, pixels within one grey level, every file that it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent))
from golden_case import KEPT, find_cases

from reid_zoo.data.dataset_info import dataset_info
from reid_zoo.data.occlusion import InstanceLibrary, OcclusionGenerator, OcclusionInstance, occluded_image_path
from reid_zoo.data.occlusion.compositing import draw_placement, paste_instance
from reid_zoo.data.occlusion.geometry import CLASS_GEOMETRY, anchored_box, clip_box, paste_size
from reid_zoo.data.occlusion.random_streams import placement_stream
from reid_zoo.data.text_person_benchmarks import ANNOTATION_LAYOUTS

FILES = {"config.json", "dataset.json", "geometry.json", "pixels.safetensors"}
DATASETS = {dataset_info(name).folders[0]: name for name in ANNOTATION_LAYOUTS}
MANIFEST = "occlusion_manifest.jsonl"  # the one file that the released tool does not write


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        folders = find_cases(metafunc.config.getoption("--golden-root"), "mgcc", "ogor")
        metafunc.parametrize("case", folders, ids=[folder.name for folder in folders])


def read(case: Path, name: str) -> Any:
    return json.loads((case / name).read_text())


def whole_instance(class_name: str, width: int, height: int) -> OcclusionInstance:
    return OcclusionInstance(class_name, 1, Image.new("RGBA", (width, height), (250, 20, 30, 255)))


def test_there_are_cases(request: pytest.FixtureRequest) -> None:
    root = request.config.getoption("--golden-root")
    assert find_cases(root, "mgcc", "ogor") or root != KEPT  # another root may hold other cases of MGCC only


def test_nothing_is_passed_over(case: Path) -> None:
    assert {path.name for path in case.iterdir()} == FILES
    config = read(case, "config.json")
    used = {"method", "case", "area_ratio", "anchor", "instances_per_class", "resample"}
    assert set(config) == used | {"notes"}  # the notes are prose; their invariants are tested below


def test_class_tables(case: Path) -> None:
    config = read(case, "config.json")
    assert {name: geometry.area_ratio for name, geometry in CLASS_GEOMETRY.items()} == config["area_ratio"]
    anchors = {name: anchor for anchor, names in config["anchor"].items() for name in names}
    assert {name: geometry.anchor for name, geometry in CLASS_GEOMETRY.items()} == anchors
    assert config["resample"] == "bicubic"  # the pixels below tell it apart from other filters
    library = InstanceLibrary.procedural()
    assert all(len(library.classes[name]) >= config["instances_per_class"] for name in config["area_ratio"])


def test_geometry(case: Path) -> None:
    """Every listed instance on every image size, exactly; through the tables and through a draw of the generator."""
    config, entries = read(case, "config.json"), read(case, "geometry.json")
    fields = {"cls", "index", "instance_wh", "image_wh", "area_ratio", "paste_wh", "top_left_xy", "visible_box_xyxy"}
    seen: dict[tuple[int, int], set[tuple[str, int]]] = {}
    for entry in entries:
        assert set(entry) == fields
        geometry, image = CLASS_GEOMETRY[entry["cls"]], tuple(entry["image_wh"])
        assert geometry.area_ratio == entry["area_ratio"]
        width, height = paste_size(tuple(entry["instance_wh"]), image, geometry.area_ratio)
        assert [width, height] == entry["paste_wh"]
        left, top = entry["top_left_xy"]
        box = anchored_box(geometry.anchor, (width, height), image)
        assert box == (left, top, left + width, top + height)
        assert list(clip_box(box, image)) == entry["visible_box_xyxy"]
        library = InstanceLibrary([whole_instance(entry["cls"], *entry["instance_wh"])])
        assert draw_placement(image, placement_stream(0, "x"), library)[1] == box
        seen.setdefault(image, set()).add((entry["cls"], entry["index"]))
    everything = {(name, number) for name in CLASS_GEOMETRY for number in range(1, config["instances_per_class"] + 1)}
    assert seen
    assert all(instances == everything for instances in seen.values())


def test_invariants(case: Path) -> None:
    rules: dict[str, Callable[[int, int, int, int, int, int], bool]] = {
        "bottom_left": lambda x, y, w, h, width, height: x == 0 and y + h == height,
        "bottom_right": lambda x, y, w, h, width, height: x + w == width and y + h == height,
        "top_left": lambda x, y, w, h, width, height: x == 0 and y == 0,
        "upper_half_left": lambda x, y, w, h, width, height: x == 0 and y + h == height // 2,
        "upper_half_right": lambda x, y, w, h, width, height: x + w == width and y + h == height // 2,
    }
    sizes = {tuple(entry["image_wh"]) for entry in read(case, "geometry.json")}
    for name, geometry in CLASS_GEOMETRY.items():
        for width, height in [*sizes, (33, 77)]:
            for size in ((9, 31), (200, 100)):
                w, h = paste_size(size, (width, height), geometry.area_ratio)
                x, y, right, bottom = anchored_box(geometry.anchor, (w, h), (width, height))
                assert rules[geometry.anchor](x, y, w, h, width, height), name
                assert (right - x, bottom - y) == (w, h)


def test_pixels(case: Path) -> None:
    tensors = load_file(case / "pixels.safetensors")
    holistic = tensors.pop("holistic")
    image = Image.fromarray(holistic)
    classes = [name.removeprefix("instance.") for name in tensors if name.startswith("instance.")]
    assert classes
    for class_name in classes:
        instance = OcclusionInstance(class_name, 1, Image.fromarray(tensors.pop(f"instance.{class_name}")))
        _, box = draw_placement(image.size, placement_stream(0, "x"), InstanceLibrary([instance]))
        pasted = paste_instance(image, instance, box)
        result, expected = np.asarray(pasted.image), tensors.pop(f"expected.{class_name}")
        assert pasted.image.mode == "RGB"
        assert result.shape == expected.shape == holistic.shape
        difference = np.abs(result.astype(int) - expected.astype(int))
        # one grey level: what the case allows for another version of the image library
        assert difference.max() <= 1, class_name
        resized = instance.image.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC)
        alpha = Image.new("L", image.size)
        alpha.paste(resized.getchannel("A"), box[:2])
        untouched = np.asarray(alpha) == 0
        assert (result[untouched] == holistic[untouched]).all()
        assert pasted.visible_fraction == pytest.approx(1 - np.asarray(alpha).mean() / 255, abs=1e-6)
    assert not tensors, f"tensors that no test compared: {sorted(tensors)}"


@pytest.mark.parametrize("folder", list(DATASETS))
def test_dataset(case: Path, folder: str, tmp_path: Path) -> None:
    cases = read(case, "dataset.json")
    assert set(cases) == set(DATASETS)
    content = cases[folder]
    assert set(content) == {"annotation", "occluded_flag", "all_files", "processed", "data_message"}
    dataset = DATASETS[folder]
    root = tmp_path / folder
    records = content["annotation"]
    paths = [record.get("file_path", record.get("img_path")) for record in records]
    rng = np.random.default_rng(5)
    for path in paths:
        file = root / "imgs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (24, 12, 3), dtype=np.uint8)).save(file)
    (root / ANNOTATION_LAYOUTS[dataset].annotation_files[0]).write_text(json.dumps(records))

    library = InstanceLibrary([whole_instance("car", 4, 5)])
    generator = OcclusionGenerator(dataset, library, selection="first_of_run")
    generator.generate(tmp_path, tmp_path)  # beside the holistic images, as the released tool does

    written = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    renamed = {"ann.json": ANNOTATION_LAYOUTS[dataset].annotation_files[0]}
    assert written == {renamed.get(name, name) for name in content["all_files"]} | {MANIFEST}

    for name, expected in content["processed"].items():
        assert json.loads((root / "processed_data" / name).read_text()) == expected, name
    others = {f"processed_data/{name}" for name in content["processed"]}
    assert {name for name in written if name.startswith("processed_data/")} == {*others, "processed_data/data_message"}
    assert (root / "processed_data" / "data_message").read_text() == content["data_message"]

    flags = dict(zip(paths, content["occluded_flag"], strict=True))
    entries = [json.loads(line) for line in (root / MANIFEST).read_text().splitlines()[1:]]
    assert {entry["image"].removeprefix("imgs/"): entry["instance"] is not None for entry in entries} == flags
    for path, is_occluded in flags.items():
        before = np.asarray(Image.open(root / "imgs" / path)).astype(int)
        output = root / occluded_image_path(dataset, f"imgs/{path}")
        after = np.asarray(Image.open(output)).astype(int)
        assert after.shape == before.shape
        # the opaque red cut-out covers the lower left corner; JPEG of quality 75 smears a red edge on noise
        is_red = np.abs(after[-2:, :2] - (250, 20, 30)).mean() < 60
        assert is_red == is_occluded, path
        if path.endswith(".png"):
            assert (after == before).all() != is_occluded, path
