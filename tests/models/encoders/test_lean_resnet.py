"""A modified ResNet that keeps less for the backward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reid_zoo.models.encoders.lean_resnet import LeanBottleneck, LeanResNet
from reid_zoo.models.onednn_linear import OneDNNPointwise, use_onednn

torch.set_num_threads(1)
EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64: another order of summation
CHANNELS, HEIGHT, WIDTH = 32, 8, 6


def block(inputs: int = CHANNELS, stride: int = 1, dtype: torch.dtype = torch.float64) -> LeanBottleneck:
    torch.manual_seed(0)
    result = LeanBottleneck(inputs, CHANNELS // 4, stride)
    for module in result.modules():
        if isinstance(module, nn.BatchNorm2d):  # not the identity
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return result.to(dtype).train()


def states(channels: int = CHANNELS, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_()


def plain(module: nn.Module) -> nn.Module:
    """The same weights in open_clip's own block."""
    result = copy.deepcopy(module)
    result.__class__ = Bottleneck
    return result


def gradients(result: Tensor, *wanted: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    return list(torch.autograd.grad((result * weights).sum(), wanted))


def kept_values(module: nn.Module, given: Tensor) -> int:
    """Values of all maps that are kept, each storage once, without weights and what was given."""
    kept: dict[int, int] = {}
    known = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers(), given)}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel() if tensor.ndim == 4 else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(given)
    assert result.requires_grad
    return sum(count for pointer, count in kept.items() if pointer not in known)


