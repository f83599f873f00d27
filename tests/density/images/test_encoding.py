"""Networks between images and vectors: shapes, and what they compute, by other means."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from density import ImageDecoder, ImageEncoder, ResidualBlock
from density.images import encoding
from tests.laws.transforms import randomise

EXACT = 1e-12  # two orders of sums of some hundreds of products of size 1
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 20), (2, 7, 5), (1, 1, 9), (1, 1, 1)]


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_goes_down_and_comes_back(shape: tuple[int, int, int], generator: Generator) -> None:
    """Also that points do not see each other, and that every parameter has a gradient."""
    channels, height, width = shape
    for dtype in (torch.float32, torch.float64):
        encoder = randomise(ImageEncoder(shape, 5, (3, 4, 2), context_features=2), generator).to(dtype)
        decoder = randomise(ImageDecoder(5, shape, 2, (3, 4, 2)), generator).to(dtype)
        rows = normal(generator, 3, channels * height * width + 2).to(dtype)
        numbers = encoder(rows)
        images = decoder(numbers)
        assert images.shape == (3, 2 * channels, height, width)
        assert images.dtype == dtype
        alone = decoder(encoder(rows[1:2]))
        torch.testing.assert_close(images[1:2], alone, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-11)
    images.square().sum().backward()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_an_encoder_is_strided_convolutions(generator: Generator) -> None:
    """Against torch, with the context as planes beside the image."""
    encoder = randomise(ImageEncoder((2, 5, 4), 3, (4, 6), blocks=0, context_features=1), generator)
    x, context = normal(generator, 7, 2, 5, 4), normal(generator, 7, 1)
    images = torch.cat([x, context[:, :, None, None].expand(7, 1, 5, 4)], 1)
    first, second = (layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
    (last,) = (layer for layer in encoder.modules() if isinstance(layer, nn.Linear))
    hidden = F.silu(F.conv2d(images, first.weight, first.bias, stride=2, padding=1))
    hidden = F.silu(F.conv2d(hidden, second.weight, second.bias, stride=2, padding=1))
    expected = F.linear(hidden.flatten(1), last.weight, last.bias)
    torch.testing.assert_close(encoder(torch.cat([x.flatten(1), context], 1)), expected, rtol=0, atol=EXACT)


def test_a_decoder_repeats_pixels_and_drops_the_last_line_of_odd_sides(generator: Generator) -> None:
    decoder = randomise(ImageDecoder(3, (2, 5, 4), 2, (4, 6), blocks=0), generator)
    z = normal(generator, 7, 3)
    first, second = (layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d))
    (linear,) = (layer for layer in decoder.modules() if isinstance(layer, nn.Linear))
    images = F.linear(z, linear.weight, linear.bias).reshape(7, 6, 2, 1)
    for layer, (height, width) in ((first, (3, 2)), (second, (5, 4))):
        enlarged = F.silu(images).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :height, :width]
        images = F.conv2d(enlarged, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(decoder(z), images, rtol=0, atol=EXACT)


def test_blocks_start_as_the_identity(generator: Generator) -> None:
    block = ResidualBlock(3, zero_init=True).double()
    x = normal(generator, 2, 3, 4, 4)
    assert block(x).equal(x)
    torch.manual_seed(0)
    decoder = ImageDecoder(3, (1, 4, 4), channels=(4,), blocks=2)
    blocks = [layer for layer in decoder.modules() if isinstance(layer, ResidualBlock)]
    assert len(blocks) == 2
    z, seen = torch.randn(2, 3, generator=generator), list[Tensor]()
    for layer in blocks:
        layer.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))
    decoder(z)
    assert all(before.equal(after) for before, after in pairwise(seen))


def test_many_images_take_no_more_memory_than_a_block(monkeypatch: pytest.MonkeyPatch, generator: Generator) -> None:
    """Where no gradients are recorded; the numbers are the same."""
    seen: list[int] = []
    decoder, encoder = ImageDecoder(3, (1, 8, 8), channels=(4,)), ImageEncoder((1, 8, 8), 3, channels=(4,))
    for network, rows, width in (
        (decoder, normal(generator, 50, 3), 4 * 64),
        (encoder, normal(generator, 50, 64), 4 * 16),
    ):
        randomise(network, generator)
        monkeypatch.setattr(encoding, "SCALARS_IN_CACHE", 20 * width)
        first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
        handle = first.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
        expected = network(rows)
        with torch.no_grad():
            torch.testing.assert_close(network(rows), expected, rtol=0, atol=EXACT)
        handle.remove()
        assert seen == [50, 20, 20, 10]
        seen.clear()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageEncoder((8, 8), 3), r"ImageEncoder expects the shape of an image, \(C, H, W\)"),
        (lambda: ImageDecoder(3, (1, 8, 8), channels=()), "ImageDecoder expects the channels of at least one scale"),
        (lambda: ImageEncoder((1, 8, 8), 3, (4, 0)), r"ImageEncoder: channels\[1\]"),
        (lambda: ImageDecoder(3, (1, 8, 8), blocks=-1), "ImageDecoder: blocks"),
        (lambda: ImageDecoder(0, (1, 8, 8)), "ImageDecoder: inputs"),
    ],
)
def test_sizes_are_checked(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
