"""Squeezes, masks, the linear layer at every pixel, and image networks as conditioners, against torch and by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from density.images.shape import ImageShape
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    ImageConditioner,
    LULinear,
    OnFeatures,
    PixelWise,
    ResidualBlock,
    channel_halves,
    checkerboard,
    convolutional_network,
    image_coupling,
    residual_network,
    squeeze,
)
from tests.cases.transforms import matrix, vector
from tests.laws.transforms import randomise

EXACT = 1e-12  # two orders of sums of some tens of products


def images(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_squeeze_is_torchs(generator: Generator) -> None:
    x = images(generator, 3, 2, 4, 6)
    z, log_det = squeeze((2, 4, 6))(x.flatten(1))
    assert z.equal(F.pixel_unshuffle(x, 2).flatten(1))
    assert not log_det.any()


@pytest.mark.parametrize(
    ("shape", "squeezed"),
    [((1, 28, 28), (4, 14, 14)), ((2, 7, 4), (4, 7, 2)), ((3, 1, 8), (6, 1, 4)), ((2, 5, 5), (2, 5, 5))],
)
def test_squeeze_halves_even_sides(shape: tuple[int, int, int], squeezed: tuple[int, int, int]) -> None:
    assert ImageShape(*shape).squeezed == squeezed
    x = torch.arange(float(ImageShape(*shape).features))
    z = squeeze(shape)(x)[0].reshape(squeezed)
    # The first pixel of the first block comes first; where the width shrank, its right neighbour in the next channel.
    assert z[0, 0, 0] == 0
    if squeezed[2] < shape[2]:
        assert z[1, 0, 0] == 1
        assert z[0, 0, 1] == 2


def test_the_linear_layer_at_every_pixel_is_a_convolution(generator: Generator) -> None:
    linear = LULinear.from_matrix(matrix(generator, 3), vector(generator, 3))
    x = images(generator, 5, 3, 2, 4)
    expected = F.conv2d(x, linear.matrix()[:, :, None, None], linear.bias)
    z, log_det = PixelWise(linear, 8)(x.flatten(1))
    torch.testing.assert_close(z.reshape(expected.shape), expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(log_det, (8 * linear.log_abs_det()).expand(5), rtol=EXACT, atol=EXACT)


def test_the_norm_at_every_pixel_takes_the_units_of_channels(generator: Generator) -> None:
    scales, offsets = torch.tensor([1.0, 50.0])[:, None, None], torch.tensor([-3.0, 7.0])[:, None, None]
    x = (images(generator, 200, 2, 3, 2) * scales + offsets).flatten(1)
    layer = PixelWise(Chain(ActNorm(2), Affine(0.0, 1.0)), 6).double()
    z = layer.initialise(x).reshape(200, 2, 6)
    torch.testing.assert_close(z.mean((0, 2)), torch.zeros(2).double(), rtol=0, atol=EXACT)
    torch.testing.assert_close(z.std((0, 2), correction=0), torch.ones(2).double(), rtol=0, atol=EXACT)
    with pytest.raises(ValueError, match="other units"):
        layer.initialise(10 * x)


def test_features_that_are_not_chosen_pass(generator: Generator) -> None:
    x = images(generator, 4, 5)
    linear = LULinear.from_matrix(matrix(generator, 2))
    z, _ = OnFeatures(5, [3, 0], linear)(x)
    assert z[:, [1, 2, 4]].equal(x[:, [1, 2, 4]])
    torch.testing.assert_close(z[:, [3, 0]], linear(x[:, [3, 0]])[0], rtol=EXACT, atol=EXACT)


def test_checkerboards_and_channels_cover_the_image() -> None:
    for masks in (checkerboard, channel_halves):
        first, second = (masks((3, 4, 5), layer) for layer in range(2))
        assert first.equal(~second)
    fields = checkerboard((2, 3, 3), 0)
    neighbours = fields[:, 1:] ^ fields[:, :-1], fields[:, :, 1:] ^ fields[:, :, :-1], ~(fields[1:] ^ fields[:-1])
    assert all(bool(different.all()) for different in neighbours)


def by_hand(mask: Tensor, network: nn.Module, x: Tensor, context: Tensor, parameters: int) -> Tensor:
    """The parameters of moved features, one image at a time and one pixel after the other."""
    channels, height, width = mask.shape
    rows = []
    for image, given in zip(x, context, strict=True):
        whole = bool((mask == mask[:, :1, :1]).all())
        seen = image[mask[:, 0, 0]] if whole else image * mask
        planes = [torch.full((height, width), value.item(), dtype=x.dtype) for value in given]
        output = network(torch.cat([seen, torch.stack(planes)])[None])[0]
        of_channels = [c for c in range(channels) if not (whole and mask[c, 0, 0])]
        output = output.reshape(parameters, len(of_channels), height, width)
        rows.append(
            torch.stack(
                [
                    output[p, number, i, j]
                    for p in range(parameters)
                    for number, c in enumerate(of_channels)
                    for i in range(height)
                    for j in range(width)
                    if not mask[c, i, j]
                ]
            )
        )
    return torch.stack(rows)


@pytest.mark.parametrize(
    "mask",
    [
        channel_halves((3, 2, 4), 0),
        torch.tensor([True, False, True])[:, None, None].expand(3, 2, 4),
        checkerboard((3, 2, 4), 1),
        torch.arange(24).reshape(3, 2, 4) % 5 < 2,
    ],
    ids=["halves", "channels", "checkerboard", "any"],
)
def test_a_conditioner_is_its_network_on_images(mask: Tensor, generator: Generator) -> None:
    network = randomise(convolutional_network(*ImageConditioner.channels(mask, 3, 2), hidden=(4, 3)), generator)
    x, context = images(generator, 4, 3, 2, 4), images(generator, 4, 2)
    conditioner = ImageConditioner(mask, network, 3, 2)
    rows = torch.cat([x.flatten(1)[:, mask.flatten()], context], 1)
    expected = by_hand(mask, network, x, context, 3)
    torch.testing.assert_close(conditioner(rows), expected, rtol=EXACT, atol=EXACT)


def test_context_images_are_squeezed_to_size(generator: Generator) -> None:
    mask = channel_halves((2, 2, 3), 0)
    network = randomise(convolutional_network(*ImageConditioner.channels(mask, 2, (1, 8, 12)), hidden=(4,)), generator)
    x, context = images(generator, 4, 2, 2, 3), images(generator, 4, 1, 8, 12)
    found = ImageConditioner(mask, network, 2, (1, 8, 12))(torch.cat([x[:, :1].flatten(1), context.flatten(1)], 1))
    planes = F.pixel_unshuffle(F.pixel_unshuffle(context, 2), 2)
    expected = network(torch.cat([x[:, :1], planes], 1)).flatten(1)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def test_a_network_may_write_into_its_images(generator: Generator) -> None:
    mask = channel_halves((2, 3, 3), 0)
    writing = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3, padding=1))
    alike = nn.Sequential(nn.ReLU(), writing[1])
    x = images(generator, 4, 18)
    before = x.clone()
    z = [
        AffineCoupling(mask.flatten(), conditioner=ImageConditioner(mask, net)).double()(x)[0]
        for net in (writing, alike)
    ]
    assert x.equal(before)
    torch.testing.assert_close(z[0], z[1], rtol=EXACT, atol=EXACT)
    block = randomise(ResidualBlock(2, lambda: nn.ReLU(inplace=True)), generator)
    image = images(generator, 1, 2, 3, 3)
    before = image.clone()
    expected = image + block.residual[3](F.relu(block.residual[1](F.relu(image))))
    assert block(image).equal(expected)
    assert image.equal(before)


def test_networks_start_at_zero_and_see_as_far_as_they_say() -> None:
    for network, reach in ((convolutional_network(1, 1, (3, 3)), 2), (residual_network(1, 1, 3, blocks=1), 4)):
        assert not network(torch.randn(1, 1, 11, 11)).any()
        randomise(network, torch.Generator().manual_seed(0))
        x = torch.zeros(1, 1, 11, 11).double().requires_grad_()
        (slope,) = torch.autograd.grad(network(x)[0, 0, 5, 5], x)
        seen = slope[0, 0].nonzero()
        assert seen.amin(0).tolist() == [5 - reach] * 2
        assert seen.amax(0).tolist() == [5 + reach] * 2


HALVES = channel_halves((2, 4, 4), 0)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: squeeze((4, 4)), ValueError, r"^squeeze expects the shape of an image, \(C, H, W\); got \(4, 4\)"),
        (lambda: squeeze((1, 4, 0)), ValueError, "^squeeze: width must be a positive int; got 0"),
        (lambda: checkerboard(4, 0), TypeError, "^checkerboard expects the shape of an image"),
        (lambda: PixelWise(Affine(0.0, 2.0), 4), ValueError, "^PixelWise expects a transform of as many features as"),
        (lambda: PixelWise(LULinear(2), 0), ValueError, "^PixelWise: pixels must be a positive int"),
        (lambda: OnFeatures(3, [0, 0], LULinear(2)), ValueError, r"^OnFeatures expects different features of 0 ... 2"),
        (lambda: OnFeatures(3, [3], LULinear(1)), ValueError, r"at least one; got \[3\]"),
        (lambda: OnFeatures(3, [], LULinear(1)), ValueError, r"at least one; got \[\]"),
        (lambda: OnFeatures(3, [0], LULinear(2)), ValueError, "1 features are chosen, and LULinear has 2"),
        (lambda: ImageConditioner(torch.ones(2, 4), nn.Identity()), TypeError, r"^ImageConditioner expects a mask of"),
        (
            lambda: ImageConditioner(HALVES, nn.Conv2d(1, 2, 3)),
            ValueError,
            r"return \[1, 2, 4, 4\] for an image \[1, 1",
        ),
        (lambda: ImageConditioner(HALVES, nn.Flatten()), ValueError, r"for an image \[1, 1, 4, 4\]; got \[1, 16\]"),
        (lambda: image_coupling(HALVES | True, convolutional_network), ValueError, "all True leaves nothing"),
        (lambda: image_coupling(HALVES & False, convolutional_network), ValueError, "all False leaves nothing"),
        (lambda: image_coupling(HALVES, residual_network, (1, 6, 6)), ValueError, "squeezes make as large as 4×4; got"),
        (lambda: convolutional_network(1, 1, ()), ValueError, "^convolutional_network expects at least one hidden"),
        (lambda: residual_network(1, 1, blocks=0), ValueError, "^residual_network: blocks must be a positive int"),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
