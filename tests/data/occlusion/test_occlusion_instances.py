"""Libraries: the built-in one, and a user's folder with its mistakes."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_zoo.data.occlusion import InstanceLibrary, OcclusionInstance
from reid_zoo.data.occlusion.geometry import CLASS_GEOMETRY
from reid_zoo.data.synthetic.randomness import RandomStream
from reid_zoo.errors import ConfigurationError, DatasetError


def save(path: Path, color: tuple[int, int, int, int] = (200, 10, 10, 255), size: tuple[int, int] = (6, 9)) -> Path:
    Image.new("RGBA", size, color).save(path, "PNG")
    return path


def test_built_in_library_has_every_class() -> None:
    library = InstanceLibrary.procedural()
    assert list(library.classes) == sorted(CLASS_GEOMETRY)
    assert all(len(members) >= 4 for members in library.classes.values())
    assert len(set(library.hashes().values())) == len(library)
    assert InstanceLibrary.procedural() is library


def test_built_in_cutouts_are_cut_out_and_anti_aliased() -> None:
    for instance in InstanceLibrary.procedural():
        alpha = np.asarray(instance.image.getchannel("A"))
        assert instance.image.mode == "RGBA"
        assert max(instance.image.size) >= 200
        assert alpha.max() == 255
        # cropped: something is drawn along every side
        assert all(side.any() for side in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])), instance.name
        partly = ((alpha > 0) & (alpha < 255)).sum()
        assert partly > 0.05 * max(alpha.shape), instance.name
        colors = np.asarray(instance.image.convert("RGB"))[alpha == 255]
        assert len(np.unique(colors, axis=0)) >= 20, f"{instance.name} is not shaded"


def test_built_in_library_has_the_same_pixels_everywhere() -> None:
    """Drawn with whole numbers only; a change of the drawings changes what a seed gives, and must be deliberate."""
    names_and_hashes = "\n".join(f"{name} {sha256}" for name, sha256 in InstanceLibrary.procedural().hashes().items())
    digest = hashlib.sha256(names_and_hashes.encode()).hexdigest()
    assert digest == "a43a99b7c59b06b78f9bbe0a794de4479d47c1eb378a513219499114ed61351f"


def test_a_folder_may_have_any_number_per_class(tmp_path: Path) -> None:
    for name in ("bench1", "bench2", "bench10", "Umbrella07", "kite3"):
        save(tmp_path / f"{name}.png")
    (tmp_path / "README.md").write_text("not a picture")
    save(tmp_path / ".hidden.png")
    library = InstanceLibrary.from_folder(tmp_path)
    assert [instance.name for instance in library] == ["bench1", "bench2", "bench10", "kite3", "umbrella7"]
    assert library["kite3"].image.mode == "RGBA"


def test_a_draw_takes_classes_and_then_instances_equally_often(tmp_path: Path) -> None:
    for name in ("bench1", "bench2", "bench3", "kite1"):
        save(tmp_path / f"{name}.png")
    library = InstanceLibrary.from_folder(tmp_path)
    drawn = Counter(library.draw(RandomStream(seed)).name for seed in range(1200))
    # Standard deviations: 17 for a class of 600, 13 for an instance of 200.
    assert drawn["kite1"] == pytest.approx(600, abs=80)
    assert all(drawn[f"bench{number}"] == pytest.approx(200, abs=60) for number in (1, 2, 3))


def test_pictures_without_transparency_count_as_opaque(tmp_path: Path) -> None:
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "card1.png")
    Image.new("P", (5, 5), 0).save(tmp_path / "card2.png")
    library = InstanceLibrary.from_folder(tmp_path)
    assert all(instance.image.getchannel("A").getextrema() == (255, 255) for instance in library)


def test_hashes_follow_pixels_not_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    image = Image.effect_noise((40, 40), 50).convert("RGBA")
    image.save(first / "car1.png", compress_level=0)
    image.save(second / "car1.png", compress_level=9)
    assert (first / "car1.png").read_bytes() != (second / "car1.png").read_bytes()
    assert InstanceLibrary.from_folder(first).hashes() == InstanceLibrary.from_folder(second).hashes()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["bench1.png", "lamp1.png"], "lamp1.png: unknown occluder class 'lamp'"),
        (["bnch1.png"], "did you mean 'bench'"),
        (["bench.png"], "bench.png: is not named <class><number>.png"),
        (["bench1.png", "bench01.png"], "is the same class and number as bench"),
        ([], "holds no file <class><number>.png"),
    ],
)
def test_a_wrong_folder_is_refused_by_name(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        save(tmp_path / name)
    with pytest.raises(DatasetError, match=message):
        InstanceLibrary.from_folder(tmp_path)


def test_a_bad_picture_is_refused_by_name(tmp_path: Path) -> None:
    file = save(tmp_path / "bench1.png", (1, 2, 3, 0))
    with pytest.raises(DatasetError, match=r"bench1.png: is transparent everywhere"):
        InstanceLibrary.from_folder(tmp_path)
    file.write_bytes(save(tmp_path / "bench2.png", size=(60, 60)).read_bytes()[:70])
    with pytest.raises(DatasetError, match=r"bench1.png: cannot be read as a PNG picture"):
        InstanceLibrary.from_folder(tmp_path)
    file.write_bytes(b"GIF89a, not a PNG")
    with pytest.raises(DatasetError, match=r"bench1.png: cannot be read as a PNG picture"):
        InstanceLibrary.from_folder(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        InstanceLibrary.from_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="is not a folder"):
        InstanceLibrary.from_folder(save(tmp_path / "bench1.png"))


def test_libraries_from_memory_are_checked() -> None:
    image = Image.new("RGBA", (4, 4), (1, 2, 3, 255))
    with pytest.raises(ConfigurationError, match="at least one"):
        InstanceLibrary([])
    with pytest.raises(ConfigurationError, match="unknown occluder class 'dog'"):
        InstanceLibrary([OcclusionInstance("dog", 1, image)])
    with pytest.raises(ConfigurationError, match="two instances car1"):
        InstanceLibrary([OcclusionInstance("car", 1, image), OcclusionInstance("car", 1, image)])
    with pytest.raises(ConfigurationError, match=r"unknown occluder 'car7'; did you mean 'car1'\?"):
        InstanceLibrary([OcclusionInstance("car", 1, image)])["car7"]
