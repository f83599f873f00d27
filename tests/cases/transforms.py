"""The table of transforms, in float64 and away from the identity: a new transform is a new line."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from nflows import transforms as nflows_transforms
from nflows.nn.nets import ResidualNet
from torch import Generator, Tensor

from bridge.conversions.nflows_transforms import FromNflows, ToNflows
from density import Timed, mlp
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    ContinuousTransform,
    ElementwiseSpline,
    EmbeddedContext,
    GaussianAutoregressive,
    Inverse,
    Logit,
    LULinear,
    MaskedResidualMLP,
    OnFeatures,
    Permutation,
    PixelWise,
    QRLinear,
    RationalQuadratic,
    Sigmoid,
    SplineAutoregressive,
    SplineCoupling,
    StandardisedContext,
    Transform,
    Whitening,
    channel_halves,
    checkerboard,
    convolutional_network,
    first_half,
    glow,
    iaf,
    image_coupling,
    image_flow,
    image_nvp,
    maf,
    neural_spline_flow,
    on_box,
    random_masks,
    random_orders,
    random_rotation,
    real_nvp,
    residual_network,
    spline_maf,
)
from tests.laws.transforms import TransformCase, randomise

CONTEXT = 2
SOLVED = 1e-6  # what a solver is asked for; its derivatives may err some ten times as much as its values
NARROW = (8, 8)
SPLINE = RationalQuadratic(bins=4, bound=6.0)
CONVOLUTIONS = partial(convolutional_network, hidden=(4, 4))
RESIDUAL = partial(residual_network, channels=4, blocks=1)
ENDS = torch.tensor([0.0, -1.0, -math.inf], dtype=torch.float64), torch.tensor([2.0, math.inf, 5.0])


def matrix(generator: Generator, features: int) -> Tensor:
    """A random matrix of moderate condition, its determinant's sign as it falls."""
    noise = torch.randn(features, features, generator=generator, device=generator.device, dtype=torch.float64)
    q, r = torch.linalg.qr(noise)
    return q @ (r.triu(1) * 0.3 + r.diagonal().sign().diag() * (0.5 + r.diagonal().abs().clamp(max=2.0)).diag())


def vector(generator: Generator, features: int) -> Tensor:
    return torch.randn(features, generator=generator, device=generator.device, dtype=torch.float64)


def order(generator: Generator, features: int) -> Tensor:
    return torch.randperm(features, generator=generator, device=generator.device)


def permutation(generator: Generator) -> Permutation:
    # Never the identity, nor its own inverse.
    return Permutation(torch.tensor([1, 2, 0]).roll(int(order(generator, 3)[0]) % 2 * 3)).to(generator.device)


def actnorm(generator: Generator) -> ActNorm:
    layer = randomise(ActNorm(3), generator)
    layer.mean.copy_(vector(generator, 3))
    layer.std.copy_(vector(generator, 3).abs() + 0.5)
    layer.initialised.fill_(True)
    return layer


def whitening(generator: Generator, features: int = 3) -> Whitening:
    layer = Whitening(features).double().to(generator.device)
    mixing = matrix(generator, features)
    layer.initialise(torch.stack([mixing @ vector(generator, features) for _ in range(60)]))
    return layer


def elementwise_spline(generator: Generator) -> ElementwiseSpline:
    layer = randomise(ElementwiseSpline(3, SPLINE), generator, 0.3)
    layer.initialise(torch.stack([vector(generator, 3) for _ in range(200)]).sinh())
    return layer


def standardised_context(generator: Generator) -> StandardisedContext:
    layer = StandardisedContext(randomise(AffineCoupling([True, False, True], NARROW, CONTEXT), generator)).double()
    layer.standardise.to(generator.device).match(3 + 2 * torch.stack([vector(generator, CONTEXT) for _ in range(20)]))
    return layer


