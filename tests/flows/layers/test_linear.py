"""LU- and QR-linear layers against the dense matrices that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from flows import Linear, LULinear, QRLinear
from tests.cases.transforms import order, vector
from tests.laws.transforms import randomise

LAYERS = [LULinear, QRLinear]
EPS = torch.finfo(torch.float64).eps


def dense(generator: Generator, features: int) -> Tensor:
    return torch.stack([vector(generator, features) for _ in range(features)])


def matrices(generator: Generator) -> list[Tensor]:
    """Many random matrices, about half of them with det < 0, and the special ones."""
    eye = torch.eye(5, dtype=torch.float64, device=generator.device)
    special = [
        eye,
        -eye,
        eye[order(generator, 5)],
        -eye[order(generator, 5)],
        vector(generator, 5).diag(),
        dense(generator, 5).triu(),  # geqrf reflects nothing here
        dense(generator, 5).tril(),
        torch.linalg.qr(dense(generator, 5)).Q,
        torch.diag(torch.tensor([1e-30, 1.0, -1e30], dtype=torch.float64, device=generator.device)),
        torch.tensor([[2.5]], dtype=torch.float64, device=generator.device),
        torch.tensor([[-1e-8]], dtype=torch.float64, device=generator.device),
    ]
    return special + [dense(generator, features) for features in (1, 2, 3, 4, 7, 12) for _ in range(30)]


def condition(matrix: Tensor) -> float:
    """Condition of W after scaling its columns, which no solve by LU or QR is sensitive to."""
    return float(torch.linalg.cond(matrix / matrix.abs().amax(0)))


@pytest.mark.parametrize("layer", LAYERS)
def test_from_matrix_is_the_matrix(layer: type[Linear], generator: Generator) -> None:
    signs = set()
    for matrix in matrices(generator):
        features = len(matrix)
        bias = matrix @ vector(generator, features)  # of the size of W x, so that z − b does not cancel
        linear = layer.from_matrix(matrix, bias)
        signs.add(float(torch.linalg.det(matrix).sign()))
        # Both decompositions are backward stable: errors are a small multiple of D·eps of each column's size.
        scale = matrix.abs().amax(0)
        assert ((linear.matrix() - matrix).abs() <= 20 * features * EPS * scale).all()
        x = torch.stack([vector(generator, features) for _ in range(4)])
        z, log_det = linear.forward(x)
        torch.testing.assert_close(z, x @ matrix.T + bias, rtol=1e-12, atol=float(100 * features * EPS * scale.max()))
        # |det| feels the condition of W at first order, eps·cond.
        tolerance = 20 * features * EPS * condition(matrix) * (1 + features)
        expected = torch.linalg.slogdet(matrix).logabsdet
        torch.testing.assert_close(log_det, expected.expand(4), rtol=1e-13, atol=tolerance)
        back, _ = linear.inverse(x @ matrix.T + bias)
        torch.testing.assert_close(back * scale, x * scale, rtol=1e-9, atol=float(tolerance * 100 * scale.max()))
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("layer", LAYERS)
def test_random_factors_agree_with_their_dense_matrix(layer: type[Linear], generator: Generator) -> None:
    for features in (1, 2, 5, 9):
        linear = randomise(layer.from_matrix(dense(generator, features), vector(generator, features)), generator)
        matrix = linear.matrix()
        x = torch.stack([vector(generator, features) for _ in range(4)])
        z, log_det = linear.forward(x)
        torch.testing.assert_close(z, x @ matrix.T + linear.bias, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet.expand(4), rtol=1e-9, atol=1e-9)
        expected = torch.linalg.solve(matrix, (z - linear.bias).T).T
        torch.testing.assert_close(linear.inverse(z)[0], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("layer", LAYERS)
def test_training_moves_every_factor_and_keeps_the_sign_of_the_determinant(
    layer: type[Linear], generator: Generator
) -> None:
    linear = layer.from_matrix(dense(generator, 4), vector(generator, 4))
    sign = torch.linalg.slogdet(linear.matrix()).sign
    before = [parameter.detach().clone() for parameter in linear.parameters()]
    x = torch.stack([vector(generator, 4) for _ in range(50)])
    optimiser = torch.optim.SGD(linear.parameters(), lr=1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        z, log_det = linear.forward(x)
        (0.5 * z.square().sum(-1) - log_det).mean().backward()
        optimiser.step()
    for parameter, old in zip(linear.parameters(), before, strict=True):
        assert ((parameter - old) != 0).all()
    assert torch.linalg.slogdet(linear.matrix()).sign == sign


@pytest.mark.parametrize("features", [1, 2, 5, 8])
def test_a_new_layer_is_the_identity(features: int, generator: Generator) -> None:
    layers: list[Linear] = [LULinear(features)]
    layers += [QRLinear(features, reflections, generator=generator) for reflections in range(1, features + 1)]
    for layer in layers:
        layer = layer.double()
        eye = torch.eye(features, dtype=torch.float64)
        # Unit vectors from float32 draws are normalised in float64, so pairs cancel to float64 rounding.
        torch.testing.assert_close(layer.matrix(), eye, rtol=0, atol=1e-14)
        assert layer.log_abs_det() == 0
        gradients = torch.autograd.grad(
            (layer.matrix() * dense(generator, features)).sum() + layer.log_abs_det(),
            [p for name, p in layer.named_parameters() if name != "bias" and p.numel()],
            materialize_grads=True,
        )
        assert all(gradient.isfinite().all() for gradient in gradients)
        if features > 1:
            assert all((gradient != 0).any() for gradient in gradients)


def test_lu_factors_are_lapacks(generator: Generator) -> None:
    matrix = dense(generator, 6)
    layer = LULinear.from_matrix(matrix)
    permutation, lower, upper = torch.linalg.lu(matrix)
    assert layer.factors.tril(-1).equal(lower.tril(-1))
    assert layer.factors.triu(1).equal(upper.triu(1))
    torch.testing.assert_close(layer.sign * layer.factors.diagonal().exp(), upper.diagonal())
    assert torch.eye(6, dtype=torch.float64)[layer.permutation].equal(permutation)


def test_compact_wy_is_the_product_of_the_reflections(generator: Generator) -> None:
    layer = randomise(QRLinear(6, reflections=4, generator=generator), generator)
    eye = torch.eye(6, dtype=torch.float64)
    product = eye
    for column in layer.vectors.T:
        product = product @ (eye - 2 * torch.outer(column, column) / column.dot(column))
    torch.testing.assert_close(layer.orthogonal(), product, rtol=0, atol=1e-14)
    _, log_det = layer.forward(eye)
    torch.testing.assert_close(log_det[0], layer.log_diagonal.sum())


@pytest.mark.parametrize("features", [1, 2, 6, 40])
def test_q_is_orthogonal(features: int, generator: Generator) -> None:
    for reflections in {1, (features + 1) // 2, features}:
        layer = randomise(QRLinear(features, reflections, generator=generator), generator, scale=2.0)
        for scale in (1.0, 1e-200, 1e200):  # the normals' lengths mean nothing
            with torch.no_grad():
                layer.vectors.mul_(scale)
            q = layer.orthogonal()
            eye = torch.eye(features, dtype=torch.float64)
            # K reflections, each orthogonal to eps; 40 of them measured 3e-15.
            torch.testing.assert_close(q.T @ q, eye, rtol=0, atol=50 * features * EPS)
            assert torch.linalg.det(q).sign() == (-1) ** reflections
            with torch.no_grad():
                layer.vectors.div_(scale)


def test_zero_normals_reflect_nothing(generator: Generator) -> None:
    layer = randomise(QRLinear(4, generator=generator), generator)
    with torch.no_grad():
        layer.vectors[:, 1:3] = 0
    two = QRLinear(4, 2).double()
    with torch.no_grad():
        two.vectors.copy_(layer.vectors[:, [0, 3]])
    torch.testing.assert_close(layer.orthogonal(), two.orthogonal(), rtol=0, atol=1e-14)
    x = vector(generator, 4)
    z, log_det = layer.forward(x)
    (z.sum() + log_det).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())  # type: ignore[union-attr]
    torch.testing.assert_close(layer.inverse(z)[0], x)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w[:2], ValueError, r"square matrix.*got shape \[2, 3\]"),
        (lambda w: w[0], ValueError, "square matrix"),
        (lambda w: w[:0, :0], ValueError, "square matrix"),
        (lambda w: w.long(), TypeError, "floating-point torch.Tensor; got torch.int64"),
        (lambda w: w.tolist(), TypeError, "floating-point torch.Tensor; got list"),
        (lambda w: w.index_fill(0, torch.tensor(1), torch.nan), ValueError, "finite"),
        (lambda w: w.index_fill(0, torch.tensor(1), torch.inf), ValueError, "finite"),
        (lambda w: w.index_fill(0, torch.tensor(1), 0.0), ValueError, "singular"),
        (lambda w: w * 0, ValueError, "singular"),
        (lambda w: w[[0, 1, 1]], ValueError, "singular"),
        (lambda w: torch.outer(w[0], w[1]) + torch.outer(w[1], w[2]), ValueError, "singular"),
    ],
)
def test_from_matrix_refuses(
    layer: type[Linear],
    change: Callable[[Tensor], Tensor],
    error: type[Exception],
    message: str,
    generator: Generator,
) -> None:
    with pytest.raises(error, match=rf"(?s){layer.__name__}.from_matrix expects.*{message}"):
        layer.from_matrix(change(dense(generator, 3)))


@pytest.mark.parametrize("layer", LAYERS)
def test_from_matrix_refuses_a_bias_that_does_not_fit(layer: type[Linear], generator: Generator) -> None:
    matrix = dense(generator, 3)
    for bias in (torch.zeros(2, dtype=torch.float64), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"expects a bias of shape \[3\] and torch.float64"):
            layer.from_matrix(matrix, bias)
    with pytest.raises(ValueError, match="finite"):
        layer.from_matrix(matrix, torch.full((3,), torch.nan, dtype=torch.float64))


@pytest.mark.parametrize("layer", LAYERS)
def test_from_matrix_copies(layer: type[Linear], generator: Generator) -> None:
    matrix, bias = dense(generator, 3), vector(generator, 3)
    linear = layer.from_matrix(matrix, bias)
    expected, expected_bias = matrix.clone(), bias.clone()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.add_(1.0)
    assert matrix.equal(expected)
    assert bias.equal(expected_bias)
    assert layer.from_matrix(matrix.float()).matrix().dtype == torch.float32
    assert layer.from_matrix(matrix).bias is None


@pytest.mark.parametrize("features", [0, -1, 2.5, True])
def test_a_width_is_a_positive_int(features: int) -> None:
    for layer in LAYERS:
        with pytest.raises(ValueError, match="features must be a positive int"):
            layer(features)


def test_reflections_are_one_to_d() -> None:
    with pytest.raises(ValueError, match=r"at most 3 reflections.*got 4"):
        QRLinear(3, 4)
    with pytest.raises(ValueError, match="reflections must be a positive int"):
        QRLinear(3, 0)
