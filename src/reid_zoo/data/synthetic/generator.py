"""SyntheticPedestrians: the generator, and the data set that it writes in the layout of CUHK-PEDES."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...errors import ConfigurationError, DatasetError
from .attributes import PersonAttributes, one_field_signatures, sample_attributes, sample_lookalike
from .captions import VisibleParts, write_caption
from .figure import draw_person
from .png_encoding import encode_png
from .randomness import RandomStream
from .raster import Canvas
from .scene import Camera, draw_occluder, draw_panorama, sample_camera, sample_view
from .sensor import expose
from .view import DIRECTIONS, View

__all__ = ["SPLITS", "SyntheticImage", "SyntheticPedestrians"]

SPLITS = ("train", "val", "test")

#: Changes whenever the same arguments would give other images or captions.
GENERATOR_VERSION = 1

_FOLDER = "CUHK-PEDES"
_ANNOTATIONS = "reid_raw.json"
_MANIFEST = "synthetic_pedestrians.json"

# Purposes of the random streams (first number of their key).
_PEOPLE, _PAIRS, _CAMERAS, _PANORAMAS, _TOURS, _VIEWS, _NOISE, _CAPTIONS, _OCCLUSION = range(9)


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticImage:
    """One generated image with everything that is known about it.

    Attributes:
        pixels: Array of shape (height, width, 3), uint8.
        captions: Two sentences or short texts of 20 to 40 words each, true of this image.
        person: Who is shown.
        view: The circumstances of the image.
        visible: How much of each part of the person the image shows.
    """

    pixels: np.ndarray
    captions: tuple[str, str]
    person: PersonAttributes
    view: View
    visible: VisibleParts


def _whole_number(name: str, value: object, lowest: int, highest: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}.")
    if value < lowest or (highest is not None and value > highest):
        limits = f"at least {lowest}" if highest is None else f"between {lowest} and {highest}"
        raise ConfigurationError(f"{name} must be {limits}, not {value}.")
    return int(value)


def _fraction(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be a number between 0 and 1, not {value!r}.")
    return float(value)


class SyntheticPedestrians:
    """Drawn pedestrians with true captions, seen by several cameras: data to try, test and compare methods with.

    Every image depends on the seed and on its own place only, so images can be made in any order, and the same
    arguments give the same bytes on every machine. Clothes, hair, things worn and carried are constant for an
    identity; direction of view, pose, size, occlusion, light, blur and noise change from image to image. A share of
    the identities comes in look-alike pairs of the same split that differ in exactly one attribute; with captions
    that leave attributes out, this keeps a perfect score out of reach on purpose.

    Identities are numbered train first, then val, then test; the number in the files is the index plus one.

    Args:
        num_identities: Number of people, all splits together.
        images_per_identity: Images of each person.
        num_cameras: Number of cameras; consecutive images of a person come from consecutive cameras.
        image_size: (height, width) in pixels.
        seed: Seed of everything.
        val_identities: People of the val split; `None` means a tenth of them.
        test_identities: People of the test split; `None` means a fifth of them.
        lookalike_fraction: Share of the people of each split that belong to a look-alike pair (rounded down to pairs).
        occlusion_fraction: Share of the images with an object in front of the person.

    Raises:
        ConfigurationError: If an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_identities: int = 200,
        images_per_identity: int = 4,
        *,
        num_cameras: int = 4,
        image_size: tuple[int, int] = (192, 64),
        seed: int = 0,
        val_identities: int | None = None,
        test_identities: int | None = None,
        lookalike_fraction: float = 0.3,
        occlusion_fraction: float = 0.2,
    ) -> None:
        self.num_identities = _whole_number("num_identities", num_identities, 1, 99_999)
        self.images_per_identity = _whole_number("images_per_identity", images_per_identity, 1, 100)
        self.num_cameras = _whole_number("num_cameras", num_cameras, 1, 100)
        self.seed = _whole_number("seed", seed, 0)
        self.lookalike_fraction = _fraction("lookalike_fraction", lookalike_fraction)
        self.occlusion_fraction = _fraction("occlusion_fraction", occlusion_fraction)
        if isinstance(image_size, str) or not isinstance(image_size, Sequence) or len(image_size) != 2:
            raise ConfigurationError(f"image_size must be two whole numbers (height, width), not {image_size!r}.")
        height = _whole_number("image_size (height)", image_size[0], 48, 2048)
        width = _whole_number("image_size (width)", image_size[1], 16, 2048)
        if not height <= 4 * width <= 8 * height:
            raise ConfigurationError(
                f"image_size must be between a quarter and twice as wide as it is high, not {height} x {width}."
            )
        self.image_size = (height, width)
        val = self.num_identities // 10 if val_identities is None else val_identities
        test = self.num_identities // 5 if test_identities is None else test_identities
        self.val_identities = _whole_number("val_identities", val, 0)
        self.test_identities = _whole_number("test_identities", test, 0)
        if self.val_identities + self.test_identities >= self.num_identities:
            raise ConfigurationError(
                f"val_identities ({self.val_identities}) and test_identities ({self.test_identities}) leave no training "
                f"identity of num_identities ({self.num_identities})."
            )
        self.train_identities = self.num_identities - self.val_identities - self.test_identities
        self._panoramas: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        """Number of images."""
        return self.num_identities * self.images_per_identity

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.configuration.items())
        return f"SyntheticPedestrians({settings})"

    @property
    def configuration(self) -> dict[str, Any]:
        """The arguments that define the data set, as they are kept beside the written files."""
        return {
            "num_identities": self.num_identities,
            "images_per_identity": self.images_per_identity,
            "num_cameras": self.num_cameras,
            "image_size": list(self.image_size),
            "seed": self.seed,
            "val_identities": self.val_identities,
            "test_identities": self.test_identities,
            "lookalike_fraction": self.lookalike_fraction,
            "occlusion_fraction": self.occlusion_fraction,
        }

    # --- people and places -------------------------------------------------------------------------------------------

    def split_range(self, split: str) -> range:
        """Indices of the identities of `"train"`, `"val"` or `"test"`.

        Raises:
            ConfigurationError: If there is no such split.
        """
        val_start = self.train_identities
        test_start = val_start + self.val_identities
        ranges = {
            "train": range(val_start),
            "val": range(val_start, test_start),
            "test": range(test_start, self.num_identities),
        }
        if split not in ranges:
            raise ConfigurationError(f"split must be one of {', '.join(SPLITS)}, not {split!r}.")
        return ranges[split]

    def split_of(self, identity: int) -> str:
        """The split of an identity index."""
        self._check_identity(identity)
        return next(split for split in SPLITS if identity in self.split_range(split))

    @cached_property
    def _pairs(self) -> dict[int, int]:
        partners: dict[int, int] = {}
        for number, split in enumerate(SPLITS):
            members = RandomStream(self.seed, _PAIRS, number).shuffled(self.split_range(split))
            count = int(len(members) * self.lookalike_fraction) // 2
            for pair in range(count):
                first, second = sorted(members[2 * pair : 2 * pair + 2])
                partners[first], partners[second] = second, first
        return partners

    @cached_property
    def _people(self) -> tuple[PersonAttributes, ...]:
        """All people; two that are no pair differ in at least two attributes."""
        taken: dict[tuple[str, PersonAttributes], int] = {}
        people: list[PersonAttributes] = []
        for index in range(self.num_identities):
            partner = self._pairs.get(index, index)
            attempt = 0
            while True:
                stream = RandomStream(self.seed, _PEOPLE, index, attempt)
                if partner < index:
                    person = sample_lookalike(people[partner], stream)
                else:
                    person = sample_attributes(stream)
                keys = one_field_signatures(person)
                if all(taken.get(key, partner) == partner for key in keys):
                    break
                attempt += 1
                if attempt == 1000:
                    raise ConfigurationError(f"num_identities ({self.num_identities}) is more than can be told apart.")
            for key in keys:
                taken.setdefault(key, index)
            people.append(person)
        return tuple(people)

    @cached_property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras, in the order of their numbers."""
        return tuple(sample_camera(RandomStream(self.seed, _CAMERAS, n), n) for n in range(self.num_cameras))

    def identity(self, index: int) -> PersonAttributes:
        """The attributes of an identity (index 0-based; the id in the files is the index plus one)."""
        self._check_identity(index)
        return self._people[index]

    def lookalike_of(self, index: int) -> int | None:
        """Index of the identity that differs from this one in exactly one attribute, or `None`."""
        self._check_identity(index)
        return self._pairs.get(index)

    def view(self, identity: int, image: int) -> View:
        """The circumstances of one image (both numbers 0-based)."""
        self._check_identity(identity)
        self._check_image(image)
        tour = RandomStream(self.seed, _TOURS, identity)
        first_camera = tour.below(self.num_cameras)
        camera = self.cameras[(first_camera + image) % self.num_cameras]
        directions: list[str] = []
        while len(directions) <= image:
            directions += tour.shuffled(DIRECTIONS)
        occluded = RandomStream(self.seed, _OCCLUSION, identity, image).below(10_000) < self.occlusion_fraction * 10_000
        stream = RandomStream(self.seed, _VIEWS, identity, image)
        return sample_view(stream, camera, self._people[identity], directions[image], occluded=occluded)

    # --- images and captions -----------------------------------------------------------------------------------------

    def _panorama(self, camera: int) -> Image.Image:
        if camera not in self._panoramas:
            stream = RandomStream(self.seed, _PANORAMAS, camera)
            self._panoramas[camera] = draw_panorama(self.cameras[camera], stream, *self.image_size)
        return self._panoramas[camera]

    def _draw(self, person: PersonAttributes, view: View) -> tuple[Canvas, VisibleParts]:
        height, width = self.image_size
        factor = max(2, min(4, 768 // height))
        canvas = Canvas(width * factor, height * factor)
        draw_person(canvas, person, view)
        drawn = canvas.parts.histogram()
        draw_occluder(canvas, view)
        return canvas, VisibleParts.from_counts(drawn, canvas.parts.histogram(), canvas.width * canvas.height)

    def _write_captions(
        self, identity: int, image: int, person: PersonAttributes, view: View, visible: VisibleParts
    ) -> tuple[str, str]:
        place = self.cameras[view.camera].place
        first, second = (
            write_caption(person, view, visible, place, RandomStream(self.seed, _CAPTIONS, identity, image, number))
            for number in range(2)
        )
        return first, second

    def sample(self, identity: int, image: int) -> SyntheticImage:
        """Draws one image and writes its captions.

        Args:
            identity: Index of the person, 0-based.
            image: Number of the image of that person, 0-based.

        Raises:
            IndexError: If there is no such person or image.
        """
        view = self.view(identity, image)
        person = self._people[identity]
        canvas, visible = self._draw(person, view)
        height, width = self.image_size
        panorama = self._panorama(view.camera)
        left = (panorama.width - width) * view.background // 1000
        backdrop = panorama.crop((left, 0, left + width, height))
        noise = RandomStream(self.seed, _NOISE, identity, image)
        pixels = expose(canvas, backdrop, self.cameras[view.camera], view, noise)
        captions = self._write_captions(identity, image, person, view, visible)
        return SyntheticImage(pixels, captions, person, view, visible)

    def render(self, identity: int, image: int) -> Image.Image:
        """One image as an RGB picture of the data set's size; arguments and errors as in `sample`."""
        return Image.fromarray(self.sample(identity, image).pixels)

    def captions(self, identity: int, image: int) -> tuple[str, str]:
        """The two captions of one image; arguments and errors as in `sample`."""
        view = self.view(identity, image)
        person = self._people[identity]
        _, visible = self._draw(person, view)
        return self._write_captions(identity, image, person, view, visible)

    # --- writing -----------------------------------------------------------------------------------------------------

    def file_path(self, identity: int, image: int) -> str:
        """Path of an image below `imgs/`, with forward slashes, e.g. `"cam_0/00017_02.png"`."""
        camera = self.view(identity, image).camera
        return f"cam_{camera}/{identity + 1:05d}_{image:02d}.png"

    def write(self, root: str | Path, *, progress: bool = True) -> Path:
        """Writes the data set as `<root>/CUHK-PEDES/imgs/…` and `<root>/CUHK-PEDES/reid_raw.json`.

        The work can be interrupted and started again: image files that are already there with the right content are
        kept. The annotation file comes last and appears complete or not at all.

        Args:
            root: Folder of the data set, made if missing.
            progress: Whether to show a progress bar on stderr.

        Returns:
            The folder `<root>/CUHK-PEDES`.

        Raises:
            DatasetError: If the folder holds another data set, or one made with other arguments, or if a file cannot
                be written.
        """
        folder = Path(root) / _FOLDER
        self._claim(folder)
        for camera in range(self.num_cameras):
            (folder / "imgs" / f"cam_{camera}").mkdir(parents=True, exist_ok=True)
        records = []
        with tqdm(total=len(self), desc="drawing pedestrians", unit="image", disable=not progress) as bar:
            for identity in range(self.num_identities):
                for image in range(self.images_per_identity):
                    sample = self.sample(identity, image)
                    file_path = f"cam_{sample.view.camera}/{identity + 1:05d}_{image:02d}.png"
                    _write_if_different(folder / "imgs" / file_path, encode_png(sample.pixels))
                    records.append(self._record(identity, file_path, sample.captions))
                    bar.update()
        content = json.dumps(records, indent=1, ensure_ascii=True) + "\n"
        _write_if_different(folder / _ANNOTATIONS, content.encode("ascii"))
        return folder

    def _record(self, identity: int, file_path: str, captions: tuple[str, str]) -> dict[str, Any]:
        return {
            "split": self.split_of(identity),
            "captions": list(captions),
            "file_path": file_path,
            "processed_tokens": [re.findall(r"[a-z0-9-]+", caption.lower()) for caption in captions],
            "id": identity + 1,
        }

    def _claim(self, folder: Path) -> None:
        """Records the configuration in the folder, or compares it with the one that is there."""
        manifest = folder / _MANIFEST
        wanted = {"generator_version": GENERATOR_VERSION, **self.configuration}
        if manifest.exists():
            try:
                found = json.loads(manifest.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise DatasetError(f"{manifest} cannot be read ({error}); remove {folder} and write again.") from None
            if not isinstance(found, dict):
                raise DatasetError(f"{manifest} holds no configuration; remove {folder} and write again.")
            for name, value in wanted.items():
                if found.get(name) != value:
                    raise DatasetError(
                        f"{folder} holds synthetic pedestrians with {name}={found.get(name)!r}, not {value!r}; "
                        "choose another folder or remove it."
                    )
            return
        if (folder / _ANNOTATIONS).exists() or (folder / "imgs").exists():
            raise DatasetError(f"{folder} holds a data set that was not made here; choose another folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise DatasetError(f"{folder} cannot be made ({reason}); choose another folder.") from None
        _write_if_different(manifest, (json.dumps(wanted, indent=1) + "\n").encode("ascii"))

    def _check_identity(self, index: int) -> None:
        if not 0 <= index < self.num_identities:
            raise IndexError(f"identity must be between 0 and {self.num_identities - 1}, not {index}")

    def _check_image(self, image: int) -> None:
        if not 0 <= image < self.images_per_identity:
            raise IndexError(f"image must be between 0 and {self.images_per_identity - 1}, not {image}")


def _write_if_different(path: Path, content: bytes) -> None:
    """Writes a file through a temporary one, unless it already has this content."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"{path} cannot be written ({reason}); make room or access, then write again.") from None