def continuous() -> ContinuousTransform:
    velocity = Timed(mlp(2 + 1 + CONTEXT, 2, (4,)), 2, CONTEXT)
    return ContinuousTransform(velocity, 2, CONTEXT, tolerance=SOLVED)


def randomised(make: Callable[[], Transform]) -> Callable[[Generator], Transform]:
    return lambda generator: randomise(make(), generator)


def coupling_with_nflows_spline(generator: Generator, context: int | None) -> FromNflows:
    def net(inputs: int, outputs: int) -> ResidualNet:
        return ResidualNet(inputs, outputs, hidden_features=8, context_features=context, num_blocks=1)

    spline = nflows_transforms.PiecewiseRationalQuadraticCouplingTransform(
        [1, 0, 1], net, num_bins=4, tails="linear", tail_bound=3.0
    )
    return randomise(FromNflows(spline, 3, context or 0), generator)


def nflows_autoregressive_spline() -> FromNflows:
    return FromNflows(
        nflows_transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            3, hidden_features=8, num_bins=4, tails="linear", tail_bound=3.0, num_blocks=1
        ),
        3,
    )


def there_and_back(context: int) -> FromNflows:
    """Ours, in theirs, in ours."""
    ours = ToNflows(GaussianAutoregressive(3, NARROW, context_features=context))
    return FromNflows(
        nflows_transforms.CompositeTransform([ours, nflows_transforms.ReversePermutation(3), ToNflows(LULinear(3))]),
        3,
        context,
    )


def residual_autoregressive(places: Tensor, context: int) -> GaussianAutoregressive:
    net = MaskedResidualMLP(places, 2, hidden=7, blocks=2, context_features=context)
    return GaussianAutoregressive(len(places), (), places, context, conditioner=net)


def within_ends(x: Tensor) -> Tensor:
    """Two pixels of three channels: between 0 and 2, above −1, below 5."""
    first, second, third = x.chunk(3, -1)
    return torch.cat([2 * first.sigmoid(), second.exp() - 1, 5 - third.exp()], -1)


def mixed_chain(generator: Generator) -> Chain:
    return Chain(
        actnorm(generator),
        LULinear.from_matrix(matrix(generator, 3), vector(generator, 3)),
        permutation(generator),
        randomise(AffineCoupling([True, False, True], NARROW, CONTEXT), generator),
        Inverse(randomise(QRLinear(3, generator=generator), generator)),
        Affine(0.5, 2.0).to(vector(generator, 1)),
        Inverse(Chain(randomise(GaussianAutoregressive(3, NARROW, context_features=CONTEXT), generator))),
    )


