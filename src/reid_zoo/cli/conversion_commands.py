"""`reid-zoo convert`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import CheckpointError, RecipeError
from . import console

__all__ = ["convert"]


def _parse(settings: list[str]) -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise RecipeError(f"--set {setting!r}: write field=value.")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting!r}: the value is not valid YAML.") from error
    return values


def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"cannot read a tokenizer from {name!r}: {error}") from error


def convert(
    method: Annotated[str, typer.Argument(help="Method, e.g. cfine.")],
    checkpoint: Annotated[
        Path, typer.Argument(help="The authors' checkpoint: a file, for MGCC its folder `breakpoint`.")
    ],
    output: Annotated[Path, typer.Argument(help="New folder for the model.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="A field the checkpoint does not tell, e.g. image_size=[384,128]."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer of a BERT text tower (folder or Hub id), to save a processor as well; CLIP's is known."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert an official checkpoint into a model of the zoo."""
    from ..conversion import convert_official_checkpoint
    from ..processor_building import build_processor, needs_tokenizer

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} is not empty; give a new folder.")
    fields = _parse(settings or [])
    loaded = None if tokenizer is None else _load_tokenizer(tokenizer)
    model, report = convert_official_checkpoint(method, checkpoint, return_report=True, **fields)
    console.quiet_libraries()
    processor = None
    if loaded is not None and model.config.processor_defaults.tokenizer is None:
        raise CheckpointError(f"{method} reads no sentences; leave --tokenizer out.")
    if loaded is not None or not needs_tokenizer(model.config):
        processor = build_processor(model.config, loaded, name=str(checkpoint))
    # All or nothing: a folder left half-written would be refused by the next try, and might pass for a model.
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        whole = Path(folder) / output.name
        model.save_pretrained(whole)
        if processor is not None:
            processor.save_pretrained(whole)
        if output.is_dir():
            output.rmdir()  # it is empty, or it would have been refused above
        whole.replace(output)
    if as_json:
        console.print_json(
            {
                "method": method,
                "output": str(output),
                "processor": processor is not None,
                "num_converted": report.num_converted,
                "left_out": report.left_out,
                "newly_initialised": report.newly_initialised,
                "upcast": report.upcast,
            }
        )
        return
    for line in report.lines():
        print(line)
    what = "model" if processor is None else "model and processor"
    print(f"{what} saved in {output}" + ("; give --tokenizer to save a processor too" if processor is None else ""))
