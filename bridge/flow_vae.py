r"""A flow as a VAE: its encoder and its decoder are deltas.

With z = f(x) and g = f⁻¹, take q(z|x) = δ(z − f(x)) and p(x|z) = δ(x − g(z)). Both log-densities are infinite; their
difference is not. Let the deltas be limits of Gaussians that are images of one another, N(f(x), σ² J Jᵀ) and
N(g(z), σ² I) with J = ∂f/∂x: at z = f(x)

.. math:: \log p(x|z) - \log q(z|x) = -\tfrac12 \log\det(2\pi\sigma^2 I) + \tfrac12 \log\det(2\pi\sigma^2 J J^\top)
          = \log|\det J|

for every σ, so that the log-weight log p(z) + log|det J| is the change-of-variables formula: the ELBO is the
log-likelihood, and maximising one is maximising the other (Nielsen et al. 2020, SurVAE Flows, section 2.2).
"""

from __future__ import annotations

from torch import Generator, Tensor

from density.checks import check_count
from density.data.joined import parted
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure
from density.support import Step, Support, preimage
from flows.flow import Flow
from flows.transform import Transform
from lvm.layered import ExactLayeredModel
from lvm.links import Link


class DeltaLink(Link):
    r"""The link of an invertible map: encoder δ(z − f(x)), decoder δ(x − g(z)), log-ratio log|det ∂f/∂x|.

    Tight and deterministic. Conditional where the transform is: z = f(x; c). Cost: that of the transform.

    Args:
        transform: data to latent.
        features: D; only needed for a transform that takes any number of features.
        context_features: C; only needed where the latent's density is conditional and the transform is not.

    Raises:
        TypeError: not a Transform.
        ValueError: the transform's width is unknown or another one, or its context is.

    >>> import torch
    >>> from flows import Affine
    >>> link = DeltaLink(Affine(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 4.0])))
    >>> z, log_ratio = link.infer(torch.tensor([[3.0, 5.0]]))
    >>> link.generate(z[0])
    tensor([[3., 5.]])
    """

    latent_measure = Measure.LEBESGUE
    tight = True
    deterministic = True

    def __init__(self, transform: Transform, features: int | None = None, context_features: int | None = None) -> None:
        super().__init__()
        features = None if features is None else check_count(features, "DeltaLink: features")
        if not isinstance(transform, Transform):
            raise TypeError(f"DeltaLink takes a Transform; got {type(transform).__name__}")
        own = transform.context_features
        context_features = (
            own if context_features is None else check_count(context_features, "context_features", least=0)
        )
        if own not in (0, context_features):
            raise ValueError(
                f"DeltaLink: {type(transform).__name__} needs a context of {own} features; got {context_features=}"
            )
        width = features if transform.features is None else transform.features
        if width is None:
            raise ValueError(
                f"DeltaLink needs to know the number of features; {type(transform).__name__} takes any. "
                "Say which: DeltaLink(transform, features)"
            )
        if features not in (None, width):
            raise ValueError(f"DeltaLink: {type(transform).__name__} has {width} features; got features={features}")
        self.features = self.latent_features = width
        self.context_features = context_features
        self.transform = transform

    @property
    def support(self) -> Support | None:
        return preimage([Step(type(self.transform).__name__, self.transform.domain)])

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        z, log_ratio = self.infer_once(x)
        return z.expand(draws, *z.shape), log_ratio.expand(draws, *log_ratio.shape)

    def infer_once(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        z, log_ratio = self.transform(*self._arguments(x))
        return z, log_ratio

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        z, context = self._arguments(z)
        self.transform.check_image(z)
        return self.transform.inverse(z, context)[0]

    def _arguments(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points and contexts, each a tensor of its own in memory, as a flow has them."""
        x, context = parted(rows, self.features)
        if context is None:
            return x, None
        return x.contiguous(), context.contiguous() if self.transform.context_features else None

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        return self.transform._initialise(x, context if self.transform.context_features else UNKNOWN)


class FlowVAE(ExactLayeredModel):
    """A flow, conditional or not, as the VAE that it is: prior = base, encoder and decoder the deltas of its transform.

    Shares the flow's parameters. Every log-weight is log p(x), the gap is 0, and ``fit``, which maximises the ELBO, is
    maximum likelihood, from the same data-dependent start as ``Flow.fit``. Both evaluate the same operations in the
    same order, forwards and backwards: where these are deterministic, as on the CPU, value, gradient and fit are equal
    to the last bit. That the ELBO of the decoder's own Jacobian is the same number, up to rounding, is the theorem that
    the tests prove.

    Raises:
        TypeError: not a Flow.

    >>> import torch
    >>> from flows import linear_flow
    >>> flow = linear_flow(3)
    >>> vae = FlowVAE(flow)
    >>> x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(vae.elbo(x, draws=10), flow.log_prob(x))
    True
    """

    def __init__(self, flow: Flow) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"FlowVAE takes a Flow; got {type(flow).__name__}")
        link = DeltaLink(flow.transform, flow.features, flow.context_features)
        super().__init__(flow.base, link, "tight ELBO of delta encoder and decoder")