TRANSFORMS: dict[str, TransformCase] = {
    "lu": TransformCase(randomised(lambda: LULinear(3))),
    "lu, one feature": TransformCase(randomised(lambda: LULinear(1)), 1),
    "lu, no bias": TransformCase(randomised(lambda: LULinear(4, bias=False)), 4),
    "lu, from a matrix": TransformCase(lambda g: LULinear.from_matrix(matrix(g, 4), vector(g, 4)), 4),
    "qr": TransformCase(lambda g: randomise(QRLinear(3, generator=g), g)),
    # In one dimension a mirror has one normal, up to its length.
    "qr, one feature": TransformCase(randomised(lambda: QRLinear(1)), 1, dead=("vectors",)),
    "qr, few reflections": TransformCase(
        lambda g: randomise(QRLinear(5, reflections=2, bias=False, generator=g), g), 5
    ),
    "qr, from a matrix": TransformCase(lambda g: QRLinear.from_matrix(matrix(g, 4), vector(g, 4)), 4),
    "coupling": TransformCase(randomised(lambda: AffineCoupling([True, False, True], NARROW))),
    "coupling, context": TransformCase(
        randomised(lambda: AffineCoupling([False, True, False], NARROW, CONTEXT)), context_reaches=(0, 2)
    ),
    "coupling, context only": TransformCase(randomised(lambda: AffineCoupling([False] * 3, NARROW, CONTEXT))),
    "coupling, tight bound": TransformCase(
        randomised(lambda: AffineCoupling([True, False, False], (), log_scale_bound=0.1))
    ),
    "autoregressive": TransformCase(randomised(lambda: GaussianAutoregressive(4, NARROW)), 4),
    "autoregressive, order": TransformCase(lambda g: randomise(GaussianAutoregressive(4, NARROW, order(g, 4)), g), 4),
    "autoregressive, context": TransformCase(
        lambda g: randomise(GaussianAutoregressive(3, NARROW, order(g, 3), CONTEXT), g)
    ),
    # A single feature without context has nothing to see: its network is a bias.
    "autoregressive, one feature": TransformCase(
        randomised(lambda: GaussianAutoregressive(1, NARROW)), 1, dead=("conditioner.layers.0.weight",)
    ),
    "autoregressive, one feature, context": TransformCase(
        randomised(lambda: GaussianAutoregressive(1, NARROW, context_features=CONTEXT)), 1
    ),
    "inverse autoregressive, context": TransformCase(
        randomised(lambda: Inverse(GaussianAutoregressive(3, NARROW, context_features=CONTEXT)))
    ),
    "residual autoregressive, context": TransformCase(
        lambda g: randomise(residual_autoregressive(order(g, 3), CONTEXT), g)
    ),
    "spline coupling": TransformCase(randomised(lambda: SplineCoupling([True, False, True], NARROW, spline=SPLINE))),
    "spline coupling, context": TransformCase(
        randomised(lambda: SplineCoupling([False, True, False], NARROW, CONTEXT, SPLINE)), context_reaches=(0, 2)
    ),
    "spline coupling, two bins": TransformCase(
        randomised(lambda: SplineCoupling([True, True, False], NARROW, spline=RationalQuadratic(2, 4.0)))
    ),
    "spline autoregressive, order": TransformCase(
        lambda g: randomise(SplineAutoregressive(4, NARROW, order(g, 4), spline=SPLINE), g), 4
    ),
    "spline autoregressive, context": TransformCase(
        randomised(lambda: SplineAutoregressive(3, NARROW, context_features=CONTEXT, spline=SPLINE))
    ),
    "whitening": TransformCase(whitening),
    "whitening, four features": TransformCase(lambda g: whitening(g, 4), 4),
    "whitening between others": TransformCase(lambda g: Chain(actnorm(g), whitening(g), randomise(LULinear(3), g))),
    "steps of a permutation and LU": TransformCase(
        lambda g: Chain(
            *(permutation(g), randomise(LULinear(3), g), randomise(AffineCoupling([True, False, True], NARROW), g)),
            *(permutation(g), randomise(LULinear(3), g), elementwise_spline(g)),
        )
    ),
    "elementwise spline": TransformCase(randomised(lambda: ElementwiseSpline(3, SPLINE))),
    "elementwise spline, from data": TransformCase(elementwise_spline),
    "activation norm": TransformCase(actnorm),
    "standardised context": TransformCase(standardised_context, context_reaches=(1,)),
    "embedded context": TransformCase(
        randomised(
            lambda: EmbeddedContext(mlp(CONTEXT, 4, NARROW), AffineCoupling([True, False, True], NARROW, 4), CONTEXT)
        ),
        context_reaches=(1,),
    ),
    "affine": TransformCase(lambda g: Affine(vector(g, 3), vector(g, 3).abs() + 0.5)),
    "affine, two numbers": TransformCase(lambda g: Affine(-1.5, -0.3).to(vector(g, 1))),
    "logit": TransformCase(lambda g: Logit(), domain=torch.sigmoid),
    "sigmoid": TransformCase(lambda g: Sigmoid()),
    "on a box of mixed ends, pixelwise": TransformCase(
        lambda g: PixelWise(on_box(*ENDS), 2).to(g.device), 6, domain=within_ends
    ),
    "permutation": TransformCase(permutation),
    "some features": TransformCase(randomised(lambda: OnFeatures(4, [3, 1], LULinear(2))), 4),
    "some features, context": TransformCase(
        randomised(lambda: OnFeatures(4, [2, 0], GaussianAutoregressive(2, NARROW, context_features=CONTEXT))),
        4,
        context_reaches=(0, 2),
    ),
    "pixelwise lu": TransformCase(lambda g: PixelWise(LULinear.from_matrix(matrix(g, 2), vector(g, 2)), 3), 6),
    "pixelwise, context": TransformCase(
        randomised(lambda: PixelWise(AffineCoupling([True, False], NARROW, CONTEXT), 2)), 4, context_reaches=(2, 3)
    ),
    "checkerboard, context image": TransformCase(
        randomised(lambda: image_coupling(checkerboard((1, 2, 3), 0), RESIDUAL, (1, 4, 3))),
        6,
        context_reaches=(1, 3, 5),
    ),
    "channels, spline": TransformCase(
        randomised(lambda: image_coupling(channel_halves((3, 1, 2), 1), CONVOLUTIONS, spline=SPLINE)), 6
    ),
    "image flow, context": TransformCase(
        lambda g: randomise(image_flow((1, 1, 4), 2, 2, CONVOLUTIONS, CONTEXT, linear=random_rotation(g)).transform, g),
        4,
    ),
    "image nvp": TransformCase(randomised(lambda: image_nvp((1, 1, 4), 2, 2, RESIDUAL).transform), 4),
    "inverse of lu": TransformCase(randomised(lambda: Inverse(LULinear(3)))),
    "continuous, context": TransformCase(randomised(continuous), 2, tolerance=10 * SOLVED),
    "chain": TransformCase(mixed_chain),
    "inverse of a chain": TransformCase(
        lambda g: Inverse(Chain(LULinear.from_matrix(matrix(g, 3)), Sigmoid())), domain=torch.sigmoid
    ),
    "real nvp": TransformCase(randomised(lambda: real_nvp(3, 4, NARROW).transform)),
    "glow, context": TransformCase(randomised(lambda: glow(3, 3, NARROW, CONTEXT).transform)),
    "glow of rotations": TransformCase(
        lambda g: randomise(glow(3, 3, NARROW, masks=first_half, linear=random_rotation(g)).transform, g, 0.2)
    ),
    "neural spline flow": TransformCase(randomised(lambda: neural_spline_flow(3, 3, NARROW).transform)),
    "neural spline flow of random masks": TransformCase(
        lambda g: randomise(neural_spline_flow(4, 2, NARROW, masks=random_masks(g), linear=None).transform, g), 4
    ),
    "spline maf, context": TransformCase(randomised(lambda: spline_maf(3, 2, NARROW, CONTEXT).transform)),
    "spline maf, mixed": TransformCase(
        lambda g: randomise(spline_maf(3, 2, NARROW, orders=random_orders(g), linear=LULinear).transform, g)
    ),
    "maf, context": TransformCase(randomised(lambda: maf(3, 3, NARROW, CONTEXT).transform)),
    "iaf": TransformCase(randomised(lambda: iaf(3, 3, NARROW).transform)),
    "nflows coupling spline": TransformCase(lambda g: coupling_with_nflows_spline(g, None)),
    "nflows coupling spline, context": TransformCase(
        lambda g: coupling_with_nflows_spline(g, CONTEXT), context_reaches=(0, 2)
    ),
    "nflows autoregressive spline": TransformCase(randomised(nflows_autoregressive_spline)),
    "ours in nflows in ours": TransformCase(randomised(lambda: there_and_back(CONTEXT))),
}

__all__ = ["CONTEXT", "CONVOLUTIONS", "NARROW", "RESIDUAL", "TRANSFORMS", "matrix", "order", "vector"]
