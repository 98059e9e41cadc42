"""Official checkpoints → models of the zoo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint_files import read_checkpoint, unwrap
from .errors import CheckpointError
from .models.conversion_report import ConversionReport
from .models.registry import METHODS, get_method

__all__ = ["ConversionReport", "convert_official_checkpoint", "recognise_method"]


def recognise_method(content: Mapping[str, Any]) -> str | None:
    """Model type whose official checkpoints have keys like these, `None` if none of the zoo's has."""
    state, _ = unwrap(content)
    for method in METHODS.values():
        signature: re.Pattern[str] = method.conversion.SIGNATURE
        if any(signature.fullmatch(key) for key in state):
            return method.model_type
    return None


def convert_official_checkpoint(
    method: str, checkpoint: str | Path | Mapping[str, Any], *, return_report: bool = False, **config: Any
) -> Any:
    """Build a training model of the zoo from the authors' checkpoint.

    Args:
        method: Model type, e.g. `"cfine"`.
        checkpoint: The file (`.pth`, `.pth.tar`, `.pt`, `.safetensors`; for MGCC the folder `breakpoint`), or its content.
            Nothing in it is executed.
        return_report: Also return the [`ConversionReport`].
        config: Fields of the method's configuration that neither the checkpoint nor the release's options beside it tell,
            e.g. `image_size=[384, 128]`.

    Returns:
        `XForTraining` in evaluation mode, or `(model, report)`.

    Raises:
        CheckpointError: If the file cannot be read, belongs to another method, has keys the method does not have, or
            lacks some that it needs.
    """
    entry = get_method(method)
    name = str(checkpoint) if isinstance(checkpoint, str | Path) else "the checkpoint"
    read = getattr(
        entry.conversion, "read_official", read_checkpoint
    )  # a method may keep its checkpoint in several files
    if isinstance(checkpoint, str | Path):
        content = read(Path(checkpoint))
        if hasattr(entry.conversion, "official_options"):  # a release may write them beside the checkpoint
            config = {**entry.conversion.official_options(Path(checkpoint)), **config}
    else:
        content = checkpoint
    recognised = recognise_method(content)
    # Towers alone, which several methods share, are taken for the method that was asked for.
    family: re.Pattern[str] | None = getattr(entry.conversion, "FAMILY_SIGNATURE", None)
    if recognised is None and family is not None and any(family.fullmatch(key) for key in unwrap(content)[0]):
        recognised = method
    if recognised != method:
        what = f"looks like a {recognised} checkpoint" if recognised else "does not look like one"
        some = ", ".join(list(unwrap(content)[0])[:3]) or "no tensors"
        raise CheckpointError(f"{name} should be an official {method} checkpoint, but {what} (it holds {some}, ...).")
    configuration, state, report = entry.conversion.convert_checkpoint(content, **config)
    model = entry.training_class(configuration)
    wanted = model.state_dict()
    for key, value in state.items():
        if key in wanted and tuple(wanted[key].shape) != tuple(value.shape):
            raise CheckpointError(
                f"{name}: {key} has shape {tuple(value.shape)}, but this configuration wants "
                f"{tuple(wanted[key].shape)}; check the fields given for it."
            )
    unexpected = sorted(set(state) - set(wanted))
    if unexpected:
        raise CheckpointError(
            f"{name} has weights that this configuration has no place for: {', '.join(unexpected[:5])}."
        )
    missing = sorted(set(wanted) - set(state))
    heads = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected]
    needed = [key for key in missing if not any(pattern.search(key) for pattern in heads)]
    if needed:
        raise CheckpointError(
            f"{name} lacks weights that {method} needs: {', '.join(needed[:5])} ({len(needed)} in all)."
        )
    model.load_state_dict(state, strict=False)
    report.newly_initialised = missing
    model.eval()
    return (model, report) if return_report else model
