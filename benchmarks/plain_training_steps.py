"""The losses of the zoo's methods as their released codes compute them: for comparison with the zoo's own `forward`.

Every function takes the zoo's training model, **only** for its parameters and configuration, and a batch; it returns the
loss. What is plain about it: attention is three matrix products with the sequence first, and every layer returns its map of
probabilities, averaged over the heads; tokens are selected and correspondences found sample by sample in Python loops;
whatever a release encodes twice is encoded twice; similarities of all pairs are whole tensors; every product is computed
for all positions, whether it is read or not. Written for the configurations that `training_step.py` runs, no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional

from reid_zoo.models.clip_reid.modeling_clip_reid import CLIPReIDForTraining
from reid_zoo.models.encoders.attention import MultiHeadAttention
from reid_zoo.models.encoders.clip_resnet import CLIPResNet
from reid_zoo.models.encoders.clip_text_transformer import CLIPTextTransformer
from reid_zoo.models.encoders.cross_modal_encoder import CrossModalEncoder
from reid_zoo.models.encoders.vision_transformer import VisionTransformer

__all__ = ["PLAIN_LOSSES"]

Batch = dict[str, Tensor]


# Attention and towers


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None, dropout: float) -> Any:
    """`(L, B, D)` → values `(Lq, B, D)` and probabilities per head `(B, H, Lq, Lk)`."""
    length, batch, width = query.shape

    def split(states: Tensor) -> Tensor:
        return states.contiguous().view(-1, batch * heads, width // heads).transpose(0, 1)

    scores = torch.bmm(split(query * (width // heads) ** -0.5), split(key).transpose(1, 2))
    if mask is not None:
        scores = (scores.view(batch, heads, length, -1) + mask).flatten(0, 1)
    probabilities = functional.dropout(functional.softmax(scores, dim=-1), dropout)
    values = torch.bmm(probabilities, split(value))
    return values.transpose(0, 1).contiguous().view(length, batch, width), probabilities.view(batch, heads, length, -1)


def multi_head_attention(
    module: MultiHeadAttention, states: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`(L, B, D)` → `(L, B, D)` and the map `(B, Lq, Lk)`, averaged over the heads."""
    if memory is None:
        query, key, value = functional.linear(states, module.in_proj.weight, module.in_proj.bias).chunk(3, dim=-1)
    else:
        parts = zip((states, memory, memory), module.in_proj.weight.chunk(3), module.in_proj.bias.chunk(3), strict=True)
        query, key, value = (functional.linear(part, weight, bias) for part, weight, bias in parts)
    values, probabilities = attend(query, key, value, module.num_heads, mask, module.dropout if module.training else 0)
    return functional.linear(values, module.out_proj.weight, module.out_proj.bias), probabilities.mean(dim=1)


def quick_gelu(states: Tensor) -> Tensor:
    return states * torch.sigmoid(1.702 * states)


def mlp(module: Any, states: Tensor) -> Tensor:
    hidden = functional.linear(states, module.fc1.weight, module.fc1.bias)
    return functional.linear(module.dropout(quick_gelu(hidden)), module.fc2.weight, module.fc2.bias)


