r"""A flow with its deltas widened to Gaussians, whose limit it is.

With z = f(x), g = f⁻¹ and J = ∂f/∂x, take decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ): with the base as prior, a
genuine latent-variable model. At z = f(x) + σJε the decoder's residual is −σε − ½σ²g″(Jε, Jε) − …, and

.. math:: \log w = \log p(x) + \sigma\, o(\varepsilon) + \sigma^2 e(\varepsilon) + \dots

where p is the flow's density, o is odd in ε and e even. Odd terms have mean 0: the ELBO is log p(x) + O(σ²), and so is
the model's own evidence log p_σ(x), the flow's density blurred by N(0, σ²I) (Nielsen et al. 2020, SurVAE Flows, section
2.2). Both need a twice differentiable f: within σ of a kink J is the wrong matrix, and a flow of ReLU networks is only
O(σ) away on average.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.func import vjp, vmap

from density.checks import check_points
from density.families.gaussian import GaussianFamily
from density.families.scale import DiagonalScale, Scale, TriangularScale
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.initialisation import UNKNOWN, StartingPoints
from density.support import Step, Support, preimage
from flows.flow import Flow
from flows.transform import Transform
from lvm.latent import LatentVariableModel


def value_and_jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) ``[*batch, m]`` and its Jacobian ``[*batch, m, D]`` at x ``[*batch, D]``: one pass, m batched pull-backs.

    Points must not see each other. Differentiable again, in x and in what f holds. For a square Jacobian either mode
    takes D derivatives. Reverse mode took a quarter to a half of the time of forward mode with coupling and
    autoregressive flows of 2 to 32 features (torch 2.13, CPU), and two thirds of that of vmap(jacrev).

    >>> value, jacobian = value_and_jacobian(lambda x: x.square(), torch.tensor([1.0, 3.0]))
    >>> jacobian.tolist()
    [[2.0, 0.0], [0.0, 6.0]]
    """
    value, pull_back = vjp(function, x)[:2]
    basis = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
    jacobian: Tensor = vmap(lambda row: pull_back(row.expand_as(value))[0], out_dims=-2)(basis)
    return value, jacobian


class RelaxedDecoder(GaussianFamily):
    """A decoder p(x|z) = N(g(z), σ²I), g the inverse of a transform; context z.

    Args:
        transform: unconditional, data to noise.
        std: σ, a positive scalar.
        features: D.

    >>> from flows import LULinear
    >>> decoder = RelaxedDecoder(LULinear.from_matrix(torch.diag(torch.tensor([2.0, 4.0]))), torch.tensor(0.1), 2)
    >>> decoder.expectation(torch.tensor([1.0, 1.0])).tolist()  # g(z) = f⁻¹(z)
    [0.5, 0.25]
    """

    std: Tensor
    factorises = True

    def __init__(self, transform: Transform, std: Tensor, features: int) -> None:
        super().__init__()
        self.features = self.context_features = features
        self.transform = transform
        self.register_buffer("std", std)

    @property
    def support(self) -> Support | None:
        """Where the flow has density: there is noise beyond, but no f(x) for the encoder to begin with."""
        return preimage([Step(type(self.transform).__name__, self.transform.domain)])

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        assert context is not None, "the base class has checked it"
        return self.transform.inverse(context)[0], DiagonalScale(self.std.expand(self.features))


