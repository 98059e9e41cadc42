"""Every row of the papers' ablation tables as data: the switches that give it, and what the paper reports for it.

Read without importing any model; `ablation_document` makes `docs/ablations.md` of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABLATIONS", "AblationRow", "ablation_rows"]

Figures = Mapping[str, Mapping[str, float]]

_TOWERS = ("vision_config", "text_config")
_RANKS = ("R1", "R5", "R10")
_OCCLUDED = ("occluded-cuhk-pedes", "occluded-icfg-pedes", "occluded-rstpreid")


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """A row of an ablation table, or a point of an ablation curve.

    Attributes:
        paper: Model type of the method whose paper it is.
        table: Name of the table or figure there, e.g. `"Table IV"`.
        label: The row's name there.
        method: Model type that the switches belong to; the paper's own, but for rows that are another model.
        config: Fields of the method's configuration, those of a tower as a dictionary. What a table is about is spelled out
            in every row, also where it is the default.
        recipe: Fields of a training recipe beside them, written with dots, e.g. `model.image_tower`.
        starts_from: Recipes that the switches are put into, one for every data set.
        reported: Data set → metric → figure reported by the paper: percentages, `ms_per_query` and `training_gb`. Empty
            where the paper only shows a plot.
        note: What is particular to this row.
    """

    paper: str
    table: str
    label: str
    method: str
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    starts_from: tuple[str, ...]
    reported: Figures = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.paper} {self.table} {self.label}"

    def recipe_overrides(self) -> list[str]:
        """The row as `field=value` overrides of a recipe of its method, for `load_recipe` or `reid-zoo train --set`."""
        fields: dict[str, Any] = {}
        for name, value in self.config.items():
            if name in _TOWERS:
                fields |= {f"model.{name}.{inner}": inner_value for inner, inner_value in value.items()}
            else:
                fields[f"model.config.{name}"] = value
        fields |= self.recipe
        # JSON is YAML, which is what recipes and `--set` are written in; a bare word needs no quotes there.
        return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()]


def _figures(dataset: str, names: Iterable[str], values: str) -> dict[str, dict[str, float]]:
    """`{dataset: {name: value}}` from numbers separated by blanks."""
    return {dataset: {name: float(value) for name, value in zip(names, values.split(), strict=True)}}


# ---------------------------------------------------------------------------------------------------------------- CFine

_NO_MODULES: dict[str, Any] = {"granularities": ["low"], "use_cfr": False, "use_fcd": False}
_ALL_GRANULARITIES = ["low", "high", "middle"]
_IMAGENET_VIT: dict[str, Any] = {
    "patch_bias": True,
    "use_pre_layernorm": False,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "hidden_dropout_prob": 0.1,
}


def _cfine(
    table: str,
    label: str,
    figures: str = "",
    *,
    starts_from: str = "cfine-cuhk-pedes",
    note: str = "",
    **config: Any,
) -> AblationRow:
    return AblationRow(
        paper="cfine",
        table=table,
        label=label,
        method="cfine",
        config=config,
        starts_from=(starts_from,),
        reported=_figures("cuhk-pedes", _RANKS, figures) if figures else {},
        note=note,
    )


def _cfine_modules(
    label: str, figures: str, granularities: list[str], *, cfr: bool = False, fcd: bool = False
) -> AblationRow:
    return _cfine(
        "Table IV",
        label,
        figures,
        granularities=granularities,
        use_cfr=cfr,
        use_fcd=fcd,
    )


def _cfine_mgf(label: str, figures: str, **switches: Any) -> AblationRow:
    usual: dict[str, Any] = {
        "mgf_split": True,
        "granularities": _ALL_GRANULARITIES,
        "gld_attention_type": "cross",
        "gld_cls_init": "encoder",
    }
    return _cfine("Table V", label, figures, **(usual | switches))


_CFINE_ROWS = (
    _cfine(
        "Table IV",
        "0 Baseline",
        "57.89 78.46 85.77",
        vision_config=_IMAGENET_VIT,
        **_NO_MODULES,
        starts_from="cfine-cuhk-pedes-imagenet-vit",
        note="ImageNet ViT and BERT, CMPM and CMPC on the class tokens",
    ),
    _cfine_modules("1 +CLIP", "65.56 83.74 89.85", ["low"]),
    _cfine_modules("2 +CLIP+MGF(m)", "67.66 85.10 89.80", ["low", "middle"]),
    _cfine_modules("3 +CLIP+MGF(h)", "68.22 85.12 90.24", ["low", "high"]),
    _cfine_modules("4 +CLIP+CFR", "66.41 84.16 89.91", ["low"], cfr=True),
    _cfine_modules("5 +CLIP+FCD", "66.13 84.15 89.78", ["low"], fcd=True),
    _cfine_modules("6 +CLIP+MGF", "68.62 85.36 90.84", _ALL_GRANULARITIES),
    _cfine_modules("7 +CLIP+MGF+CFR", "69.14 85.40 90.55", _ALL_GRANULARITIES, cfr=True),
    _cfine_modules("8 +CLIP+MGF+FCD", "69.33 85.22 90.61", _ALL_GRANULARITIES, fcd=True),
    _cfine_modules("9 CFine", "69.57 85.93 91.15", _ALL_GRANULARITIES, cfr=True, fcd=True),
    _cfine_mgf("MGF-2K", "67.43 84.80 90.27", mgf_split=False, granularities=["low", "high"]),
    _cfine_mgf("Self-attention", "68.14 84.76 90.09", gld_attention_type="self"),
    _cfine_mgf("CLS-mean", "68.00 84.63 89.90", gld_cls_init="mean"),
    _cfine_mgf("CLS-random", "62.67 81.66 87.88", gld_cls_init="random"),
    _cfine_mgf("Ours", "69.57 85.93 91.15"),
    _cfine("Table VI", "Aggr-Sum", "69.07 85.45 90.72", cfr_aggregation="sum"),
    _cfine("Table VI", "Aggr-Mean", "68.66 85.32 90.46", cfr_aggregation="mean"),
    _cfine("Table VI", "Aggr-Max", "68.44 85.15 90.11", cfr_aggregation="max"),
    _cfine("Table VI", "Ours", "69.57 85.93 91.15", cfr_aggregation="softmax"),
    *(_cfine("Fig. 5(a)", f"R_v = {ratio}", image_token_ratio=ratio) for ratio in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)),
    *(_cfine("Fig. 5(b)", f"R_t = {ratio}", text_token_ratio=ratio) for ratio in (0.1, 0.2, 0.3, 0.4, 0.5)),
    *(_cfine("Fig. 5(c)", f"M = {blocks}", gld_num_layers=blocks) for blocks in (1, 2, 3, 4)),
    *(
        _cfine("Fig. 5(d)", f"K_p = {count}", num_positive_words=count, num_positive_patches=count)
        for count in (1, 2, 3, 4, 5)
    ),
)

# -------------------------------------------------------------------------------------------------------------- VFE-TPS

_RANKS_AND_MAP = (*_RANKS, "mAP")


def _vfe_tps(
    table: str,
    label: str,
    figures: str = "",
    *,
    method: str = "vfe_tps",
    starts_from: str = "vfe_tps-cuhk-pedes",
    recipe: Mapping[str, Any] | None = None,
    note: str = "",
    **config: Any,
) -> AblationRow:
    return AblationRow(
        paper="vfe_tps",
        table=table,
        label=label,
        method=method,
        config=config,
        recipe=recipe or {},
        starts_from=(starts_from,),
        reported=_figures("cuhk-pedes", _RANKS_AND_MAP, figures) if figures else {},
        note=note,
    )


_VFE_TPS_TERMS = ["matching", "gvfc", "mim"]
_MIM_METHODS = {"MAE": "mae", "SimMIM": "none", "TG-MIM": "text"}
_MASK_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_VFE_TPS_ROWS = (
    _vfe_tps(
        "Table 5",
        "Zero-shot CLIP",
        "12.61 27.08 35.48 12.36",
        method="dual_encoder",
        training="zero_shot",
        starts_from="dual_encoder-cuhk-pedes",
        loss_terms=["sdm"],
        note="nothing is trained",
    ),
    _vfe_tps(
        "Table 5",
        "Linear probe CLIP",
        "24.16 38.99 46.69 21.25",
        method="dual_encoder",
        training="linear_probe",
        starts_from="dual_encoder-cuhk-pedes-linear-probe",
        loss_terms=["sdm"],
    ),
    _vfe_tps(
        "Table 5",
        "CLIP",
        "66.78 85.29 91.20 59.68",
        method="dual_encoder",
        training="fine_tuned",
        starts_from="dual_encoder-cuhk-pedes",
        loss_terms=["sdm"],
        note="the matching loss alone; Table 6 reports 70.61 for the same thing",
    ),
    _vfe_tps("Table 5", "VFE-TPS", "72.47 88.24 93.24 64.26", loss_terms=_VFE_TPS_TERMS),
    _vfe_tps("Table 6", "neither", "70.61 87.66 92.32 63.12", loss_terms=["matching"]),
    _vfe_tps("Table 6", "TG-MIM", "72.16 88.47 93.02 63.99", loss_terms=["matching", "mim"]),
    _vfe_tps("Table 6", "IS-GVFC", "71.61 88.29 92.85 64.24", loss_terms=["matching", "gvfc"]),
    _vfe_tps("Table 6", "TG-MIM, IS-GVFC", "72.47 88.24 93.24 64.26", loss_terms=_VFE_TPS_TERMS),
    _vfe_tps("Fig. 5", "without", loss_terms=["matching", "gvfc"]),
    *(
        _vfe_tps("Fig. 5", name, loss_terms=_VFE_TPS_TERMS, mim_guidance=guidance)
        for name, guidance in _MIM_METHODS.items()
    ),
    *(
        _vfe_tps("Fig. 6", f"{name}, ratio {ratio}", loss_terms=_VFE_TPS_TERMS, mim_guidance=guidance, mask_ratio=ratio)
        for name, guidance in _MIM_METHODS.items()
        for ratio in _MASK_RATIOS
    ),
    _vfe_tps("Fig. 7", "without", loss_terms=["matching", "mim"]),
    _vfe_tps("Fig. 7", "ID loss", loss_terms=["matching", "gi2id", "mim"]),
    _vfe_tps(
        "Fig. 7",
        "triplet loss",
        loss_terms=["matching", "triplet", "mim"],
        recipe={"sampler.kind": "identity", "sampler.images_per_identity": 4},
    ),
    _vfe_tps("Fig. 7", "IS-GVFC", loss_terms=_VFE_TPS_TERMS),
)

# ----------------------------------------------------------------------------------------------------------------- MGCC

_SUMMED = (*_RANKS, "mAP", "Rsum")

# Row | Occluded-CUHK-PEDES | Occluded-ICFG-PEDES | Occluded-RSTPReid
_TABLE_3 = """
it | 57.33 77.70 84.45 49.13 219.48 | 57.88 76.36 82.72 31.57 216.96 | 41.30 64.60 74.95 31.52 180.85
pw | 59.76 80.36 87.52 52.46 227.64 | 55.26 76.18 83.09 31.76 214.53 | 43.00 69.40 79.15 33.89 191.55
pt | 59.55 80.75 87.41 52.76 227.71 | 56.57 76.83 84.05 32.13 217.45 | 41.05 69.40 78.45 33.23 188.90
iw | 49.69 70.42 77.71 41.29 197.82 | 49.73 70.49 77.69 24.88 197.91 | 33.05 55.25 64.45 24.83 152.75
it pw | 62.23 82.68 88.86 54.55 233.77 | 58.52 77.99 84.76 32.77 221.27 | 48.80 72.90 82.90 37.29 204.60
pt iw | 61.92 82.47 88.65 54.03 233.04 | 58.60 77.85 84.51 32.95 220.96 | 46.55 72.95 82.20 36.12 201.70
it pw pt iw | 62.44 82.44 88.52 54.18 233.40 | 59.28 78.32 84.75 33.30 222.35 | 49.85 74.95 83.45 38.48 208.25
"""
_TABLE_4 = """
1.0 1.0 | 62.75 54.53 234.49 3.63 15.27 | 58.80 33.12 221.45 8.33 15.27 | 48.35 37.00 202.40 3.94 15.27
0.3 0.4 | 62.44 54.18 233.40 2.61 12.70 | |
0.4 0.5 | | 59.28 33.30 222.35 4.40 12.70 |
0.5 0.5 | | | 49.85 38.48 208.25 3.24 12.82
"""
_TABLE_5 = """
1.0 1.0 | 62.75 82.83 88.91 54.53 234.49 | 58.80 78.03 84.62 33.12 221.45 | 48.35 71.90 82.15 37.00 202.40
0.1 0.1 | 61.91 81.84 88.55 53.42 232.30 | 57.12 77.25 84.34 32.34 218.71 | 44.95 71.25 81.65 35.61 197.85
0.2 0.1 | 61.50 82.33 88.61 53.48 232.44 | 57.07 77.11 84.04 32.43 218.22 | 45.65 71.55 80.70 35.35 197.90
0.3 0.1 | 61.03 82.68 88.53 53.46 232.24 | 57.18 77.43 84.05 32.38 218.66 | 43.60 70.00 80.50 35.07 194.10
0.4 0.1 | 60.75 82.10 88.21 53.23 231.06 | 57.65 77.41 84.13 32.66 219.19 | 44.90 71.05 81.60 36.18 197.55
0.5 0.1 | 60.62 82.47 88.87 53.41 231.96 | 57.33 77.10 83.86 32.22 218.29 | 46.10 71.35 82.30 35.95 199.75
0.1 0.2 | 61.70 81.76 87.61 53.65 231.07 | 57.94 77.57 84.32 32.71 219.83 | 43.25 71.20 81.95 34.78 196.40
0.2 0.2 | 61.21 82.39 88.84 53.73 232.44 | 57.96 77.65 84.41 32.65 220.02 | 43.45 70.55 80.55 34.33 194.55
0.3 0.2 | 61.01 81.87 88.42 53.40 231.30 | 57.89 77.36 84.59 32.59 219.84 | 46.45 71.90 82.20 36.36 200.55
0.4 0.2 | 61.31 81.40 87.90 53.55 230.61 | 58.41 78.16 84.78 33.02 221.35 | 46.05 71.05 81.25 35.89 198.35
0.5 0.2 | 61.50 82.34 88.95 53.61 232.79 | 57.34 77.78 84.45 32.63 219.57 | 44.95 71.30 81.80 35.64 198.05
0.1 0.3 | 60.92 82.18 88.56 53.42 231.66 | 57.95 78.15 84.63 32.92 220.73 | 44.85 71.95 81.90 35.90 198.70
0.2 0.3 | 61.45 81.50 88.74 53.46 231.69 | 57.88 77.72 84.24 32.50 219.84 | 44.50 71.25 81.05 35.47 196.80
0.3 0.3 | 62.02 82.23 88.27 53.77 232.52 | 58.68 77.98 84.68 33.12 221.34 | 48.30 72.30 81.20 36.51 201.80
0.4 0.3 | 61.57 82.42 88.61 53.91 232.60 | 58.22 78.61 84.85 33.14 221.68 | 44.95 71.15 81.00 35.87 197.10
0.5 0.3 | 60.48 81.81 88.16 53.03 230.45 | 57.62 78.21 85.14 33.24 220.97 | 46.20 72.40 81.10 35.70 199.70
0.1 0.4 | 61.05 81.73 88.40 52.94 231.18 | 57.83 77.55 84.15 32.71 219.53 | 45.00 71.60 80.60 35.53 197.20
0.2 0.4 | 61.18 82.29 88.74 53.71 232.21 | 58.76 77.75 84.67 32.99 221.18 | 45.50 70.50 79.35 35.55 195.35
0.3 0.4 | 62.44 82.44 88.52 54.18 233.40 | 58.52 77.91 84.69 32.85 221.12 | 46.50 73.00 82.15 36.94 201.65
0.4 0.4 | 61.86 82.23 88.89 53.74 232.98 | 58.08 77.77 84.39 32.86 220.24 | 48.05 72.00 81.90 37.00 201.95
0.5 0.4 | 61.96 82.21 88.68 54.17 232.85 | 58.66 78.31 84.91 33.30 221.88 | 46.45 72.10 81.00 36.23 199.55
0.1 0.5 | 61.48 82.23 88.55 53.65 232.26 | 58.37 78.64 84.97 32.99 221.98 | 47.10 72.30 81.95 36.66 201.35
0.2 0.5 | 61.92 81.95 88.52 54.04 232.39 | 57.44 77.30 84.25 32.61 218.99 | 45.50 71.85 82.20 35.87 199.55
0.3 0.5 | 61.68 81.74 88.34 53.81 231.76 | 58.15 78.12 84.60 32.92 220.87 | 45.80 71.60 80.90 36.37 198.30
0.4 0.5 | 62.04 81.81 88.42 53.95 232.27 | 59.28 78.32 84.75 33.30 222.35 | 46.25 72.05 80.85 36.08 199.15
0.5 0.5 | 61.21 81.69 88.68 53.26 231.58 | 58.43 78.21 84.75 33.16 221.39 | 49.85 74.95 83.45 38.48 208.25
"""
_TABLE_6 = """
mean-mean | 60.25 80.75 87.80 52.89 | 56.88 77.10 84.21 31.81 | 45.40 70.90 81.50 34.87
mean-max | 60.59 82.12 88.65 53.13 | 56.73 77.44 84.29 32.14 | 47.65 71.65 80.40 36.60
max-mean | 60.83 81.94 88.11 53.30 | 57.59 77.30 84.52 32.73 | 45.75 71.30 80.65 35.40
max-max | 61.44 82.47 88.53 53.61 | 58.21 77.82 84.40 33.14 | 45.30 71.25 81.25 36.11
AF | 62.44 82.44 88.52 54.18 | 59.28 78.32 84.75 33.30 | 49.85 74.95 83.45 38.48
"""
_SIMILARITY_NAMES = {"it": "S_I-T", "pw": "S_P-W", "pt": "S_P-T", "iw": "S_I-W"}


def _occluded(text: str, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """First column and figures of every line."""
    for line in text.strip().splitlines():
        first, *cells = (cell.strip() for cell in line.split("|"))
        reported: dict[str, dict[str, float]] = {}
        for dataset, values in zip(_OCCLUDED, cells, strict=True):
            if values:
                reported |= _figures(dataset, names, values)
        yield first, reported


def _mgcc(table: str, label: str, reported: Figures | None = None, *, note: str = "", **config: Any) -> AblationRow:
    return AblationRow(
        paper="mgcc",
        table=table,
        label=label,
        method="mgcc",
        config=config,
        starts_from=tuple(f"mgcc-{dataset}" for dataset in reported or _OCCLUDED),
        reported=reported or {},
        note=note,
    )


def _mgcc_terms(enabled: str, reported: Figures) -> AblationRow:
    names = enabled.split()
    label = ", ".join(_SIMILARITY_NAMES[name] for name in names)
    switches: dict[str, Any] = {f"use_{name}": name in names for name in _SIMILARITY_NAMES}
    return _mgcc("Table 3", label, reported, **switches)


def _mgcc_ratios(table: str, ratios: str, reported: Figures) -> AblationRow:
    rho_image, rho_text = (float(ratio) for ratio in ratios.split())
    label = f"({rho_image}, {rho_text})"
    if rho_image == rho_text == 1:  # the release switches the selection off, so that padding takes part too
        return _mgcc(table, label, reported, token_selection=False, note="no selection")
    note = (
        "printed as (0.2, 0.4); the text and Table 5 say (0.4, 0.5)"
        if (table, ratios) == ("Table 4", "0.4 0.5")
        else ""
    )
    return _mgcc(table, label, reported, token_selection=True, rho_image=rho_image, rho_text=rho_text, note=note)


_MGCC_ROWS = (
    *(_mgcc_terms(*row) for row in _occluded(_TABLE_3, _SUMMED)),
    *(
        _mgcc_ratios("Table 4", *row)
        for row in _occluded(_TABLE_4, ("R1", "mAP", "Rsum", "ms_per_query", "training_gb"))
    ),
    *(_mgcc_ratios("Table 5", *row) for row in _occluded(_TABLE_5, _SUMMED)),
    *(
        _mgcc("Table 6", name, reported, aggregation="attention" if name == "AF" else name.replace("-", "_"))
        for name, reported in _occluded(_TABLE_6, _RANKS_AND_MAP)
    ),
    *(_mgcc("tau", f"tau = {tau}", softmax_temperature=tau, token_selection=False) for tau in (1, 0.1, 0.01, 0.001)),
)

# ------------------------------------------------------------------------------------------------------------ CLIP-ReID


def _clip_reid(table: str, label: str, figures: str = "", *, note: str = "", **config: Any) -> AblationRow:
    tower = "rn50" if config.get("backbone") == "rn50" else "vit"
    variant = {"baseline": "-baseline", "one_stage": "-one-stage"}.get(config.get("training_mode", ""), "")
    return AblationRow(
        paper="clip_reid",
        table=table,
        label=label,
        method="clip_reid",
        config=config,
        starts_from=(f"clip_reid-msmt17-{tower}{variant}",),
        reported=_figures("msmt17", ("mAP", "R1"), figures) if figures else {},
        note=note,
    )


_RN50: dict[str, Any] = {"backbone": "rn50"}
_VIT: dict[str, Any] = {"backbone": "vit_b16"}
_SIE: dict[str, Any] = {"sie_camera": True, "sie_coef": 1.0}
_OLP: dict[str, Any] = {"vision_config": {"patch_stride": 12}}
_NO_OLP: dict[str, Any] = {"vision_config": {"patch_stride": None}}

_CLIP_REID_ROWS = (
    _clip_reid("Table 4", "CLIP-ReID baseline (CNN)", "60.7 82.1", **_RN50, training_mode="baseline"),
    _clip_reid("Table 4", "CLIP-ReID baseline (ViT)", "66.1 84.4", **_VIT, training_mode="baseline"),
    _clip_reid("Table 5", "CNN baseline", "60.7 82.1", **_RN50, training_mode="baseline"),
    _clip_reid("Table 5", "CNN one stage", "61.9 82.8", **_RN50, training_mode="one_stage"),
    _clip_reid("Table 5", "CNN two stage", "63.0 84.4", **_RN50, training_mode="two_stage"),
    _clip_reid("Table 5", "ViT baseline", "66.1 84.4", **_VIT, training_mode="baseline"),
    _clip_reid("Table 5", "ViT one stage", "68.9 85.9", **_VIT, training_mode="one_stage"),
    _clip_reid("Table 5", "ViT two stage", "73.4 88.7", **_VIT, training_mode="two_stage"),
    _clip_reid("Table 6", "none", "66.1 84.4", training_mode="baseline"),
    _clip_reid(
        "Table 6",
        "L_i2t, L_t2i",
        "71.3 87.5",
        training_mode="two_stage",
        text_loss_terms=["i2t_in_batch", "t2i_in_batch"],
    ),
    _clip_reid("Table 6", "L_i2t", "71.7 87.6", training_mode="two_stage", text_loss_terms=["i2t_in_batch"]),
    _clip_reid(
        "Table 6", "L_i2tce, L_t2i", "73.2 88.6", training_mode="two_stage", text_loss_terms=["i2t", "t2i_in_batch"]
    ),
    _clip_reid("Table 6", "L_i2tce", "73.4 88.7", training_mode="two_stage", text_loss_terms=["i2t"]),
    _clip_reid("Table 7", "neither", "73.4 88.7", sie_camera=False, **_NO_OLP),
    _clip_reid("Table 7", "SIE-all", "74.3 88.6", **_SIE, sie_tokens="all", **_NO_OLP),
    _clip_reid("Table 7", "SIE-cla", "74.5 88.8", **_SIE, sie_tokens="cls", **_NO_OLP),
    _clip_reid("Table 7", "OLP", "74.6 89.5", sie_camera=False, **_OLP),
    _clip_reid("Table 7", "SIE-cla, OLP", "75.8 89.7", **_SIE, sie_tokens="cls", **_OLP),
    *(_clip_reid("M", f"M = {count}", num_context_tokens=count) for count in (1, 4, 8)),
)

ABLATIONS: tuple[AblationRow, ...] = (*_CFINE_ROWS, *_VFE_TPS_ROWS, *_MGCC_ROWS, *_CLIP_REID_ROWS)
"""All rows, in the order of the papers."""


def ablation_rows(
    *, paper: str | None = None, table: str | None = None, method: str | None = None
) -> list[AblationRow]:
    """The rows of a paper, a table of it or a method; all of them by default."""
    wanted = {"paper": paper, "table": table, "method": method}
    return [
        row for row in ABLATIONS if all(value is None or getattr(row, name) == value for name, value in wanted.items())
    ]