def transformer_blocks(blocks: Any, states: Tensor, mask: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Pre-norm blocks: the states after each of them `(L, B, D)`, and their maps."""
    all_states, maps = [], []
    for block in blocks:
        attended, probabilities = multi_head_attention(block.self_attn, block.layer_norm1(states), mask=mask)
        states = states + attended
        states = states + mlp(block.mlp, block.layer_norm2(states))
        all_states.append(states)
        maps.append(probabilities)
    return all_states, maps


def encode_image(
    tower: VisionTransformer,
    pixels: Tensor,
    patch_mask: Tensor | None = None,
    mask_token: Tensor | None = None,
    class_addition: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """States `(B, L, D)` after every block, before the last layer norm, and maps `(B, L, L)`."""
    embeddings = tower.embeddings
    patches = embeddings.patch_embedding(pixels)
    patches = patches.reshape(patches.shape[0], patches.shape[1], -1).permute(0, 2, 1)
    if patch_mask is not None:
        weights = patch_mask.flatten(1).unsqueeze(-1).type_as(patches)
        patches = patches * (1 - weights) + mask_token.expand_as(patches) * weights
    class_token = embeddings.class_embedding + patches.new_zeros(patches.shape[0], 1, patches.shape[-1])
    if class_addition is not None:
        class_token = class_token + class_addition[:, None]
    states = torch.cat([class_token, patches], dim=1) + embeddings.position_embedding
    states = tower.pre_layernorm(states).permute(1, 0, 2)
    all_states, maps = transformer_blocks(tower.layers, states)
    return [states.permute(1, 0, 2) for states in all_states], maps


def encode_text(tower: CLIPTextTransformer, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Tokens `(B, L, D)` behind the last layer norm, and maps `(B, L, L)`."""
    states = tower.token_embedding(ids) + tower.position_embedding[: ids.shape[1]]
    mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf"), device=ids.device).triu(1)
    all_states, maps = transformer_blocks(tower.layers, states.permute(1, 0, 2), mask)
    return tower.final_layernorm(all_states[-1].permute(1, 0, 2)), maps


def encode_bert(bert: Any, ids: Tensor, attention_mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """States and per-head maps of every block."""
    states = bert.embeddings(input_ids=ids)
    mask = (1 - attention_mask[:, None, None].float()) * torch.finfo(torch.float32).min
    all_states, maps = [], []
    for layer in bert.encoder.layer:
        attention = layer.attention.self

        def split(projected: Tensor, heads: int = attention.num_attention_heads) -> Tensor:
            return projected.view(*projected.shape[:2], heads, -1).permute(0, 2, 1, 3)

        query, key, value = (split(part(states)) for part in (attention.query, attention.key, attention.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / query.shape[-1] ** 0.5 + mask
        probabilities = attention.dropout(functional.softmax(scores, dim=-1))
        values = torch.matmul(probabilities, value).permute(0, 2, 1, 3).contiguous().flatten(2)
        states = layer.attention.output(values, states)
        states = layer.output(functional.gelu(layer.intermediate.dense(states)), states)
        all_states.append(states)
        maps.append(probabilities)
    return all_states, maps


def cross_modal(module: CrossModalEncoder, queries: Tensor, memory: Tensor) -> Tensor:
    """`(B, Lq, D)` → `(B, Lq, D)`."""
    queries, memory = (
        states.permute(1, 0, 2) for states in (module.query_layer_norm(queries), module.memory_layer_norm(memory))
    )
    states, _ = multi_head_attention(module.cross_attn, queries, memory)
    all_states, _ = transformer_blocks(module.layers, states)
    return module.post_layernorm(all_states[-1].permute(1, 0, 2))


# Losses


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def divergence(logits: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    prediction = functional.softmax(logits, dim=1)
    return (prediction * (functional.log_softmax(logits, dim=1) - torch.log(targets + epsilon))).sum(dim=1).mean()


def sdm(image: Tensor, text: Tensor, labels: Tensor, temperature: float, epsilon: float) -> Tensor:
    targets = (labels.reshape(-1, 1) == labels.reshape(1, -1)).float()
    targets = targets / targets.sum(dim=1, keepdim=True)
    text_to_image = unit(text) @ unit(image).t() / temperature
    image_to_text = unit(image) @ unit(text).t() / temperature
    return divergence(image_to_text, targets, epsilon) + divergence(text_to_image, targets, epsilon)


def identity_classification(classifier: nn.Linear, image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    image_logits, text_logits = classifier(image), classifier(text)
    for logits in (image_logits, text_logits):  # logged
        (logits.argmax(dim=1) == labels).float().mean()
    return (functional.cross_entropy(image_logits, labels) + functional.cross_entropy(text_logits, labels)) / 2


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    targets = torch.zeros_like(logits).scatter_(1, labels[:, None], 1)
    targets = (1 - smoothing) * targets + smoothing / logits.shape[1]
    return (-targets * functional.log_softmax(logits, dim=1)).mean(dim=0).sum()


# CFine


def select_tokens(tokens: Tensor, scores: Tensor, count: int) -> Tensor:
    """The tokens with the highest scores, found sample by sample."""
    selected = []
    for sample in range(len(tokens)):
        order = scores[sample].argsort(descending=True, stable=True)
        selected.append(tokens[sample][order[:count]])
    return torch.stack(selected)


def decode_group(decoder: Any, group: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    states, memory = torch.cat([memory[:, :1], group], dim=1).permute(1, 0, 2), memory.permute(1, 0, 2)
    for index in range(decoder.num_layers):
        layer = decoder.layers[index % len(decoder.layers)]
        states = states + multi_head_attention(layer.self_attn, layer.self_attn_layer_norm(states))[0]
        states = states + multi_head_attention(layer.cross_attn, layer.cross_attn_layer_norm(states), memory, mask)[0]
        states = states + mlp(layer.mlp, layer.mlp_layer_norm(states))
    return states[0]


def cmpm(image: Tensor, text: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    targets = (labels.reshape(-1, 1) == labels.reshape(1, -1)).float()
    targets = targets / targets.norm(dim=1, keepdim=True)
    return divergence(image @ unit(text).t(), targets, epsilon) + divergence(text @ unit(image).t(), targets, epsilon)


def cmpc(weight: Tensor, image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    classes = weight / weight.norm(dim=0)
    losses = []
    for projected, onto in ((image, unit(text)), (text, unit(image))):
        projection = torch.sum(projected * onto, dim=1, keepdim=True) * onto
        losses.append(functional.cross_entropy(projection @ classes, labels))
    return losses[0] + losses[1]


def diversity(parts: Tensor) -> Tensor:
    directions = unit(parts)
    gram = torch.bmm(directions, directions.transpose(1, 2))
    gram = gram - gram * torch.eye(parts.shape[1], device=parts.device)
    return gram.flatten(1).norm(dim=1).mean() / parts.shape[1] ** 2


def weighted_by_softmax(similarities: Tensor) -> Tensor:
    return (functional.softmax(similarities, dim=-1) * similarities).sum(dim=-1)


def cross_grained(config: Any, image_class: Tensor, text_class: Tensor, patches: Tensor, words: Tensor) -> Tensor:
    image_class, text_class, patches, words = (unit(states) for states in (image_class, text_class, patches, words))
    image_word = torch.einsum("ad,bjd->abj", image_class, words) / config.cfr_temperature
    patch_sentence = torch.einsum("aid,bd->abi", patches, text_class) / config.cfr_temperature
    return (weighted_by_softmax(image_word) + weighted_by_softmax(patch_sentence)) / 2


def correspondences(config: Any, patches: Tensor, words: Tensor) -> Tensor:
    positive_words, positive_patches = [], []
    for patch_set, word_set in zip(patches, words, strict=True):
        relation = functional.softmax(unit(patch_set) @ unit(word_set).t(), dim=1)
        chosen = relation.topk(config.num_positive_words, dim=1).indices
        positive_words.append(word_set[chosen].mean(dim=1))
        chosen = relation.topk(config.num_positive_patches, dim=0).indices
        positive_patches.append(patch_set[chosen].mean(dim=0))
    found = []
    for left, right in (
        (unit(patches), unit(torch.stack(positive_words))),
        (unit(torch.stack(positive_patches)), unit(words)),
    ):
        everything = torch.einsum("aid,bjd->abij", left, right)  # of which only the diagonal is used
        found.append(torch.diagonal(everything, dim1=2, dim2=3).mean(dim=-1) / config.fcd_temperature)
    return (found[0] + found[1]) / 2


def triplet_ranking(similarity: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Anchor by anchor; only hardest negatives that beat the positive count, or else one placeholder."""
    total = similarity.new_zeros(())
    for scores in (similarity, similarity.t()):
        triplets, values = [], scores.detach().cpu()
        for anchor in range(len(labels)):
            others = (labels != labels[anchor]).nonzero().flatten().cpu()
            if not len(others):
                continue
            hardest = others[values[anchor, others].argmax()]
            if values[anchor, hardest] > values[anchor, anchor]:
                triplets.append((anchor, int(hardest)))
        if not triplets:
            triplets = [(anchor, int(others[0]))]
        for anchor, negative in triplets:
            total = total + functional.relu(margin - scores[anchor, anchor] + scores[anchor, negative])
    return total


def cfine_loss(model: Any, batch: Batch) -> Tensor:
    """CFine with its released settings (Eq. 14)."""
    config, inner = model.config, model.cfine
    states, image_maps = encode_image(inner.vision_model, batch["pixel_values"])
    image_tokens = inner.vision_model.post_layernorm(states[-1])
    attention_mask = batch["attention_mask"]
    text_states, text_maps = encode_bert(inner.text_model, batch["input_ids"], attention_mask)
    text_tokens = text_states[-1]
    labels = batch["person_labels"]
    additive = (1 - attention_mask[:, None, None].float()) * torch.finfo(torch.float32).min
    sides, selections = [], []
    for tokens, scores, size, bottleneck, mask in (
        (image_tokens, image_maps[-1][:, 0], config.num_image_tokens_per_group, inner.image_bottleneck, None),
        (
            text_tokens,
            text_maps[-1].mean(dim=1)[:, 0],
            config.num_text_tokens_per_group,
            inner.text_bottleneck,
            additive,
        ),
    ):
        scores = torch.cat([torch.zeros_like(scores[:, :1]), scores[:, 1:]], dim=1)
        selected = select_tokens(tokens, scores, 2 * size)
        vectors = [tokens[:, 0]]
        vectors += [
            decode_group(inner.global_local_decoder, selected[:, start : start + size], tokens, mask)
            for start in (0, size)
        ]
        sides.append([bottleneck(vector) for vector in vectors])
        selections.append(selected)
    total = labels.new_zeros((), dtype=torch.float32)
    for index, (image, text) in enumerate(zip(*sides, strict=True)):
        total = total + config.cmpm_granularity_weights[index] * cmpm(image, text, labels, config.cmpm_epsilon)
        total = total + config.cmpc_granularity_weights[index] * cmpc(model.cmpc_loss.weight, image, text, labels)
    for side in sides:
        total = total + config.diversity_weight * diversity(torch.stack(side[1:], dim=1))
    patches, words = selections
    similarity = cross_grained(config, image_tokens[:, 0], text_tokens[:, 0], patches, words)
    similarity = similarity + correspondences(
        config, patches[:, : config.num_image_tokens_per_group], words[:, : config.num_text_tokens_per_group]
    )
    return total + config.triplet_weight * triplet_ranking(similarity, labels, config.triplet_margin)


# Methods on CLIP's two towers


def joint_image_tokens(towers: Any, pixels: Tensor, *masking: Tensor) -> Tensor:
    states, _ = encode_image(towers.vision_model, pixels, *masking)
    return towers.vision_model.post_layernorm(states[-1]) @ towers.visual_projection.weight.t()


def joint_text_tokens(towers: Any, ids: Tensor) -> Tensor:
    return encode_text(towers.text_model, ids)[0] @ towers.text_projection.weight.t()


def at_end_of_text(tokens: Tensor, ids: Tensor) -> Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), ids.argmax(dim=-1)].float()


def dual_encoder_loss(model: Any, batch: Batch) -> Tensor:
    """The dual encoder on CLIP's towers with similarity distribution matching."""
    image = joint_image_tokens(model.dual_encoder, batch["pixel_values"])[:, 0].float()
    text = at_end_of_text(joint_text_tokens(model.dual_encoder, batch["input_ids"]), batch["input_ids"])
    return sdm(image, text, batch["person_labels"], model.config.temperature, model.config.label_epsilon)


def irra_loss(model: Any, batch: Batch) -> Tensor:
    """IRRA: the sentences are encoded twice, and every position of the masked ones gets a score for every word."""
    config, labels, word_labels = model.config, batch["person_labels"], batch["masked_labels"]
    image_tokens = joint_image_tokens(model.irra, batch["pixel_values"])
    image = image_tokens[:, 0].float()
    text = at_end_of_text(joint_text_tokens(model.irra, batch["input_ids"]), batch["input_ids"])
    total = sdm(image, text, labels, config.temperature, config.label_epsilon)
    total = total + config.id_loss_weight * identity_classification(model.identity_loss.classifier, image, text, labels)
    masked_tokens = joint_text_tokens(model.irra, batch["masked_input_ids"])
    reasoning = model.implicit_relation_reasoning
    states = cross_modal(reasoning.encoder, masked_tokens, image_tokens)
    head = reasoning.head
    states = head.layer_norm(quick_gelu(functional.linear(states, head.dense.weight, head.dense.bias)))
    scores = (
        functional.linear(states, head.output.weight, head.output.bias).float().reshape(-1, head.output.out_features)
    )
    loss = functional.cross_entropy(scores, word_labels.reshape(-1), ignore_index=0)
    masked = word_labels.reshape(-1).nonzero()
    (scores.max(dim=1)[1][masked] == word_labels.reshape(-1)[masked]).float().mean()  # logged
    return total + config.mlm_loss_weight * loss


def vfe_tps_loss(model: Any, batch: Batch) -> Tensor:
    """VFE-TPS as in the paper: a second pass of the image tower for the masked images."""
    config, labels, pixels, patch_mask = (
        model.config,
        batch["person_labels"],
        batch["pixel_values"],
        batch["patch_mask"],
    )
    image = joint_image_tokens(model.vfe_tps, pixels)[:, 0].float()
    text_tokens = joint_text_tokens(model.vfe_tps, batch["input_ids"])
    text = at_end_of_text(text_tokens, batch["input_ids"])
    total = sdm(image, text, labels, config.temperature, config.label_epsilon)
    # Calibration with a sample of the batch.
    some, some_labels = image[batch["gvfc_indices"]], labels[batch["gvfc_indices"]]
    targets = (some_labels.reshape(-1, 1) == some_labels.reshape(1, -1)).float()
    logits = unit(some) @ unit(some).t() / config.temperature
    total = total + divergence(logits, targets / targets.sum(dim=1, keepdim=True), config.label_epsilon)
    # Masked image modelling with the help of the text.
    branch = model.masked_image_modeling
    masked = joint_image_tokens(model.vfe_tps, pixels, patch_mask, branch.mask_token)
    fused = cross_modal(branch.encoder, masked, text_tokens)[:, 1:]
    grid = fused.permute(0, 2, 1).reshape(len(fused), -1, *branch.decoder.grid_size)
    reconstruction = branch.decoder.shuffle(branch.decoder.projection(grid)).float()
    patch_size = config.vision_config.patch_size
    weights = patch_mask.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2).unsqueeze(1).contiguous()
    errors = functional.l1_loss(pixels, reconstruction, reduction="none")
    return total + config.mim_loss_weight * (errors * weights).sum() / (weights.sum() + 1e-5) / pixels.shape[1]


# MGCC


def fused(values: Tensor, matrix: Tensor, temperature: float, dim: int) -> Tensor:
    values = values.movedim(dim, -1)
    return (functional.softmax(values / temperature, dim=-1) @ matrix * values).sum(dim=-1)


def mgcc_loss(model: Any, batch: Batch) -> Tensor:
    """MGCC with its released settings (Eqs. 1-15)."""
    config, inner, fusion, ids = model.config, model.mgcc, model.mgcc.fusion, batch["input_ids"]
    states, maps = encode_image(inner.vision_model, batch["pixel_values"])
    images = functional.normalize(inner.vision_model.post_layernorm(states[-1][:, 0]), dim=1)
    patches = []
    for sample, scores in zip(states[-1], maps[-1][:, 0], strict=True):
        order = scores[1:].argsort(descending=True, stable=True)[: config.num_image_tokens]
        patches.append(sample[1:][order])
    patches = functional.normalize(torch.stack(patches), dim=2)
    tokens, maps = encode_text(inner.text_model, ids)
    projected = inner.text_projection.layer_norm(tokens) @ inner.text_projection.linear.weight.t()
    ends = ids.argmax(dim=-1)
    texts = functional.normalize(projected[torch.arange(len(ids), device=ids.device), ends].float(), dim=1)
    words = []
    for sample, sample_maps, end in zip(projected, maps[-1], ends.tolist(), strict=True):
        order = sample_maps[end, 1:end].argsort(descending=True, stable=True)[: config.num_text_tokens]
        chosen = sample[2:][order]  # one position late, as released
        words.append(functional.pad(chosen, (0, 0, 0, config.num_text_tokens - len(chosen))))
    words = functional.normalize(torch.stack(words), dim=2)
    images, patches, words = images.float(), patches.float(), words.float()

    tau = config.softmax_temperature
    image_text = images @ fusion.global_matrix @ texts.t()
    patch_word = torch.einsum("xpd,yqd->xpyq", patches @ fusion.local_matrix, words)
    image_level = fused(patch_word, fusion.patch_matrix, tau, 1)  # x y q
    text_level = fused(patch_word, fusion.word_matrix, tau, 3)  # x p y
    by_image = fused(image_level, fusion.second_word_matrix, tau, 2)
    by_text = fused(text_level, fusion.second_patch_matrix, tau, 1)
    patch_text = fused(torch.einsum("xpd,yd->xyp", patches, texts), fusion.patch_text_matrix, tau, 2)
    image_word = fused(torch.einsum("yqd,xd->xyq", words, images), fusion.image_word_matrix, tau, 2)
    similarity = fusion.logit_scale.exp() * (image_text + (by_image + by_text) / 2 + patch_text + image_word) / 4
    own = torch.arange(len(ids), device=ids.device)
    return (functional.cross_entropy(similarity, own) + functional.cross_entropy(similarity.t(), own)) / 2


# CLIP-ReID


def attention_pooling(module: Any, feature_map: Tensor) -> Tensor:
    """Every cell is a query, though only the mean's answer is read."""
    cells = feature_map.flatten(2).permute(2, 0, 1)
    cells = torch.cat([cells.mean(dim=0, keepdim=True), cells]) + module.position_embedding[:, None]
    query, key, value = (
        functional.linear(cells, part.weight, part.bias) for part in (module.q_proj, module.k_proj, module.v_proj)
    )
    values, _ = attend(query, key, value, module.num_heads, None, 0.0)
    return functional.linear(values, module.c_proj.weight, module.c_proj.bias)[0]


def hard_triplets(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    count = len(labels)
    squares = features.pow(2).sum(dim=1, keepdim=True).expand(count, count)
    distances = (squares + squares.t() - 2 * features @ features.t()).clamp(min=1e-12).sqrt()
    same = labels.expand(count, count).eq(labels.expand(count, count).t())
    # The samplers give every identity equally many images.
    positive = distances[same].contiguous().view(count, -1).max(dim=1).values
    negative = distances[~same].contiguous().view(count, -1).min(dim=1).values
    return functional.margin_ranking_loss(negative, positive, torch.ones_like(positive), margin=margin)


def clip_reid_loss(model: CLIPReIDForTraining, batch: Batch) -> Tensor:
    """Stage two of CLIP-ReID; the text features of all identities are constants, as in the release."""
    config, inner, labels = model.config, model.clip_reid, batch["person_labels"]
    if isinstance(inner.vision_model, CLIPResNet):
        trunk = inner.vision_model.trunk
        states = ModifiedResNet.stem(trunk, batch["pixel_values"])
        for block in [*trunk.layer1, *trunk.layer2, *trunk.layer3]:
            states = Bottleneck.forward(block, states)
        penultimate = last = states
        for block in trunk.layer4:
            last = Bottleneck.forward(block, last)
        features = [functional.adaptive_avg_pool2d(maps, 1).flatten(1) for maps in (penultimate, last)]
        features.append(attention_pooling(inner.vision_model.attention_pooling, last))
    else:
        addition = None
        if inner.side_information is not None:
            addition = config.sie_coef * inner.side_information[batch["camera_ids"]]
        states, _ = encode_image(inner.vision_model, batch["pixel_values"], class_addition=addition)
        tokens = inner.vision_model.post_layernorm(states[-1])
        projected = tokens @ inner.visual_projection.weight.t()
        features = [states[-2][:, 0], tokens[:, 0], projected[:, 0]]
    if model.class_text_features is None:
        model.compute_class_text_features()
    scores = [
        model.classifier(inner.bottleneck(features[1])),
        model.classifier_proj(inner.bottleneck_proj(features[2])),
    ]
    features = [feature.float() for feature in features]
    total = config.id_loss_weight * sum(
        smoothed_cross_entropy(score.float(), labels, config.label_smoothing) for score in scores
    )
    total = total + sum(hard_triplets(feature, labels, config.triplet_margin) for feature in features)
    logits = features[-1] @ model.class_text_features.t()
    (logits.max(dim=1)[1] == labels).float().mean()  # logged
    return total + config.i2t_loss_weight * smoothed_cross_entropy(logits, labels, config.label_smoothing)


PLAIN_LOSSES: dict[str, Callable[[Any, Batch], Tensor]] = {
    "cfine": cfine_loss,
    "clip_reid": clip_reid_loss,
    "dual_encoder": dual_encoder_loss,
    "irra": irra_loss,
    "mgcc": mgcc_loss,
    "vfe_tps": vfe_tps_loss,
}
"""Model type → its loss of a batch, with the arguments of the zoo's `forward`."""
