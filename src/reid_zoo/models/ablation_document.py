"""The ablation tables as Markdown, for `docs/ablations.md` and the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .ablations import AblationRow, ablation_rows
from .registry import METHODS

__all__ = ["ABLATION_TABLES", "AblationTable", "ablation_document", "ablation_table_lines"]

_UNITS = {"ms_per_query": "ms per query", "training_gb": "GB in training"}
_CONFIG, _MODEL = "model.config.", "model."

_INTRODUCTION = """\
# Ablation tables

Every row of the papers' ablation tables and the switches that give it. Switches are fields of the method's configuration (those
of a tower as `vision_config.…`); `sampler.…` is a part of the recipe. Every row is built and trained, at a size for testing, in
`tests/models/test_ablations.py`: **the figures are reported by the papers, none was measured here.**

A row is trained by putting its switches into the recipe that is named with it, those of the configuration behind `model.config.`,
those of a tower behind `model.`, `sampler.…` as it stands:

```bash
reid-zoo train cfine-cuhk-pedes --data-root DIR --output OUT \\
  --set 'model.config.granularities=["low"]' --set model.config.use_cfr=false --set model.config.use_fcd=true
```

`AblationRow.recipe_overrides()` writes them out. What a row does not name stays as in the recipe.

This page is written by `python docs/write_ablations.py` from `reid_zoo.models.ablations`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationTable:
    """A table or figure of a paper.

    Attributes:
        paper: Model type of the method whose paper it is.
        name: Its name there, e.g. `"Table IV"`.
        title: What it compares.
        note: What a reader must know: what the paper leaves open and which reading was taken.
    """

    paper: str
    name: str
    title: str
    note: str = ""


_PLOT = "The paper shows a plot; its text gives no figures and no tick marks, so the points are chosen here."

_OWN_RATIOS = "Selection ratios as in the recipe of each data set."

ABLATION_TABLES: tuple[AblationTable, ...] = (
    AblationTable(
        paper="cfine",
        name="Table IV",
        title="components",
        note="The weights of the losses for part of the granularities are not published: by position, as in the release.",
    ),
    AblationTable(paper="cfine", name="Table V", title="multi-grained global features"),
    AblationTable(paper="cfine", name="Table VI", title="aggregation in cross-grained feature refinement"),
    AblationTable(paper="cfine", name="Fig. 5(a)", title="share of selected patches; best at 0.1", note=_PLOT),
    AblationTable(paper="cfine", name="Fig. 5(b)", title="share of selected words; best at 0.2", note=_PLOT),
    AblationTable(
        paper="cfine",
        name="Fig. 5(c)",
        title="decoder blocks; best with 1",
        note=f"{_PLOT} The release applies one block M times; `gld_tie_layers=false` makes M independent ones.",
    ),
    AblationTable(paper="cfine", name="Fig. 5(d)", title="positives of a patch or word; best with 3", note=_PLOT),
    AblationTable(paper="vfe_tps", name="Table 5", title="from CLIP to VFE-TPS"),
    AblationTable(paper="vfe_tps", name="Table 6", title="auxiliary tasks"),
    AblationTable(
        paper="vfe_tps",
        name="Fig. 5",
        title="masked image modelling",
        note="The paper shows a plot and does not say whether IS-GVFC is on; here everything else is the full method. How MAE "
        "was put in is not said either (`mim_loss_form` chooses between its own loss and L1).",
    ),
    AblationTable(
        paper="vfe_tps",
        name="Fig. 6",
        title="share of masked patches; best at 0.5 to 0.6",
        note=f"{_PLOT} (a) is retrieval, (b) `reid_zoo.evaluation.reconstruction_distance.average_distance`.",
    ),
    AblationTable(
        paper="vfe_tps",
        name="Fig. 7",
        title="calibration of global features",
        note="The paper shows a plot of `reid_zoo.evaluation.feature_analysis.silhouette_coefficient`, and gives no formula "
        "and margin of its triplet loss: batch-hard, margin 0.3, on batches of several images per person here.",
    ),
    AblationTable(paper="mgcc", name="Table 3", title="similarities", note=_OWN_RATIOS),
    AblationTable(
        paper="mgcc",
        name="Table 4",
        title="token selection (rho_i, rho_t)",
        note="Each data set has its own ratios, so a row has figures for one of them.",
    ),
    AblationTable(
        paper="mgcc",
        name="Table 5",
        title="all selection ratios (rho_i, rho_t)",
        note="The paper's times and memory are left out; Table 4 has them.",
    ),
    AblationTable(paper="mgcc", name="Table 6", title="aggregation of the patch-word similarity", note=_OWN_RATIOS),
    AblationTable(
        paper="mgcc",
        name="tau",
        title="temperature of the fusion; best at 0.01",
        note="The appendix shows a plot, whose bar at 0.01 equals the rows without selection: so they are all without.",
    ),
    AblationTable(
        paper="clip_reid",
        name="Table 4",
        title="baselines",
        note="The other rows (BoT, AAformer, TransReID) are figures of other papers for other methods.",
    ),
    AblationTable(
        paper="clip_reid",
        name="Table 5",
        title="one and two stages of training",
        note="One-stage training is described in one sentence only; see `CLIPReIDConfig.training_mode` for how it is read here.",
    ),
    AblationTable(paper="clip_reid", name="Table 6", title="text terms of the second stage (ViT)"),
    AblationTable(paper="clip_reid", name="Table 7", title="camera embedding and overlapping patches (ViT)"),
    AblationTable(
        paper="clip_reid",
        name="M",
        title="learned tokens per identity; best with 4",
        note="The text names 1, 4 and 8, without figures.",
    ),
)
"""All tables and figures that have rows."""


def _switches(row: AblationRow) -> str:
    """Fields and values as code, one per line of the cell; the long prefixes are told once above."""
    fields = [override.removeprefix(_CONFIG).removeprefix(_MODEL) for override in row.recipe_overrides()]
    return "<br>".join(f"`{field}`" for field in fields)


def _recipes(row: AblationRow) -> str:
    return ", ".join(f"`{name}`" for name in row.starts_from)


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
    recipes = list(dict.fromkeys(_recipes(row) for row in rows))
    several = len(recipes) > 1
    if not several:
        lines += [f"Recipe: {recipes[0]}.", ""]
    heads = ["row", *(["recipe"] if several else []), "switches", *heads]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        label = f"{row.label} ({row.note})" if row.note else row.label
        cells = [
            " / ".join(f"{row.reported[dataset][name]:.{decimals}f}" for name in names)
            if dataset in row.reported
            else "-"
            for dataset, names in columns.items()
        ]
        lines.append("| " + " | ".join([label, *([_recipes(row)] if several else []), _switches(row), *cells]) + " |")
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
