"""Reading training batches: the package's data path, as `ReIDTrainer` builds it, against the plain path of released codes.

    python benchmarks/data_loading.py [--sizes 128x384 400x800] [--images 200] [--workers 0 1 2] [--repeats 3] [--json]

Data: drawn people as JPEG files (quality 90) of the given widths and heights, two captions per image; one item is one
(image, caption) pair, as in training on CUHK-PEDES. Both paths give 384x128 pixels with IRRA's augmentation (flip, border
and crop, erasing) and token ids in batches.

The plain path is ours, written as the released codes do it: Pillow opens and converts the file; torchvision's first
generation of transforms works on Pillow images (Resize, RandomHorizontalFlip, Pad, RandomCrop, ToTensor, Normalize,
RandomErasing); each item tokenises its caption with open_clip's pure Python tokenizer; the default collate. First both are
compared without chance: pixels and ids must be equal.

Printed: items per second of wall clock and of processor time (that of the workers included) for one pass, starting the
workers included, with one thread per process; median of the repeats, which take turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from reid_zoo.clip_tokenizer import clip_tokenizer
from reid_zoo.data import SyntheticPedestrians
from reid_zoo.data.collators import ImageTextCollator, ImageTextPairs
from reid_zoo.data.records import PersonDataset, PersonRecord
from reid_zoo.data.samplers import RandomOrder, TrainingSampler
from reid_zoo.data.transforms import ImageAugmentation
from reid_zoo.processing import CLIP_IMAGE_MEAN, CLIP_IMAGE_STD, ReIDProcessor
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, load_recipe

IMAGE_SIZE = (384, 128)  # what the models read: height, width
TEXT_LENGTH = 77
IMAGES_PER_PERSON = 4
TOLERANCE = 1e-6  # of normalised pixels: the same operations on the same 8-bit values


def draw(folder: Path, size: tuple[int, int], count: int) -> PersonDataset:
    """JPEG files of drawn people, of this width and height, and their records."""
    people = SyntheticPedestrians(
        -(-count // IMAGES_PER_PERSON), IMAGES_PER_PERSON, image_size=size[::-1], val_identities=0, test_identities=0
    )
    folder.mkdir()
    records = []
    for number in range(count):
        identity, view = divmod(number, IMAGES_PER_PERSON)
        sample = people.sample(identity, view)
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(sample.pixels).save(path, quality=90)
        records.append(PersonRecord(path, number, tuple(sample.captions), identity))
    return PersonDataset(records, name="drawn", split="train", root=folder)


class PlainPairs(Dataset):
    """(image, caption) pairs as released codes read them."""

    def __init__(self, dataset: PersonDataset, augmentation: ImageAugmentation) -> None:
        self.pairs = [(str(item.image_path), caption, item.person_id) for item in dataset for caption in item.captions]
        self.tokenizer = SimpleTokenizer()
        steps: list[Any] = [transforms.Resize(IMAGE_SIZE, interpolation=transforms.InterpolationMode.BILINEAR)]
        if augmentation.horizontal_flip:
            steps.append(transforms.RandomHorizontalFlip(augmentation.horizontal_flip))
        if augmentation.crop_padding:
            steps += [transforms.Pad(augmentation.crop_padding), transforms.RandomCrop(IMAGE_SIZE)]
        steps += [transforms.ToTensor(), transforms.Normalize(CLIP_IMAGE_MEAN, CLIP_IMAGE_STD)]
        if augmentation.erase_probability:
            steps.append(
                transforms.RandomErasing(
                    augmentation.erase_probability, scale=tuple(augmentation.erase_scale), value=CLIP_IMAGE_MEAN
                )
            )
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, caption, person = self.pairs[index]
        pixels = self.transform(Image.open(path).convert("RGB"))
        tokenizer = self.tokenizer
        ids = [tokenizer.sot_token_id, *tokenizer.encode(caption), tokenizer.eot_token_id]
        if len(ids) > TEXT_LENGTH:
            ids = [*ids[: TEXT_LENGTH - 1], ids[-1]]
        input_ids = torch.zeros(TEXT_LENGTH, dtype=torch.long)
        input_ids[: len(ids)] = torch.tensor(ids)
        return {"pixel_values": pixels, "input_ids": input_ids, "person_labels": person}


class Nothing(nn.Module):
    """Stands in for a model, of which the trainer needs one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def zoo_batches(
    dataset: PersonDataset, augmentation: ImageAugmentation, options: argparse.Namespace, workers: int, folder: Path
) -> Iterable[dict[str, Tensor]]:
    """The loader of `ReIDTrainer`, with the items, the collator and the sampler that `reid_zoo.training.train` gives it."""
    processor = ReIDProcessor.build_for_clip(clip_tokenizer(), image_size=IMAGE_SIZE, max_text_length=TEXT_LENGTH)
    items = ImageTextPairs(dataset, processor, augmentation)
    arguments = ReIDTrainingArguments(
        output_dir=str(folder / "output"),
        per_device_train_batch_size=options.batch_size,
        dataloader_num_workers=workers,
        max_steps=1,
        report_to=[],
        use_cpu=True,
    )
    trainer = ReIDTrainer(
        Nothing(),
        arguments,
        optimization=load_recipe("irra-cuhk-pedes").optimization,
        sampler=TrainingSampler(RandomOrder(len(items)), 1 + options.repeats, options.batch_size),
        train_dataset=items,
        data_collator=ImageTextCollator(processor),
    )
    return trainer.get_train_dataloader()


