"""One run of `ReIDTrainer` that several processes and one process must end alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reid_zoo.data import load_dataset
from reid_zoo.data.collators import ImageTextCollator, ImageTextPairs
from reid_zoo.data.transforms import ImageAugmentation
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, load_recipe
from tiny_models import tiny_model, tiny_processor


def train_tiny_model(people: Path, output: Path, *, batch_size: int) -> dict[str, Any]:
    """Train and evaluate a tiny CFine without anything random; weights end up in `output`.

    Args:
        people: Root of drawn people.
        output: Folder to write to.
        batch_size: Of one process.

    Returns:
        The metrics, the logged terms of the loss, and the number of images that this process encoded to evaluate.
    """
    model, processor = tiny_model(), tiny_processor()
    # Adam with a large ε: its plain steps are the signs of gradients, also of those that are rounding errors.
    optimization = load_recipe("cfine-tiny", ["optimization.num_epochs=2", "optimization.eps=100"]).optimization
    records = load_dataset("cuhk-pedes", people, "train")
    arguments = ReIDTrainingArguments(
        output_dir=str(output),
        num_train_epochs=2,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=2,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = ReIDTrainer(
        model,
        arguments,
        optimization=optimization,
        train_dataset=ImageTextPairs(records, processor, ImageAugmentation(horizontal_flip=0)),
        eval_dataset=load_dataset("cuhk-pedes", people, "test"),
        data_collator=ImageTextCollator(processor),
        processing_class=processor,
    )
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    trainer.train()
    encoded = 0
    encode = model.cfine.get_image_features

    def counting(pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        nonlocal encoded
        encoded += len(pixel_values)
        return encode(pixel_values, **kwargs)

    model.cfine.get_image_features = counting
    metrics = trainer.evaluate()
    del model.cfine.get_image_features
    trainer.save_model(str(output))
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {"metrics": metrics, "logs": logs, "encoded images": encoded}
