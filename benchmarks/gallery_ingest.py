"""Indexing a folder: decoding beside the model against decoding between its batches, and memory at N and 4N images.

    python benchmarks/gallery_ingest.py [--images 400] [--height 768] [--preset tiny]

Every run is a process of its own on fresh files. Prints images per second of both orders, their ratio, and by how much
the resident memory of the process peaked above its value before indexing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write_photos(folder: Path, count: int, height: int) -> None:
    """JPEG photos with noise, so that decoding them costs what decoding real ones does."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 24, 12, 3), dtype=np.uint8)
    folder.mkdir()
    for number, pixels in enumerate(coarse):
        photo = np.asarray(Image.fromarray(pixels).resize((height // 2, height)), np.int16)
        noisy = photo + random.integers(-12, 13, photo.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.jpg", quality=90)


def index(folder: Path, gallery: Path, model: Path, workers: int) -> dict[str, float]:
    """Index a folder in this process: seconds, and megabytes of memory added at the peak."""
    import torch

    from reid_zoo import ReIDModel, ReIDProcessor
    from reid_zoo.encoding import PersonEncoder
    from reid_zoo.gallery import Gallery

    torch.manual_seed(0)
    encoder = PersonEncoder(ReIDModel.from_pretrained(model), ReIDProcessor.from_pretrained(model))
    warm_up = sorted(folder.iterdir())[:64]
    with Gallery.create(gallery, encoder) as opened:
        opened.add(warm_up, num_workers=workers, progress=False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        report = opened.add(folder, num_workers=workers, progress=False)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "images": report.added, "added_mb": (peak - before) / 1024}


def in_a_process(folder: Path, gallery: Path, model: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--index", str(folder), str(gallery), str(model), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_model(folder: Path, preset: str) -> None:
    """A model of a preset with random weights: indexing takes the same time."""
    from reid_zoo import CFineConfig, CFineModel, ReIDProcessor
    from reid_zoo.training.vocabulary import learn_wordpiece_tokenizer

    model = CFineModel(CFineConfig.from_preset(preset))
    model.save_pretrained(folder)
    tokenizer = learn_wordpiece_tokenizer(["a man in a blue jacket"], vocabulary_size=100)
    vision = model.config.vision_config
    ReIDProcessor.build(
        tokenizer, image_size=vision.image_size, max_text_length=model.config.max_text_length
    ).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--index", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index:
        folder, gallery, model, workers = options.index
        print(json.dumps(index(Path(folder), Path(gallery), Path(model), int(workers))))
        return
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_model(root / "model", options.preset)
        write_photos(root / "photos", options.images, options.height)
        write_photos(root / "many", 4 * options.images, options.height)
        rates: dict[int, list[float]] = {0: [], 4: []}
        for repeat in range(options.repeats):
            for workers, found in rates.items():
                run = in_a_process(root / "photos", root / f"gallery-{workers}-{repeat}", root / "model", workers)
                found.append(run["images"] / run["seconds"])
        memory = [in_a_process(root / name, root / f"memory-{name}", root / "model", 4) for name in ("photos", "many")]
    between, beside = max(rates[0]), max(rates[4])
    print(f"{options.images} JPEG of {options.height // 2}x{options.height}, CFine {options.preset}; best of each:")
    print(
        f"decoding between batches {between:.1f} images/s, beside the model {beside:.1f}: {beside / between:.2f} times faster"
    )
    for run in memory:
        print(f"{run['images']:.0f} images: {run['added_mb']:.0f} MB above the start at the peak")


if __name__ == "__main__":
    main()