def plain_batches(
    dataset: PersonDataset, augmentation: ImageAugmentation, options: argparse.Namespace, workers: int
) -> Iterable[dict[str, Tensor]]:
    """The loader of the plain path."""
    items = PlainPairs(dataset, augmentation)
    return DataLoader(items, batch_size=options.batch_size, shuffle=True, drop_last=True, num_workers=workers)


def largest_difference(dataset: PersonDataset) -> float:
    """Of normalised pixels between both paths without chance.

    Raises:
        SystemExit: If the token ids differ.
    """
    processor = ReIDProcessor.build_for_clip(clip_tokenizer(), image_size=IMAGE_SIZE, max_text_length=TEXT_LENGTH)
    unchanged = ImageAugmentation(horizontal_flip=0)
    ours, theirs = ImageTextPairs(dataset, processor, unchanged), PlainPairs(dataset, unchanged)
    collate, largest = ImageTextCollator(processor), 0.0
    for number in range(0, len(ours), max(1, len(ours) // 20)):
        batch, plain = collate([ours[number]]), theirs[number]
        if not torch.equal(batch["input_ids"][0], plain["input_ids"]):
            sys.exit(f"the token ids of item {number} differ")
        largest = max(largest, (batch["pixel_values"][0] - plain["pixel_values"]).abs().max().item())
    return largest


def measure(batches: Iterable[dict[str, Tensor]]) -> tuple[int, float, float]:
    """Items, seconds and processor seconds, of this process and its workers, of one pass."""
    gc.collect()  # not somewhere in between
    before, started, items = os.times(), time.perf_counter(), 0
    for batch in batches:
        items += len(batch["pixel_values"])
    seconds, after = time.perf_counter() - started, os.times()  # workers have been joined: their time is in it
    return items, seconds, sum(after[:4]) - sum(before[:4])


def size_of(text: str) -> tuple[int, int]:
    """`"128x384"` → `(128, 384)`, width and height."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not <width>x<height>")
    return int(width), int(height)


def compare(size: tuple[int, int], options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Both paths with every number of workers, on files of one size."""
    dataset = draw(folder, size, options.images)
    kilobytes = sum(record.image_path.stat().st_size for record in dataset) / len(dataset) / 1000
    difference = largest_difference(dataset)
    augmentation = load_recipe("irra-cuhk-pedes").augmentation
    results = []
    for workers in options.workers:
        loaders = {
            "plain": plain_batches(dataset, augmentation, options, workers),
            "zoo": zoo_batches(dataset, augmentation, options, workers, folder),
        }
        measured: dict[str, list[tuple[int, float, float]]] = {name: [] for name in loaders}
        for loader in loaders.values():  # what is imported and allocated on first use
            measure(loader)
        for _ in range(options.repeats):
            for name, loader in loaders.items():
                measured[name].append(measure(loader))
        result: dict[str, Any] = {"size": list(size), "kilobytes": kilobytes, "workers": workers}
        for name, runs in measured.items():
            result[name] = {
                "items_per_second": statistics.median(items / wall for items, wall, _ in runs),
                "cpu_ms_per_item": statistics.median(1000 * cpu / items for items, _, cpu in runs),
            }
        result["wall_ratio"] = result["zoo"]["items_per_second"] / result["plain"]["items_per_second"]
        result["cpu_ratio"] = result["plain"]["cpu_ms_per_item"] / result["zoo"]["cpu_ms_per_item"]
        results.append(result | {"difference": difference})
    return results


def line(result: dict[str, Any]) -> str:
    """One row of the printed table."""
    plain, zoo = result["plain"], result["zoo"]
    cells = [
        f"{result['size'][0]}x{result['size'][1]}, {result['kilobytes']:.0f} kB",
        str(result["workers"]),
        *(f"{path['items_per_second']:.0f}" for path in (plain, zoo)),
        f"{result['wall_ratio']:.2f}",
        *(f"{path['cpu_ms_per_item']:.2f}" for path in (plain, zoo)),
        f"{result['cpu_ratio']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=size_of,
        default=[(128, 384), (400, 800)],
        metavar="WIDTHxHEIGHT",
        help="of the files",
    )
    parser.add_argument("--images", type=int, default=200, help="files of each size; twice as many items")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="passes of each path; the median counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if 2 * options.images < options.batch_size:
        parser.error(f"--images {options.images} do not fill a batch of {options.batch_size} items, two per image")
    torch.set_num_threads(1)
    if not options.json:
        titles = ["files", "workers", "plain items/s", "zoo", "ratio", "plain CPU ms per item", "zoo", "ratio"]
        print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as place:
        for size in options.sizes:
            found = compare(size, options, Path(place, f"{size[0]}x{size[1]}"))
            results += found
            if not options.json:
                print("\n".join(map(line, found)), flush=True)
    if options.json:
        print(json.dumps({"images": options.images, "batch_size": options.batch_size, "results": results}))
    for result in results:
        if not result["difference"] <= TOLERANCE:
            sys.exit(f"files of {result['size']}: the pixels of both paths differ by {result['difference']:.1e}")


if __name__ == "__main__":
    main()
