"""`reid-zoo models`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console

__all__ = ["models"]


def models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the methods of the zoo."""
    from ..models.registry import METHODS

    rows = [(m.model_type, m.title, m.reference, m.official_licence) for m in METHODS.values()]
    if as_json:
        names = ("model_type", "title", "reference", "official_licence")
        console.print_json({"models": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        console.print_table("", ("model type", "method", "paper", "licence of the release"), rows)