class RelaxedEncoder(GaussianFamily, ABC):
    """An encoder q(z|x) = N(f(x), σ²C(x)), C from the Jacobian J = ∂f/∂x: a view of the decoder, without parameters.

    Args:
        decoder: whose transform and σ it uses.
    """

    def __init__(self, decoder: RelaxedDecoder) -> None:
        super().__init__()
        self.features = self.context_features = decoder.features
        self.decoder = decoder

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        assert context is not None, "the base class has checked it"
        mean, jacobian = self.linearise(context)
        return mean, self.scale(jacobian, self.decoder.std)

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) ``[*batch, D]`` and J ``[*batch, D, D]``. Cost: that of D passes of f, batched."""
        return value_and_jacobian(lambda x: self.decoder.transform.forward(x)[0], x)

    @abstractmethod
    def scale(self, jacobian: Tensor, std: Tensor) -> Scale:
        """S with SSᵀ = σ²C, from J ``[*batch, D, D]``. O(D³) a point."""

    @abstractmethod
    def limiting_gap(self, jacobian: Tensor) -> Tensor:
        """lim log p(x) − ELBO as σ → 0, ``[*batch]``, nats."""


class JacobianEncoder(RelaxedEncoder):
    """The encoder with C = JJᵀ, the covariance of f(x + σε) to first order: the posterior's in the limit.

    Its gap vanishes as σ².

    >>> from flows import LULinear
    >>> shear = LULinear.from_matrix(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    >>> encoder = JacobianEncoder(RelaxedDecoder(shear, torch.tensor(0.1), 2))
    >>> encoder.expectation(torch.tensor([1.0, 2.0])).tolist(), encoder.limiting_gap(torch.eye(2)).item()
    ([3.0, 2.0], 0.0)
    """

    def scale(self, jacobian: Tensor, std: Tensor) -> Scale:
        # Jᵀ = QR makes JJᵀ = RᵀR; a Cholesky factor of the product would square the condition number.
        r = torch.linalg.qr(jacobian.mT).R
        sign = torch.where(r.detach().diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(r.dtype)
        return TriangularScale(std * (r * sign.unsqueeze(-1)).mT)

    def limiting_gap(self, jacobian: Tensor) -> Tensor:
        return jacobian.new_zeros(jacobian.shape[:-2])


class DiagonalJacobianEncoder(RelaxedEncoder):
    r"""The encoder with the best diagonal C, entries 1/A_ii for A = J_gᵀJ_g, J_g = ∂g/∂z = J⁻¹: a VAE's usual one.

    The posterior's covariance tends to σ²A⁻¹. Among diagonal C, KL(N(0, C) ‖ N(0, A⁻¹)) is least at 1/A_ii, where it is

    .. math:: \tfrac12\Big(\sum_i \log A_{ii} - \log\det A\Big) \ge 0,

    0 exactly when A is diagonal, as for a rotation (Hadamard's inequality). However small σ is, this gap stays.

    >>> from flows import LULinear
    >>> shear = LULinear.from_matrix(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    >>> encoder = DiagonalJacobianEncoder(RelaxedDecoder(shear, torch.tensor(0.1), 2))
    >>> round(encoder.limiting_gap(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).item(), 4)  # ½ log 2, whatever σ is
    0.3466
    """

    def scale(self, jacobian: Tensor, std: Tensor) -> Scale:
        return DiagonalScale(std / torch.linalg.vector_norm(torch.linalg.inv_ex(jacobian).inverse, dim=-2))

    def limiting_gap(self, jacobian: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(torch.linalg.inv_ex(jacobian).inverse, dim=-2)
        return lengths.log().sum(-1) + torch.linalg.slogdet(jacobian).logabsdet


class GaussianRelaxation(LatentVariableModel):
    r"""A flow with encoder N(f(x), σ²JJᵀ) and decoder N(g(z), σ²I) instead of deltas; the prior is the flow's base.

    Log-weights are sampled and bound log p_σ(x), the evidence of a density that is the flow's, blurred:

    .. math:: p_\sigma(x) = \int p(z)\, N(x; g(z), \sigma^2 I)\, dz
              = \int p_{\text{flow}}(x')\, N(x; x', \sigma^2 I)\, dx'

    Shares the flow's parameters. Gradients run through the Jacobian. A point costs D passes of f for its encoder, O(D³)
    to factor the Jacobian and one pass of g a draw; all points and draws together, without a loop.

    Args:
        flow: unconditional.
        sigma: σ > 0, in the units of x. Rounding in g enters log-weights divided by σ: in float64, σ = 1e-5 leaves some
            ten digits, and in float32 σ much below 1e-2 leaves none.
        encoder: :class:`JacobianEncoder` (default) or :class:`DiagonalJacobianEncoder`, or what makes a
            :class:`RelaxedEncoder` from the decoder.

    Raises:
        TypeError: not a Flow, or sigma is no number.
        ValueError: the flow is conditional, or sigma is not positive and finite.

    >>> from flows import linear_flow
    >>> flow = linear_flow(2).double()
    >>> x = torch.tensor([[0.5, -1.0]]).double()
    >>> noise = torch.randn(500, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    >>> for sigma in (1e-1, 1e-2, 1e-3):  # 100 times nearer each time
    ...     log_weights = GaussianRelaxation(flow, sigma).log_weights_at(x, torch.cat([noise, -noise]))
    ...     print(f"{(log_weights.mean(0) - flow.log_prob(x)).item():.1e}")
    -1.1e-02
    -1.1e-04
    -1.1e-06
    """

    def __init__(
        self, flow: Flow, sigma: float, encoder: Callable[[RelaxedDecoder], RelaxedEncoder] = JacobianEncoder
    ) -> None:
        super().__init__()
        if not isinstance(flow, Flow):
            raise TypeError(f"GaussianRelaxation takes a Flow; got {type(flow).__name__}")
        if flow.context_features:
            raise ValueError(
                f"GaussianRelaxation joins x to z alone; the flow needs a context of {flow.context_features} features. "
                "Model p(x|c) with the Flow itself"
            )
        if not isinstance(sigma, int | float) or isinstance(sigma, bool):
            raise TypeError(f"GaussianRelaxation expects sigma to be a number; got {type(sigma).__name__}")
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(
                f"GaussianRelaxation expects a positive finite sigma; got {sigma}. The limit sigma = 0 is FlowVAE"
            )
        self.features = flow.features
        self.measure = flow.measure
        self.prior = flow.base
        std = torch.tensor(float(sigma), dtype=flow.base.reference.dtype, device=flow.base.reference.device)
        self.decoder: RelaxedDecoder = RelaxedDecoder(flow.transform, std, flow.features)
        self._encoder = encoder

    @property
    def encoder(self) -> RelaxedEncoder:  # type: ignore[override]  # a view: the transform is registered once
        """q(z|x), a view of the decoder."""
        return self._encoder(self.decoder)

    @property
    def sigma(self) -> float:
        """σ."""
        return self.decoder.std.item()

    def log_weights_at(self, x: Tensor, noise: Tensor) -> Tensor:
        r"""Log-weights at z = f(x) + Sε for given ε, S the encoder's scale: a smooth function of σ, nats.

        With ε and −ε their mean is free of the terms odd in σ, which are the noise of plain sampling. With ε at the
        nodes of a Gauss-Hermite rule their mean is the ELBO, and that of the weights p_σ(x) itself.

        Args:
            x: ``[*batch, D]``.
            noise: ε ``[draws, *batch, D]``; batch shapes broadcast.

        Returns:
            Shape ``[draws, *batch]``.
        """
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        check_points(noise, self.features, f"{type(self).__name__}, as noise,", reference=x)
        mean, scale = self.encoder.at(x)
        log_q = -0.5 * noise.square().sum(-1) - scale.log_det() - 0.5 * self.features * math.log(2 * math.pi)
        return self.log_joint(x, mean + scale.color(noise)) - log_q

    def elbo(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """The mean log-weight ``[*batch]``, which as an estimate of the ELBO has noise of size σ.

        The KL in closed form would leave the reconstruction's noise, of size √D whatever σ is (Roeder et al. 2017). To
        train with it in a loop of your own, call :meth:`initialise` first, as ``fit`` does.
        """
        return self.log_weights(x, draws, context=context, generator=generator).mean(0)

    def limiting_gap(self, x: Tensor) -> Tensor:
        """lim log p(x) − ELBO as σ → 0 at x ``[*batch, D]``, 0 for :class:`JacobianEncoder`: ``[*batch]``, nats."""
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        encoder = self.encoder
        return encoder.limiting_gap(encoder.linearise(x)[1])

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise the ELBO of x ``[n, D]`` by gradient at fixed σ, one draw a point, from :meth:`initialise`.

        The encoder being tied to the flow, this smooths: a linear flow fitted to data of covariance S ends at S + σ²I.

        The arguments are those of :meth:`lvm.vae.model.VAE.fit`.

        Raises:
            ValueError: unusable data.
            NonFiniteObjective: the objective overflowed; the last good weights are kept.
        """
        given = prepare(self, x, training, self._check_support, weights=weights, validation=validation)
        return self._maximise_elbo(given, training, 1, generator)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.prior._initialise(self.decoder.transform._initialise(x, UNKNOWN), UNKNOWN)
