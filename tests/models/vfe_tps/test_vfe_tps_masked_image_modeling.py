"""Reconstructing masked images: with the sentence, from the image itself, SimMIM and MAE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reid_zoo.errors import ConfigurationError
from reid_zoo.evaluation.reconstruction_distance import average_distance
from reid_zoo.losses.masked_image_modeling import pixel_mask
from reid_zoo.models.vfe_tps.masked_image_modeling import PixelDecoder, VisiblePatchDecoder
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining
from tiny_clip_models import BATCH, build, images, sentences, vfe_tps_config

torch.set_num_threads(1)
PATCH, DIMENSION, ROWS, COLUMNS = 8, 16, 4, 2
GUIDANCE = ("text", "image", "none", "mae")
CLOSE = {"rtol": 0, "atol": 2e-5}  # another order of summation


def model_of(guidance: str, **fields) -> VFETPSForTraining:
    return build(VFETPSForTraining, loss_terms=["matching", "mim"], mim_guidance=guidance, **fields)


def masks() -> Tensor:
    """The same number of masked patches in every image, at different places."""
    order = torch.rand(BATCH, ROWS * COLUMNS, generator=torch.Generator().manual_seed(4)).argsort(dim=1)
    return torch.zeros(BATCH, ROWS * COLUMNS, dtype=torch.long).scatter_(1, order[:, :5], 1).view(BATCH, ROWS, COLUMNS)


@torch.no_grad()
def reconstruct(model: VFETPSForTraining, pixels: Tensor, ids: Tensor, patch_mask: Tensor | None = None) -> Tensor:
    texts = model.vfe_tps.encode_texts(ids)
    mask = model.vfe_tps.text_features(texts, ids).token_mask
    return model.masked_image_modeling(
        model.vfe_tps, pixels, masks() if patch_mask is None else patch_mask, texts, mask
    )


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_what_is_masked_is_not_seen_and_what_is_visible_is(guidance):
    model = model_of(guidance)
    hidden = pixel_mask(masks(), PATCH).bool()
    plain = reconstruct(model, images(), sentences())
    assert plain.shape == images().shape
    other_masked = torch.where(hidden, images().flip(0), images())
    torch.testing.assert_close(reconstruct(model, other_masked, sentences()), plain, **CLOSE)
    other_visible = torch.where(hidden, images(), images().flip(0))
    assert (reconstruct(model, other_visible, sentences()) - plain).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_only_text_guidance_reads_the_sentence(guidance):
    model = model_of(guidance)
    changed = reconstruct(model, images(), sentences().flip(0)) - reconstruct(model, images(), sentences())
    if guidance == "text":
        assert changed.abs().amax(dim=(1, 2, 3)).min() > 1e-4
    else:
        assert not changed.any()


def test_padding_takes_part_unless_it_is_hidden():
    """In the release the tokens behind the end are keys like all others."""
    ids = sentences()
    padded_otherwise = ids.masked_fill(ids == 0, 7)
    for hidden in (False, True):
        model = model_of("text", mask_text_padding=hidden)
        change = (reconstruct(model, images(), padded_otherwise) - reconstruct(model, images(), ids)).abs()
        # the second sentence fills all places, so it has no padding to change
        assert (change.amax(dim=(1, 2, 3))[[0, 2, 3, 4, 5]] > 1e-4).all() != hidden
        if hidden:
            torch.testing.assert_close(change, torch.zeros_like(change), **CLOSE)


def test_a_mask_token_of_zeros_is_the_papers_zero_pixels():
    """The patch convolution has no bias, so that black (normalised) pixels become the embedding zero."""
    token, pixels = model_of("text"), model_of("text", mask_mode="zero_pixels")
    state = token.state_dict()
    state.pop("masked_image_modeling.mask_token")
    pixels.load_state_dict(state)
    with torch.no_grad():
        token.masked_image_modeling.mask_token.zero_()
    expected = reconstruct(pixels, images(), sentences())
    torch.testing.assert_close(reconstruct(token, images(), sentences()), expected, **CLOSE)


@torch.no_grad()
def test_pixel_decoder_puts_channels_where_they_belong():
    """Channel c·p² + dy·p + dx of the patch at (y, x) is colour c of the pixel (y·p + dy, x·p + dx)."""
    config = vfe_tps_config(projection_dim=3 * PATCH**2, cross_modal_num_attention_heads=1)
    decoder = PixelDecoder(config)
    nn.init.eye_(decoder.projection.weight[:, :, 0, 0])
    nn.init.zeros_(decoder.projection.bias)
    patches = torch.randn(2, ROWS * COLUMNS, 3 * PATCH**2, generator=torch.Generator().manual_seed(0))
    drawn = decoder(patches)
    assert drawn.shape == (2, 3, ROWS * PATCH, COLUMNS * PATCH)
    for index in range(ROWS * COLUMNS):
        top, left = index // COLUMNS * PATCH, index % COLUMNS * PATCH
        square = drawn[:, :, top : top + PATCH, left : left + PATCH]
        assert torch.equal(square.flatten(1), patches[:, index])


@torch.no_grad()
def test_visible_patches_come_back_to_their_places():
    decoder = VisiblePatchDecoder(vfe_tps_config(cross_modal_num_layers=0)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in (decoder.mask_embedding, decoder.position_embedding):
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    visible = torch.randn(2, 4, DIMENSION, generator=generator)
    places = torch.tensor([[0, 3, 7], [6, 1, 2]])
    tokens = decoder(visible, places)
    for row in range(2):
        for index in range(ROWS * COLUMNS):
            found = (places[row] == index).nonzero().flatten()
            content = visible[row, 1 + found[0]] if len(found) else decoder.mask_embedding
            expected = decoder.layer_norm(content + decoder.position_embedding[1 + index])
            torch.testing.assert_close(tokens[row, 1 + index], expected)
        torch.testing.assert_close(tokens[row, 0], decoder.layer_norm(visible[row, 0] + decoder.position_embedding[0]))


def test_mae_needs_as_many_masked_patches_in_every_image():
    uneven = masks()
    uneven[0] = 1
    uneven[0, 0, 0] = 0
    with pytest.raises(ConfigurationError, match="same number of masked patches"):
        reconstruct(model_of("mae"), images(), sentences(), uneven)


@pytest.mark.parametrize("guidance", ["text", "none", "mae"])
def test_average_distance_of_a_reconstruction(guidance):
    """What Fig. 6b plots, of an image as the model reconstructs it."""
    drawn = reconstruct(model_of(guidance), images(), sentences())
    found = average_distance(masks()[0], PATCH, image=images()[0], prediction=drawn[0])
    perfect = average_distance(masks()[0], PATCH, image=images()[0], prediction=images()[0])
    assert found > 0
    assert found != perfect
