"""MGCC's four similarities and their fusion: what makes one score of the vectors of an image and of a sentence.

Symbols: I images, T sentences; Z_i patches and Z_t words of one of them; D width; x image, y sentence, p patch, q word.
Tensors over pairs are laid out `(I, [Z_i,] [Z_t,] T)`: with the sentences last, every sum, maximum and softmax over
patches or words runs over a middle axis, which vectorises, and no operand has to be transposed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigurationError
from .configuration_mgcc import MGCCConfig

__all__ = ["InteractionFeatures", "MultiGranularityFusion", "PreparedTexts", "dot_products", "fuse_by_attention"]

_LOWEST = torch.finfo(torch.float32).min


@dataclass(slots=True)
class InteractionFeatures:
    """What one modality contributes to a pair's score.

    Attributes:
        coarse: `(B, D)` global vectors of unit length.
        tokens: `(B, Z, D)` patches or words of unit length, exactly zero where there is none.
        mask: `(B, Z)`, true where a token takes part; `None` if all do.
    """

    coarse: Tensor
    tokens: Tensor
    mask: Tensor | None = None

    def float(self) -> InteractionFeatures:
        """The same in float32."""
        return InteractionFeatures(self.coarse.float(), self.tokens.float(), self.mask)


@dataclass(slots=True)
class PreparedTexts:
    """Sentences as the columns of the matrix products that their similarities come from; `None` where not needed.

    Attributes:
        num_texts: T.
        num_words: Z_t.
        word_mask: `(Z_t, T)`, true where a word takes part; `None` if all do.
        patch_word: `(Z_t·T, D)` words, times M_l, to be multiplied with the patches.
        patch_text: `(T, D)` global vectors, to be multiplied with the patches.
        image_word: `(Z_t·T, D)` words, to be multiplied with the images' global vectors.
        image_text: `(T, D)` global vectors, times M_g, likewise.
    """

    num_texts: int
    num_words: int
    word_mask: Tensor | None
    patch_word: Tensor | None = None
    patch_text: Tensor | None = None
    image_word: Tensor | None = None
    image_text: Tensor | None = None

    def for_onednn(self) -> PreparedTexts:
        """The same with the columns as oneDNN keeps them; see [`dot_products`]."""
        columns = {name: getattr(self, name) for name in ("patch_word", "patch_text", "image_word", "image_text")}
        return replace(self, **{name: value.to_mkldnn() for name, value in columns.items() if value is not None})


def dot_products(rows: Tensor, columns: Tensor) -> Tensor:
    """`rows @ columns.T`: by oneDNN if the columns are in its layout, else by torch's own matrix product.

    Torch's own product comes from MKL, which reaches less than half of oneDNN's speed on processors that are not Intel's.

    Args:
        rows: `(M, D)` float32.
        columns: `(N, D)` float32, dense, or from `Tensor.to_mkldnn` (then without gradients).

    Returns:
        `(M, N)`, dense.
    """
    if columns.is_mkldnn:
        return functional.linear(rows.to_mkldnn(), columns).to_dense()
    return rows @ columns.T


def fuse_by_attention(
    values: Tensor, matrix: Tensor | None, temperature: float, dim: int, mask: Tensor | None = None
) -> Tensor:
    r"""Attention-based fusion AF (Eqs. 5-8, 10, 11, with the release's matrix) along one axis.

    .. math:: AF_U(v) = \sum_j w_j v_j, \quad w = \mathrm{softmax}(v / \tau)\, U

    The sum is computed as Σ_i softmax(v/τ)_i (U v)_i.

    Args:
        values: Similarities v, zero where masked; `dim` must not be the last axis.
        matrix: `(Z, Z)` U; `None` for the identity.
        temperature: τ.
        dim: The axis of Z entries to reduce.
        mask: Broadcastable to `values`, true where an entry takes part. An axis without any such entry gives 0.

    Returns:
        `values` without the axis.
    """
    logits = values / temperature
    if mask is not None:
        # The lowest number instead of -inf: where everything is masked the weights stay finite, and the values are 0.
        logits = logits.masked_fill(~mask, _LOWEST)
    weights = logits.softmax(dim=dim)
    if matrix is not None:
        stacked = values.flatten(dim + 1).flatten(0, dim - 1)
        # One product per slice: a broadcasting one would transpose everything into one big product, and back.
        values = torch.bmm(matrix.to(values.dtype).expand(len(stacked), -1, -1), stacked).view_as(weights)
    return (weights * values).sum(dim=dim)


def _reduce(values: Tensor, kind: str, dim: int, mask: Tensor | None) -> Tensor:
    """Maximum or mean along one axis (Table 6); masked entries do not take part, an axis without any other gives 0."""
    if mask is None:
        return values.amax(dim=dim) if kind == "max" else values.mean(dim=dim)
    if kind == "max":
        highest = values.masked_fill(~mask, _LOWEST).amax(dim=dim)
        return highest.masked_fill(~mask.any(dim=dim), 0)
    return (values * mask).sum(dim=dim) / mask.sum(dim=dim).clamp(min=1)


class MultiGranularityFusion(nn.Module):
    """The four similarities (Eqs. 1-4), their attention-based fusion (Eqs. 5-11) and the score (Eq. 12).

    The matrices are the release's (spec section 5); they start as identities, with which the formulas are the paper's.

    Args:
        config: Says which similarities exist and how many tokens there are.
    """

    def __init__(self, config: MGCCConfig) -> None:
        super().__init__()
        self.config = config
        width, patches, words = config.hidden_size, config.num_image_tokens, config.num_text_tokens
        learnable, local = config.learnable_fusion, config.uses_local_matrix

        def matrix(size: int, *, exists: bool) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(size, size)) if exists else None

        self.global_matrix = matrix(width, exists=learnable and config.use_it)  # M_g
        self.local_matrix = matrix(width, exists=local)  # M_l
        self.image_word_matrix = matrix(words, exists=learnable and config.use_iw)  # U1
        self.patch_text_matrix = matrix(patches, exists=learnable and config.use_pt)  # U2
        self.patch_matrix = matrix(patches, exists=local)  # U3
        self.word_matrix = matrix(words, exists=local)  # U4
        self.second_word_matrix = matrix(words, exists=local)  # U5
        self.second_patch_matrix = matrix(patches, exists=local)  # U6
        self.logit_scale = nn.Parameter(torch.empty(()))

    def _fuse(self, values: Tensor, matrix: Tensor | None, dim: int, mask: Tensor | None) -> Tensor:
        return fuse_by_attention(values, matrix, self.config.softmax_temperature, dim, mask)

    def project_text_vector(self, text: Tensor) -> Tensor:
        """M_g t: `(T, D)` global vectors → `(T, D)` vectors whose dot product with g is the image-text similarity."""
        return text if self.global_matrix is None else text @ self.global_matrix.T.float()

    def prepare_texts(self, texts: InteractionFeatures) -> PreparedTexts:
        """Whatever depends on the sentences alone; M_g and M_l are applied on this side."""
        words = texts.tokens.transpose(0, 1)  # (Z_t, T, D)
        prepared = PreparedTexts(words.shape[1], words.shape[0], None if texts.mask is None else texts.mask.T)
        if self.config.use_pw:
            mapped = words if self.local_matrix is None else words @ self.local_matrix.T.float()
            prepared.patch_word = mapped.flatten(0, 1)
        if self.config.use_pt:
            prepared.patch_text = texts.coarse
        if self.config.use_iw:
            prepared.image_word = words.flatten(0, 1)
        if self.config.use_it:
            prepared.image_text = self.project_text_vector(texts.coarse)
        return prepared

    def forward(self, images: InteractionFeatures, texts: InteractionFeatures | PreparedTexts) -> dict[str, Tensor]:
        """Similarities of every image with every sentence, all at once: several times `I·Z_i·Z_t·T` numbers are held.

        Args:
            images: Features of I images.
            texts: Features of T sentences, or what `prepare_texts` made of them.

        Returns:
            `it`, `pw`, `pt`, `iw` as far as they are enabled, each times s, and their mean `fused`: `(I, T)`.
        """
        texts = texts if isinstance(texts, PreparedTexts) else self.prepare_texts(texts)
        num_images, num_patches, _ = images.tokens.shape
        by_image, by_patch = (num_images, -1, texts.num_texts), (num_images, num_patches, -1, texts.num_texts)
        patches = images.tokens.flatten(0, 1)
        patch_mask = None if images.mask is None else images.mask[:, :, None]  # (I, Z_i, 1)
        word_mask = None if texts.word_mask is None else texts.word_mask[None]  # (1, Z_t, T)
        found: dict[str, Tensor] = {}
        if texts.image_text is not None:
            found["it"] = dot_products(images.coarse, texts.image_text)  # Eq. 2
        if texts.patch_word is not None:
            patch_word = dot_products(patches, texts.patch_word).view(by_patch)  # Eq. 1
            found["pw"] = self._patch_word(patch_word, patch_mask, word_mask)
        if texts.patch_text is not None:
            patch_text = dot_products(patches, texts.patch_text).view(by_image)  # Eq. 3
            found["pt"] = self._fuse(patch_text, self.patch_text_matrix, 1, patch_mask)  # Eq. 10
        if texts.image_word is not None:
            image_word = dot_products(images.coarse, texts.image_word).view(by_image)  # Eq. 4
            found["iw"] = self._fuse(image_word, self.image_word_matrix, 1, word_mask)  # Eq. 11
        scale = self.logit_scale.float().exp()
        similarities = {name: scale * value for name, value in found.items()}
        return similarities | {"fused": torch.stack(list(similarities.values())).mean(dim=0)}  # Eq. 12

    def _patch_word(self, values: Tensor, patch_mask: Tensor | None, word_mask: Tensor | None) -> Tensor:
        """`(I, Z_i, Z_t, T)` similarities of patches and words → `(I, T)` (Eqs. 5-9)."""
        over_patches = None if patch_mask is None else patch_mask[..., None]  # (I, Z_i, 1, 1)
        over_words = None if word_mask is None else word_mask[:, None]  # (1, 1, Z_t, T)
        if self.config.aggregation == "attention":
            image_level = self._fuse(values, self.patch_matrix, 1, over_patches)  # Eq. 5: (I, Z_t, T)
            text_level = self._fuse(values, self.word_matrix, 2, over_words)  # Eq. 6: (I, Z_i, T)
            by_image = self._fuse(image_level, self.second_word_matrix, 1, word_mask)  # Eq. 7
            by_text = self._fuse(text_level, self.second_patch_matrix, 1, patch_mask)  # Eq. 8
        else:
            first, second = self.config.aggregation.split("_")
            image_level = _reduce(values, first, 1, over_patches)
            text_level = _reduce(values, first, 2, over_words)
            by_image = _reduce(image_level, second, 1, word_mask)
            by_text = _reduce(text_level, second, 1, patch_mask)
        return (by_image + by_text) / 2  # Eq. 9

    @torch.no_grad()
    def score(
        self, texts: InteractionFeatures, images: InteractionFeatures, *, block_elements: int | None = None
    ) -> Tensor:
        """The fused score of every sentence with every image, block by block: exact, with bounded memory.

        Besides the result only one block is held: its similarities of patches and words, and two or three tensors of that
        size made of them.

        Args:
            texts: Features of T sentences; any floating-point precision, converted block by block.
            images: Features of I images, likewise.
            block_elements: Size of a block, `images·Z_i·Z_t·texts`; by default one that stays in a processor's cache
                (2^19, two megabytes), or 2^24 on an accelerator.

        Returns:
            `(T, I)` float32.

        Raises:
            ConfigurationError: If `block_elements` is not positive.
        """
        on_cpu = images.tokens.device.type == "cpu"
        if block_elements is None:
            block_elements = 2**19 if on_cpu else 2**24
        if block_elements < 1:
            raise ConfigurationError(f"block_elements is {block_elements}, but must be at least 1.")
        num_texts, num_images = len(texts.tokens), len(images.tokens)
        num_words = max(self._num_compared(texts, self.config.num_text_tokens), 1)
        num_patches = max(self._num_compared(images, self.config.num_image_tokens), 1)
        # About four times as many columns as rows: the columns are prepared once and used for all images.
        text_step = min(max(1, int((4 * block_elements) ** 0.5) // num_words), max(1, num_texts))
        image_step = max(1, block_elements // (text_step * num_words * num_patches))
        scores = torch.empty(num_texts, num_images, device=images.tokens.device)
        uses_onednn = on_cpu and torch.backends.mkldnn.is_available()
        for text_start in range(0, num_texts, text_step):
            rows = slice(text_start, text_start + text_step)
            prepared = self.prepare_texts(self._block(texts, rows, self.config.num_text_tokens))
            if uses_onednn:
                prepared = prepared.for_onednn()
            for image_start in range(0, num_images, image_step):
                columns = slice(image_start, image_start + image_step)
                block = self._block(images, columns, self.config.num_image_tokens)
                scores[rows, columns] = self(block, prepared)["fused"].T
        return scores

    def _num_compared(self, features: InteractionFeatures, count: int) -> int:
        """Tokens that are compared of each item: those that the matrices are for, or as many as there are."""
        return count if self.config.learnable_fusion else features.tokens.shape[1]

    def _block(self, features: InteractionFeatures, rows: slice, count: int) -> InteractionFeatures:
        """Some rows in float32; filled up with masked tokens to the number that the fusion matrices are for."""
        tokens, mask = features.tokens[rows].float(), None if features.mask is None else features.mask[rows]
        if mask is not None:
            tokens = tokens * mask[..., None]
        missing = self._num_compared(features, count) - tokens.shape[1]
        if missing > 0:
            if mask is None:
                mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            tokens, mask = functional.pad(tokens, (0, 0, 0, missing)), functional.pad(mask, (0, missing))
        return InteractionFeatures(features.coarse[rows].float(), tokens, mask)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        kept: dict[str, Any] = {"similarities": self.config.similarities, "aggregation": self.config.aggregation}
        return ", ".join(f"{name}={value}" for name, value in kept.items())
