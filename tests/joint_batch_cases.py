"""Every objective of the zoo with a batch and all that its `forward` would draw: what several processes are compared on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from contract_cases import _CFINE, _CROSS, _MGCC, _VFE_TPS, BATCH, CASES, LABELS, ContractCase, build_case
from reid_zoo.data.masking import mask_words

# Arguments that speak of rows of the joint batch: all processes get the same.
JOINT_ARGUMENTS = ("gvfc_indices", "image_triplets", "text_triplets")

_ABLATIONS = ("matching", "id", "g2id", "itc", "cmpm", "triplet", "sampled_triplet", "gtm", "patch")
_PAPER = {"cmpm_target_norm": "l1", "diversity_form": "paper", "mask_padded_selection": True}
_IN_BATCH = ["i2t_in_batch", "t2i_in_batch"]
MORE_CASES = (
    ContractCase("cfine", "paper", {**_CFINE, **_PAPER, "triplet_mining": "hardest", "triplet_reduction": "mean"}),
    ContractCase("irra", "all", {**_CROSS, "loss_terms": ["sdm", "id", "mlm", "itc", "cmpm"]}),
    ContractCase("vfe_tps", "history", {**_VFE_TPS, "gvfc_mode": "history"}),
    ContractCase("vfe_tps", "ablations", {**_VFE_TPS, "loss_terms": _ABLATIONS, "sdm_soft_label_factor": 0.3}),
    ContractCase(
        "vfe_tps", "mae", {**_VFE_TPS, "gvfc_mode": "batch", "mim_guidance": "mae", "mim_loss_form": "normalized_mse"}
    ),
    ContractCase("mgcc", "rank", {**_MGCC, "loss_type": "rank", "use_id_loss": True}),
    ContractCase("mgcc", "masked", {**_MGCC, "text_padding": "mask", "loss_reduction": "sum"}),
    ContractCase("dual_encoder", "all", {"loss_terms": ["sdm", "cmpm", "itc", "id"]}),
    ContractCase("clip_reid", "stage-one"),
    ContractCase("clip_reid", "one-stage", {"training_mode": "one_stage"}),
    ContractCase("clip_reid", "in-batch", {"text_loss_terms": _IN_BATCH}),
)


def _without_unknown_draws(case: ContractCase) -> ContractCase:
    return replace(case, fields={**case.fields, "caption_mask_prob": 0}) if "caption_mask_prob" in case.fields else case


JOINT_BATCH_CASES = tuple(_without_unknown_draws(case) for case in (*CASES, *MORE_CASES))


def _nearest_rows(probabilities: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """In place of samples: the next row of the same identity, and of another one."""
    same = (labels[:, None] == labels[None, :]).to(torch.uint8)
    return same.argmax(dim=1, keepdim=True), same.argmin(dim=1, keepdim=True)


def build_joint_batch_case(case: ContractCase, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Training model and joint batch with everything that would be drawn; numbers of masked items differ between rows.

    In float64 (but for the losses, which make float32 of features): the rounding errors of float32, where gradients nearly
    cancel, would hide smaller mistakes.
    """
    built = build_case(case, folder)
    model, batch, config = built.training, dict(built.batch), built.training.config
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    generator = torch.Generator().manual_seed(5)
    if case.variant == "stage-one":
        model.set_training_stage(1)
    if case.model_type == "irra":
        ids = batch["input_ids"]
        torch.manual_seed(5)
        masked = mask_words(ids, config.mask_token_id, probability=0.4)
        batch |= {"masked_input_ids": masked.input_ids, "masked_labels": masked.labels}
    if case.model_type == "vfe_tps":
        draws = torch.rand(BATCH, *config.vision_config.grid_size, generator=generator)
        shares = torch.linspace(0.2, 0.9, BATCH).view(-1, 1, 1)
        if config.mim_guidance == "mae":  # needs equally many
            shares = draws.flatten(1).sort(dim=1).values[:, 4].view(-1, 1, 1)
        batch |= {"patch_mask": (draws < shares).long(), "image_ids": torch.arange(BATCH) // 2}
        if config.gvfc_mode == "sample":
            batch["gvfc_indices"] = torch.tensor([5, 0, 3, 1])
        model.sampled_triplet_loss.sample = _nearest_rows
    if case.variant == "rank":
        negatives = (LABELS[:, None] == LABELS[None, :]).to(torch.uint8).argmin(dim=1)
        rows = torch.arange(BATCH)
        batch["image_triplets"] = torch.stack([rows, rows, negatives], dim=1)
        batch["text_triplets"] = batch["image_triplets"].flip(0)[1:]
    return model.double(), {
        name: value.double() if value.is_floating_point() else value for name, value in batch.items()
    }
