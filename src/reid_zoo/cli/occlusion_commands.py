"""`reid-zoo occlude`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError, DatasetError
from . import console

if TYPE_CHECKING:
    from ..data.occlusion import InstanceLibrary, OcclusionSummary

__all__ = ["occlude"]

_PROBLEMS_SHOWN = 20


def occlude(
    dataset: Annotated[str | None, typer.Option(help="cuhk-pedes, icfg-pedes or rstpreid.")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data set, or the one that contains it.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write Occluded-<NAME>/ into; the data root itself to add to it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
    instances: Annotated[
        Path | None, typer.Option(help="Folder of cut-outs <class><number>.png instead of the built-in ones.")
    ] = None,
    selection: Annotated[str, typer.Option(help="random_fraction (paper) or first_of_run (released tool).")] = (
        "random_fraction"
    ),
    fraction: Annotated[
        str, typer.Option(help="Share of occluded images, or one per split: train=0.3,val=0.3,test=1.")
    ] = "0.3",
    keep_clean: Annotated[bool, typer.Option("--keep-clean", help="Leave one image of each identity clean.")] = False,
    size: Annotated[str, typer.Option(help="class_ratio (released tool) or uniform (paper).")] = "class_ratio",
    position: Annotated[
        str, typer.Option(help="class_anchor (released tool), random_horizontal (paper's text) or algorithm1 (paper).")
    ] = "class_anchor",
    encoding: Annotated[
        str, typer.Option(help="released (JPEG 75 for every image) or high_quality (clean images copied as they are).")
    ] = "released",
    drop_single_image_ids: Annotated[
        bool, typer.Option(help="CUHK-PEDES: leave 3 identities out of processed_data/, as the released code does.")
    ] = True,
    icfg_test_limit: Annotated[
        int | None, typer.Option(min=1, help="ICFG-PEDES: in processed_data/, only this many test records.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Check the set of this manifest; with --data-root also compose it again.")
    ] = None,
    rebuild: Annotated[
        Path | None, typer.Option(help="Write the set of this manifest again, from --data-root to --output.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads; changes only the time.")] = min(8, os.cpu_count() or 1),
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put occluders in front of the people of a data set (MGCC's OGor); interrupted runs continue."""
    from ..data.occlusion import InstanceLibrary, OcclusionGenerator

    library = None if instances is None else InstanceLibrary.from_folder(instances)
    if verify is not None:
        if rebuild is not None:
            raise ConfigurationError("--verify and --rebuild do not go together; run them one after the other.")
        _verify(verify, data_root, library, as_json)
        return
    if data_root is None or output is None:
        raise ConfigurationError("reid-zoo occlude needs --data-root and --output, or --verify MANIFEST.")
    if rebuild is not None:
        if dataset is not None:
            raise ConfigurationError("--rebuild takes the data set from the manifest; leave --dataset out.")
        summary = OcclusionGenerator.rebuild(
            rebuild, data_root, output, library, num_workers=workers, progress=progress
        )
    else:
        if dataset is None:
            raise ConfigurationError("reid-zoo occlude needs --dataset: cuhk-pedes, icfg-pedes or rstpreid.")
        options: dict[str, Any] = {"selection": selection, "size": size, "position": position, "encoding": encoding}
        generator = OcclusionGenerator(
            dataset,
            library,
            seed=seed,
            fraction=_read_fraction(fraction),
            keep_clean=keep_clean,
            drop_single_image_ids=drop_single_image_ids,
            icfg_test_limit=icfg_test_limit,
            **options,
        )
        summary = generator.generate(data_root, output, num_workers=workers, progress=progress)
    _print_summary(summary, as_json)


def _read_fraction(text: str) -> float | dict[str, float]:
    try:
        if "=" not in text:
            return float(text)
        pairs = (pair.split("=") for pair in text.split(","))
        return {split.strip(): float(share) for split, share in pairs}
    except ValueError:
        raise ConfigurationError(
            f"--fraction {text!r} is neither a number nor like train=0.3,val=0.3,test=1."
        ) from None


def _print_summary(summary: OcclusionSummary, as_json: bool) -> None:
    if as_json:
        console.print_json(
            {
                "folder": str(summary.folder),
                "manifest": str(summary.manifest),
                "images": summary.images,
                "occluded": summary.occluded,
                "written": summary.written,
                "occluded_by_split": dict(summary.occluded_by_split),
                "occluded_by_class": dict(summary.occluded_by_class),
            }
        )
        return
    by_split = ", ".join(f"{split} {count}" for split, count in summary.occluded_by_split.items())
    console.say(
        f"{summary.occluded} of {summary.images} images are occluded ({by_split or 'none'}); "
        f"{summary.written} written in this run"
    )
    print(summary.folder)


def _verify(manifest: Path, data_root: Path | None, library: InstanceLibrary | None, as_json: bool) -> None:
    from ..data.occlusion import OcclusionGenerator

    result = OcclusionGenerator.verify(manifest, data_root, library)
    if as_json:
        console.print_json(
            {"manifest": str(manifest), "ok": result.ok, "images": result.images, "problems": result.problems}
        )
    else:
        for problem in result.problems[:_PROBLEMS_SHOWN]:
            print(problem)
        if len(result.problems) > _PROBLEMS_SHOWN:
            print(f"... and {len(result.problems) - _PROBLEMS_SHOWN} more; --json lists all")
    if not result.ok:
        raise DatasetError(f"{manifest}: {len(result.problems)} differences from the manifest.")
    if not as_json:
        print(f"{result.images} images are as the manifest says")
