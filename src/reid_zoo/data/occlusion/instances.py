"""Libraries of occluders: cut-outs with a transparent background, by class and number."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ...errors import ConfigurationError, DatasetError
from ...validation import unknown_name_message
from ..synthetic.randomness import RandomStream
from .geometry import CLASS_GEOMETRY

__all__ = ["InstanceLibrary", "OcclusionInstance", "pixel_hash"]

_FILE_NAME = re.compile(r"(?P<class_name>[a-z]+)(?P<number>[0-9]+)", re.IGNORECASE)
_MAX_PIXELS = 25_000_000


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of mode, size and pixels of an image: independent of the file it came from and of its compression."""
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height}\n".encode("ascii"))
    digest.update(image.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class OcclusionInstance:
    """One cut-out.

    Attributes:
        class_name: A key of `CLASS_GEOMETRY`.
        number: Its number in the class, at least 0.
        image: RGBA picture, straight alpha.
        sha256: `pixel_hash` of the picture.
    """

    class_name: str
    number: int
    image: Image.Image
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", pixel_hash(self.image))

    @property
    def name(self) -> str:
        """Class and number, e.g. `"bench3"`."""
        return f"{self.class_name}{self.number}"


class InstanceLibrary:
    """The occluders to choose from.

    A draw takes a class, all classes that have an instance being equally likely, and then one of its instances; with as
    many instances in every class, as in the official library, all instances are equally likely.

    Args:
        instances: The cut-outs, at least one, in any order.
        source: Where they come from, for the manifest: `"procedural"` or `"folder"`.

    Raises:
        ConfigurationError: If there is no instance, one of them twice, or an unknown class.
    """

    def __init__(self, instances: Sequence[OcclusionInstance], *, source: str = "folder") -> None:
        if not instances:
            raise ConfigurationError("An instance library needs at least one instance.")
        self.source = source
        self._by_name: dict[str, OcclusionInstance] = {}
        classes: dict[str, list[OcclusionInstance]] = {}
        for instance in sorted(instances, key=lambda item: (item.class_name, item.number)):
            if instance.class_name not in CLASS_GEOMETRY:
                raise ConfigurationError(unknown_name_message("occluder class", instance.class_name, CLASS_GEOMETRY))
            if instance.name in self._by_name:
                raise ConfigurationError(f"An instance library has two instances {instance.name}.")
            self._by_name[instance.name] = instance
            classes.setdefault(instance.class_name, []).append(instance)
        self.classes: Mapping[str, tuple[OcclusionInstance, ...]] = {
            name: tuple(members) for name, members in classes.items()
        }

    @classmethod
    def from_folder(cls, folder: str | Path) -> InstanceLibrary:
        """Read a folder of PNG files named `<class><number>.png`, e.g. `bench1.png`, as the official library has them.

        A class may have any number of files or none; other kinds of files are passed over, sub-folders too.

        Args:
            folder: The folder.

        Raises:
            DatasetError: If the folder is missing or holds no such file, or if a PNG file has another name, cannot be
                decoded, or is fully transparent; the message names the file.
        """
        top = Path(folder)
        if not top.is_dir():
            what = "is not a folder" if top.exists() else "no such folder"
            raise DatasetError(f"{top}: {what}; give a folder of files <class><number>.png.")
        files: dict[tuple[str, int], Path] = {}
        for path in sorted(top.iterdir()):
            if path.suffix.lower() != ".png" or path.name.startswith(".") or not path.is_file():
                continue
            match = _FILE_NAME.fullmatch(path.stem)
            if match is None:
                raise DatasetError(f"{path}: is not named <class><number>.png, for instance bench1.png; rename it.")
            class_name = match["class_name"].lower()
            if class_name not in CLASS_GEOMETRY:
                raise DatasetError(f"{path}: {unknown_name_message('occluder class', class_name, CLASS_GEOMETRY)}")
            key = class_name, int(match["number"])
            if key in files:
                raise DatasetError(f"{path}: is the same class and number as {files[key].name}; rename one of them.")
            files[key] = path
        if not files:
            raise DatasetError(f"{top}: holds no file <class><number>.png, for instance bench1.png.")
        return cls([OcclusionInstance(*key, _read_cutout(path)) for key, path in files.items()], source="folder")

    @classmethod
    def procedural(cls) -> InstanceLibrary:
        """The built-in library: cut-outs of all 15 classes drawn by our own code, the same pixels on every machine."""
        return _procedural_library()

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[OcclusionInstance]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> OcclusionInstance:
        """The instance of a name like `"bench3"`.

        Raises:
            ConfigurationError: If there is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise ConfigurationError(unknown_name_message("occluder", name, self._by_name)) from None

    def draw(self, rng: RandomStream) -> OcclusionInstance:
        """One instance at random: a class, then one of the class."""
        return rng.choice(self.classes[rng.choice(list(self.classes))])

    def hashes(self) -> dict[str, str]:
        """Name → `pixel_hash` of every instance, for the manifest."""
        return {instance.name: instance.sha256 for instance in self}


@lru_cache(maxsize=1)
def _procedural_library() -> InstanceLibrary:
    from .procedural_instances import draw_all_instances

    cutouts = draw_all_instances()
    return InstanceLibrary(
        [
            OcclusionInstance(class_name, number, image)
            for class_name, images in cutouts.items()
            for number, image in enumerate(images, 1)
        ],
        source="procedural",
    )


def _read_cutout(path: Path) -> Image.Image:
    # `load_image` would put the cut-out on white; transparency is what counts here.
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DatasetError(f"{path}: {image.width} x {image.height} pixels are too many for a cut-out.")
            rgba = image.convert("RGBA")
    except DatasetError:
        raise
    except Exception as error:  # decoders raise SyntaxError, ValueError, struct.error, OSError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{path}: cannot be read as a PNG picture ({reason}); replace or remove it.") from None
    if rgba.getchannel("A").getextrema() == (0, 0):
        raise DatasetError(f"{path}: is transparent everywhere; replace or remove it.")
    return rgba
