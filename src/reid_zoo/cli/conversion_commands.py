"""`reid-zoo convert`."""

from __future__ import annotations

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
        values[name] = yaml.safe_load(text)
    return values


def convert(
    method: Annotated[str, typer.Argument(help="Method, e.g. cfine.")],
    checkpoint: Annotated[Path, typer.Argument(help="The authors' checkpoint file.")],
    output: Annotated[Path, typer.Argument(help="New folder for the model.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="A field the checkpoint does not tell, e.g. image_size=[384,128]."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of the text tower (folder or Hub id), to save a processor as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert an official checkpoint into a model of the zoo."""
    from ..conversion import convert_official_checkpoint

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} is not empty; give a new folder.")
    model, report = convert_official_checkpoint(method, checkpoint, return_report=True, **_parse(settings or []))
    console.quiet_libraries()
    if tokenizer is not None:
        from transformers import AutoTokenizer

        from ..processing import ReIDProcessor

        processor = ReIDProcessor.build(
            AutoTokenizer.from_pretrained(tokenizer),
            image_size=model.config.vision_config.image_size,
            max_text_length=model.config.max_text_length,
        )
        processor.save_pretrained(output)
    model.save_pretrained(output)
    if as_json:
        console.print_json(
            {
                "method": method,
                "output": str(output),
                "num_converted": report.num_converted,
                "left_out": report.left_out,
                "newly_initialised": report.newly_initialised,
                "upcast": report.upcast,
            }
        )
        return
    for line in report.lines():
        print(line)
    print(f"model saved in {output}" + ("" if tokenizer else "; give --tokenizer to save a processor as well"))
