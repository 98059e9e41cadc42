"""The ablation tables as Markdown, for `docs/ablations.md` and the command line."""

from __future__ import annotations

from collections.abc import Iterable

from .ablations import ABLATION_TABLES, AblationRow, AblationTable, ablation_rows
from .registry import METHODS

__all__ = ["ablation_document", "ablation_table_lines"]

_UNITS = {"ms_per_query": "ms per query", "training_gb": "GB in training"}
_CONFIG, _MODEL = "model.config.", "model."

_INTRODUCTION = """\
# Ablation tables

Every row of the papers' ablation tables and the switches that give it. Switches are fields of the method's configuration (those
of a tower as `vision_config.…`); `image_tower` is a field of a recipe. Every row is built and trained, at a size for testing, in
`tests/models/test_ablations.py`: **the figures are reported by the papers, none was measured here.**

A row is trained by putting its switches into a recipe, `<method>-<data set>` unless the row names another: those of the
configuration behind `model.config.`, those of a tower and `image_tower` behind `model.`:

```bash
reid-zoo train cfine-cuhk-pedes --data-root DIR --output OUT \\
  --set 'model.config.granularities=["low"]' --set model.config.use_cfr=false --set model.config.use_fcd=true
```

`AblationRow.recipe_overrides()` writes them out. What a row does not name stays as in the recipe.

This page is written by `python docs/write_ablations.py` from `reid_zoo.models.ablations`.
"""


def _switches(row: AblationRow) -> str:
    """Fields and values as code, one per line of the cell; the long prefixes are told once above."""
    fields = [override.removeprefix(_CONFIG).removeprefix(_MODEL) for override in row.recipe_overrides()]
    if row.starts_from or row.method != row.paper:
        fields.insert(0, f"recipe {', '.join(row.recipes)}")
    return "<br>".join(f"`{field}`" for field in fields)


def _decimals(rows: Iterable[AblationRow]) -> int:
    """Decimals that the table is printed with."""
    values = [value for row in rows for figures in row.reported.values() for value in figures.values()]
    return max((len(str(value).partition(".")[2]) for value in values), default=0)


def _columns(rows: Iterable[AblationRow]) -> dict[str, list[str]]:
    """Data set → metrics reported on it, in the order of the paper."""
    return {dataset: list(figures) for row in rows for dataset, figures in row.reported.items()}


def ablation_table_lines(table: AblationTable) -> list[str]:
    """One table or figure as lines of Markdown."""
    rows = ablation_rows(paper=table.paper, table=table.name)
    columns, decimals = _columns(rows), _decimals(rows)
    heads = [
        f"{dataset}: {' / '.join(_UNITS.get(name, name) for name in names)}, reported by the paper"
        for dataset, names in columns.items()
    ]
    lines = [f"### {table.name}: {table.title}", ""]
    if table.note:
        lines += [table.note, ""]
    lines += ["| " + " | ".join(["row", "switches", *heads]) + " |", "|---" * (2 + len(heads)) + "|"]
    for row in rows:
        label = f"{row.label} ({row.note})" if row.note else row.label
        cells = [
            " / ".join(f"{row.reported[dataset][name]:.{decimals}f}" for name in names)
            if dataset in row.reported
            else "-"
            for dataset, names in columns.items()
        ]
        lines.append("| " + " | ".join([label, _switches(row), *cells]) + " |")
    return [*lines, ""]


def ablation_document(paper: str | None = None) -> str:
    """All tables, or those of one paper (a model type), as Markdown."""
    lines = [_INTRODUCTION]
    for model_type in dict.fromkeys(table.paper for table in ABLATION_TABLES):
        if paper not in (None, model_type):
            continue
        title = METHODS[model_type].title if model_type in METHODS else model_type
        lines += [f"## {title}", ""]
        for table in ABLATION_TABLES:
            if table.paper == model_type:
                lines += ablation_table_lines(table)
    return "\n".join(lines).rstrip() + "\n"