@pytest.mark.parametrize(("inputs", "stride"), [(CHANNELS, 1), (16, 1), (CHANNELS, 2)])
def test_values_gradients_and_statistics_are_those_of_open_clip(inputs, stride):
    lean, given = block(inputs, stride), states(inputs)
    reference = plain(lean)
    results = lean(given), reference(given)
    assert "_Chain" in str(results[0].grad_fn.next_functions[0][0].next_functions), "the lean path was not taken"
    torch.testing.assert_close(*results, **EXACT)
    pairs = zip(
        gradients(results[0], given, *lean.parameters()),
        gradients(results[1], given, *reference.parameters()),
        strict=True,
    )
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, **EXACT)
    lean(2 * given)  # the module once more: the running statistics move once for each
    reference(2 * given)
    for found, expected in zip(lean.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert lean.bn1.num_batches_tracked == 2


def test_the_stem_is_that_of_open_clip():
    torch.manual_seed(0)
    lean = LeanResNet(layers=[1, 1, 1, 1], output_dim=1, heads=1, image_size=32, width=8).double().train()
    reference, images = copy.deepcopy(lean), torch.randn(3, 3, 32, 16, dtype=torch.float64)
    results = lean.stem(images), ModifiedResNet.stem(reference, images)
    torch.testing.assert_close(*results, **EXACT)
    wanted = [[p for name, p in model.named_parameters() if name.count(".") == 1] for model in (lean, reference)]
    wanted = [parameters[:9] for parameters in wanted]  # three convolutions with batch norms
    pairs = zip(*(gradients(result, *some) for result, some in zip(results, wanted, strict=True)), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, **EXACT)


def test_single_precision_and_onednn_are_close():
    exact = block()
    lean, given = copy.deepcopy(exact).float(), states(dtype=torch.float32)
    use_onednn(lean)
    assert type(lean.conv1) is type(lean.conv3) is OneDNNPointwise
    assert type(lean.conv2) is nn.Conv2d
    expected = gradients(exact(given.double()), given, *exact.parameters())
    found = gradients(lean(given), given, *lean.parameters())
    for one, other in zip(found, expected, strict=True):
        # Relative to the largest entry: a single one may be the small difference of large ones.
        assert (one - other).abs().max() < 1e-5 * other.abs().max()


def test_less_than_half_is_kept():
    lean, given = block(), states()
    assert kept_values(lean, given) < 0.5 * kept_values(plain(lean), given)
    narrow, wide = CHANNELS // 4 * 4 * HEIGHT * WIDTH, CHANNELS * 4 * HEIGHT * WIDTH
    assert kept_values(lean, given) == narrow + wide  # of the 3×3 convolution, and the result
    wider = block(inputs=16)
    assert kept_values(wider, states(16)) < 0.5 * kept_values(plain(wider), states(16))


def test_mixed_precision_is_as_exact_as_that_of_open_clip():
    lean, given = block(dtype=torch.float32), states(dtype=torch.float32)
    reference = plain(lean)
    with torch.autocast("cpu", torch.bfloat16):
        results = lean(given), reference(given)
    assert results[0].dtype == results[1].dtype
    exact = gradients(lean(given), given, *lean.parameters())
    found = gradients(results[0].float(), given, *lean.parameters())
    others = gradients(results[1].float(), given, *reference.parameters())
    for one, other, expected in zip(found, others, exact, strict=True):
        assert one.dtype == torch.float32
        # Both are off by some hundredths; lean ones may be a little unluckier.
        assert (one - expected).norm() < 1.3 * (other - expected).norm() + 0.01 * expected.norm()


def test_evaluation_frozen_norms_and_no_gradients_are_as_before():
    lean, given = block(), states()
    lean(given)
    with torch.no_grad():
        torch.testing.assert_close(lean(given), plain(lean)(given), **EXACT)
    lean.bn2.eval()
    before = lean.bn2.running_mean.clone()
    reference = plain(lean)
    for found, expected in zip(gradients(lean(given), given), gradients(reference(given), given), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert torch.equal(lean.bn2.running_mean, before)
    lean.eval()
    torch.testing.assert_close(lean(given), plain(lean)(given), rtol=0, atol=0)
    exported = torch.export.export(lean, (given.detach(),)).module()
    torch.testing.assert_close(exported(given.detach()), lean(given), **EXACT)


@pytest.mark.parametrize("frozen", ["conv1", "bn1", "conv2", "conv3", "bn3"])
def test_frozen_parts_get_no_gradient_and_the_others_theirs(frozen):
    lean, given = block(), states().detach()
    getattr(lean, frozen).requires_grad_(False)
    reference = plain(lean)
    for module in (lean, reference):
        module(given).square().sum().backward()
    for (name, found), expected in zip(lean.named_parameters(), reference.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None) == name.startswith(frozen)
        if found.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, **EXACT)


def test_nothing_is_computed_below_what_is_trained():
    lean, given = block(), states().detach()
    lean.requires_grad_(False)
    lean.conv3.requires_grad_(True)
    lean(given).sum().backward()
    assert [name for name, p in lean.named_parameters() if p.grad is not None] == ["conv3.weight"]


def test_gradients_are_the_same_with_checkpointing():
    lean, given = block(), states()
    expected = gradients(lean(given), given, *lean.parameters())
    found = gradients(checkpoint(lean, given, use_reentrant=False), given, *lean.parameters())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_hooks_and_replaced_layers_are_called():
    class Doubling(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    given = states()
    hooked = block()
    hooked.bn3.register_forward_hook(lambda module, inputs, output: 0 * output)
    torch.testing.assert_close(hooked(given), given.relu(), rtol=0, atol=0)
    replaced, reference = block(), plain(block())
    replaced.bn3 = reference.bn3 = nn.Conv2d(CHANNELS, CHANNELS, 1).double()
    replaced.bn2 = reference.bn2 = nn.BatchNorm2d(CHANNELS // 4, affine=False).double()
    replaced.conv1 = reference.conv1 = nn.Conv2d(CHANNELS, CHANNELS // 4, 1, bias=True, groups=2).double()
    replaced.conv3.__class__ = Doubling
    reference.conv3.weight.data.mul_(2)
    torch.testing.assert_close(replaced(given), reference(given), **EXACT)


def test_a_single_value_has_no_statistics():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        block()(states()[:1, :, :1, :1])
