"""Latent-variable models of data with missing entries: bounds on the density of what is observed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.contract import Density
from density.data.joined import joined, parted
from density.evaluating import evaluated
from density.families.categorical import draw_classes
from density.families.composed.observed_entries import ObservedEntries
from density.families.gaussian import GaussianFamily
from density.families.network import with_blanks
from density.families.scale import Scale
from density.initialisation import StartingPoints
from lvm.latent import LatentVariableModel
from lvm.missing.columns import completed
from lvm.missing.observed import Imputation
from lvm.vae.bounded import FittedByBound

SCALARS_AT_ONCE = 2**22  # of draws, rows and features that are held together


class ObservedModel(FittedByBound):
    r"""What a latent-variable model says of rows with missing entries, which nan marks: here, and nowhere else.

    .. math:: \log p(x_o) = \log \int p(z) \prod_{j \in o} p(x_j|z)\, dz
              \ \ge\ E_{q(z|x_o)}\Big[\log \frac{p(z)}{q(z|x_o)} + \sum_{j \in o} \log p(x_j|z)\Big]

    A model of its own with the same prior: a decoder of independent features says of a row what it says of the entries
    that are there (:class:`~density.families.composed.observed_entries.ObservedEntries`), and the encoder sees 0 in the
    place of the others, behind the layer that standardises its input (Nazábal et al. 2020; Mattei & Frellsen 2019). An
    encoder built with ``mask=True`` sees beside which entries are there. So whatever bounds, estimates or integrates
    log p(x) (``elbo``, ``log_density``, all of ``lvm.evidence``) does it for log p(x_o): a density over as many
    dimensions as a row has entries, and 0 nats for a row without any. Of complete rows it says what the model says.

    Entries are taken to be missing at random (:mod:`lvm.missing.observed`). ``fit`` maximises a bound on the observed
    entries. Starts, and nothing else, are taken from data in which entries of other rows stand for missing ones.

    Args:
        model: the model, whose parameters these are; ``model.observed`` is the short way to it.

    Raises:
        TypeError: no latent-variable model, or one whose decoder has features that are not independent given z.

    >>> from lvm.vae.model import VAE
    >>> _ = torch.manual_seed(0)
    >>> model = VAE.gaussian(3, 1, hidden=(8,), mask=True)
    >>> x = torch.tensor([[0.5, torch.nan, -1.0], [torch.nan, torch.nan, torch.nan]])
    >>> from lvm.evidence import evidence
    >>> claim = evidence(model.observed, x)
    >>> claim.kind.value, claim.value[1].abs().item() < 1e-8
    ('exact', True)
    >>> model.observed.impute(x, generator=torch.Generator().manual_seed(0)).mean.isnan().any().item()
    False
    """

    incomplete = True

    def __init__(self, model: LatentVariableModel) -> None:
        super().__init__()
        if not isinstance(model, LatentVariableModel):
            raise TypeError(
                f"ObservedModel takes a model of a prior, an encoder and a decoder; got {type(model).__name__}"
            )
        self.features, self.context_features = model.features, model.context_features
        self.measure = model.measure
        self.model = model
        kind = _GaussianOfObserved if isinstance(model.encoder, GaussianFamily) else _OfObserved
        # In a tuple, and so no parts of this one: no tensor is registered twice.
        self._views = kind(model.encoder, self.features), ObservedEntries(model.decoder)

    @property
    def prior(self) -> Density:  # type: ignore[override]
        """p(z), the model's."""
        return self.model.prior

    @property
    def encoder(self) -> Density:  # type: ignore[override]
        """q(z|x_o)."""
        return self._views[0]

    @property
    def decoder(self) -> ObservedEntries:  # type: ignore[override]
        """p(x_o|z)."""
        return self._views[1]

    @evaluated
    @torch.no_grad()
    def impute(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1000, generator: Generator | None = None
    ) -> Imputation:
        r"""Mean and variance of the missing entries of x ``[n, D]`` given the observed ones, estimated by importance.

        .. math:: E[x_m|x_o] \approx \sum_k \tilde w_k\, x_m^k, \qquad z_k \sim q(z|x_o),\ x^k \sim p(x|z_k)

        with the normalised importance weights w̃ of K draws (Mattei & Frellsen 2019), whose bias is of order 1/K. Where
        an entry is observed: the entry, and 0. Codes of categories have no mean: use :meth:`draw`.

        Raises:
            TypeError, ValueError: as ``log_density``.
        """
        mean, variance = x.clone(), torch.zeros_like(x)
        for own, rows, z, weights in self._weighted_latents(x, context, draws, generator):
            filled = self._generated(z, rows, generator)
            share = weights.softmax(0).unsqueeze(-1)
            mean[own] = torch.where(x[own].isnan(), (share * filled).sum(0), x[own])
            spread = (share * (filled - mean[own]).square()).sum(0)
            variance[own] = torch.where(x[own].isnan(), spread, 0.0)
        return Imputation(mean, variance)

    @evaluated
    @torch.no_grad()
    def draw(
        self,
        x: Tensor,
        n: int,
        *,
        context: Tensor | None = None,
        draws: int = 1000,
        generator: Generator | None = None,
    ) -> Tensor:
        """n draws ``[n, m, D]`` of x ``[m, D]`` given what is observed: multiple imputation, as good as its weights.

        Of K draws of the encoder those are taken that fall to n lots by their importance weights (Rubin 1987, SIR), and
        decoded. They are draws of p(x_m|x_o) for K → ∞; n much below K keeps them apart. Observed entries stay.

        Raises:
            TypeError, ValueError: as ``log_density``.
        """
        n = check_count(n, "n")
        drawn = x.expand(n, *x.shape).clone()
        for own, rows, z, weights in self._weighted_latents(x, context, draws, generator):
            chosen = draw_classes(n, weights.mT.log_softmax(-1), generator, type(self).__name__)
            z = z.gather(0, chosen.unsqueeze(-1).expand(-1, -1, z.shape[-1]))
            drawn[:, own] = torch.where(x[own].isnan(), self._generated(z, rows, generator), x[own])
        return drawn

    def _weighted_latents(
        self, x: Tensor, context: Tensor | None, draws: int, generator: Generator | None
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Rows in blocks, draws of the encoder for them ``[K, b, d]``, and their log-weights ``[K, b]``."""
        draws, start = check_count(draws, "draws"), 0
        for rows in self._data_rows(x, context).split(max(1, SCALARS_AT_ONCE // (draws * self.features))):
            z, log_q = self.encoder.sample_with_log_prob(draws, context=rows, generator=generator)
            yield slice(start, start + len(rows)), rows, z, self._log_joint(rows, z) - log_q
            start += len(rows)

    def _generated(self, z: Tensor, rows: Tensor, generator: Generator | None) -> Tensor:
        """x ~ p(x|z), complete points ``[*, b, D]`` for latents ``[*, b, d]``, at the contexts of rows ``[b, *]``."""
        return self.link.generate(joined(z, parted(rows, self.features)[1]), generator=generator)

    def _embedded(self, context: Tensor) -> Tensor:
        return self.model._embedded(context)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.model._initialise(StartingPoints.of(completed(x.rows, type(self.model).__name__), x.what), context)


class _OfObserved(Density):
    """An encoder as it sees rows with missing entries: with blanks in their place.

    Args:
        density: the encoder.
        seen: how many features of its context are points, the first ones.
    """

    def __init__(self, density: Density, seen: int) -> None:
        super().__init__()
        self.features, self.context_features, self.measure = density.features, density.context_features, density.measure
        self.density = density
        self.seen = seen

    def _filled(self, context: Tensor | None) -> Tensor:
        assert context is not None, "an encoder has one"
        return with_blanks(context, self.seen, self.density)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density.log_prob(x, self._filled(context))

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.density.sample(n, context=self._filled(context), generator=generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        return self.density.sample_with_log_prob(n, context=self._filled(context), generator=generator)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.density.expectation(self._filled(context))


class _GaussianOfObserved(_OfObserved, GaussianFamily):
    """The same of a Gaussian encoder, which stays one, so that its KL keeps its closed form."""

    density: GaussianFamily

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        return self.density.at(self._filled(context))
