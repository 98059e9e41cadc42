"""`reid-zoo models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from ..models.registry import Method

__all__ = ["models"]

_REPORTED_BY = "figures are reported by the papers or the authors, none of them is measured by us"


def _headline(model_type: str) -> str:
    """The first reported Rank-1 of every data set, in one line."""
    from ..models.reported_results import REPORTED_RESULTS

    first: dict[str, float] = {}
    for result in REPORTED_RESULTS.get(model_type, ()):
        first.setdefault(result.dataset, result.metrics["R1"])
    return ", ".join(f"{dataset} {figure:g}" for dataset, figure in list(first.items())[:3])


def _sizes(method: Method) -> list[dict[str, Any]]:
    """Every preset with its numbers of parameters, counted without allocating any."""
    import torch

    sizes = []
    for preset in method.config_class.presets:
        with torch.device("meta"):
            config = method.config_class.from_preset(preset)
            inference, training = method.model_class(config), method.training_class(config)
        sizes.append(
            {
                "preset": preset,
                "image_size": list(config.vision_config.image_size),
                "embedding_size": config.embedding_size,
                "parameters": sum(parameter.numel() for parameter in inference.parameters()),
                "parameters_in_training": sum(parameter.numel() for parameter in training.parameters()),
            }
        )
    return sizes


def _entry(method: Method) -> dict[str, Any]:
    from ..models.reported_results import REPORTED_RESULTS

    return {
        "model_type": method.model_type,
        "title": method.title,
        "reference": method.reference,
        "official_licence": method.official_licence,
        "queries": list(method.queries),
        "optional_inputs": list(method.optional_inputs),
        "parameters": method.num_parameters,
        "reported": [
            {
                "variant": result.variant,
                "dataset": result.dataset,
                "metrics": dict(result.metrics),
                "source": result.source,
            }
            for result in REPORTED_RESULTS.get(method.model_type, ())
        ],
    }


def _print_details(method: Method, entry: dict[str, Any]) -> None:
    print(f"{method.title} ({method.model_type})")
    print(method.reference)
    print(f"licence of the official release: {method.official_licence}")
    takes = ", ".join(f"{name} queries" for name in method.queries)
    optional = f"; if trained so: {', '.join(method.optional_inputs)}" if method.optional_inputs else ""
    print(f"takes: {takes}{optional}")
    console.print_table(
        "sizes",
        ("preset", "image (h × w)", "embedding", "parameters", "in training"),
        [
            (
                size["preset"],
                " × ".join(map(str, size["image_size"])),
                str(size["embedding_size"]),
                f"{size['parameters'] / 1e6:.1f} M",
                f"{size['parameters_in_training'] / 1e6:.1f} M",
            )
            for size in entry["sizes"]
        ],
    )
    console.print_table(
        _REPORTED_BY,
        ("model", "data set", "figures (%)", "source"),
        [
            (
                result["variant"],
                result["dataset"],
                ", ".join(f"{name} {figure:.2f}" for name, figure in result["metrics"].items()),
                result["source"],
            )
            for result in entry["reported"]
        ],
    )


def models(
    method: Annotated[str | None, typer.Argument(help="Model type, for its sizes and all reported figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the methods of the zoo, or show one of them."""
    from ..models.registry import METHODS, get_method

    if method is not None:
        chosen = get_method(method)
        entry = {**_entry(chosen), "sizes": _sizes(chosen)}
        if as_json:
            console.print_json(entry)
        else:
            _print_details(chosen, entry)
        return
    if as_json:
        console.print_json({"models": [_entry(entry) for entry in METHODS.values()]})
        return
    console.print_table(
        "",
        ("model type", "method", "queries", "parameters", "reported Rank-1 (%)", "licence of the release"),
        [
            (
                entry.model_type,
                entry.title,
                ", ".join(entry.queries) + (" (+ camera)" if entry.optional_inputs else ""),
                f"{entry.num_parameters / 1e6:.0f} M",
                _headline(entry.model_type),
                entry.official_licence,
            )
            for entry in METHODS.values()
        ],
    )
    print(f"{_REPORTED_BY}; `reid-zoo models MODEL_TYPE` names the source of each, sizes and the paper.")
