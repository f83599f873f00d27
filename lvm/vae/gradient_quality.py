"""The quality of a gradient estimator on a model and data: mean, bias, variance and signal-to-noise ratio."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from tqdm import tqdm

from density.checks import check_context, check_count, check_data, check_points
from density.evaluating import evaluating
from lvm.latent import LatentVariableModel
from lvm.vae.estimator import GradientEstimator

ROWS_AT_ONCE = 2**16  # latent draws that pass through the networks together
GRADIENTS_AT_ONCE = 2**23  # numbers in the gradients held at one time

Sampler = Callable[[int], tuple[Tensor, Tensor]]  # repeats -> gradients [repeats, P], bounds [repeats]


@dataclass(frozen=True, eq=False)
class GradientQuality:
    """Statistics of one gradient estimate, of the mean bound over the points, from independent repeats.

    Vectors are ``[P]``, float64, over all entries of the chosen parameters in their order.

    Attributes:
        mean: of the gradient.
        variance: of one gradient.
        reference: the gradient it was compared with, or None.
        bound: mean of the bound, nats per point.
        bound_error: its standard error.
        repeats: R.
        names: the parameters.
        sizes: number of entries of each.
        vectorised: whether repeats ran in batch; if not, the model's code does not allow it and a loop was used.
    """

    mean: Tensor
    variance: Tensor
    reference: Tensor | None
    bound: float
    bound_error: float
    repeats: int
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    vectorised: bool

    @property
    def standard_error(self) -> Tensor:
        """Of the mean: √(variance / R)."""
        return (self.variance / self.repeats).sqrt()

    @property
    def bias(self) -> Tensor:
        """Mean − reference.

        Raises:
            ValueError: there is no reference.
        """
        if self.reference is None:
            raise ValueError("bias needs a reference gradient; give gradient_quality one, exact or of many draws")
        return self.mean - self.reference

    @property
    def deviation(self) -> Tensor:
        """The bias in units of its standard error: about standard normal if there is none; 0 where both are 0."""
        bias = self.bias
        return torch.where(bias == 0, bias, bias / self.standard_error)

    @property
    def signal(self) -> Tensor:
        """What the estimator should find: the reference where there is one, otherwise its own mean."""
        return self.mean if self.reference is None else self.reference

    @property
    def signal_to_noise(self) -> Tensor:
        """|signal| / standard deviation of one gradient, entry by entry.

        Without a reference the signal is the mean of R noisy gradients: a ratio below 1/√R cannot be told from 0.
        """
        return self.signal.abs() / self.variance.sqrt()

    @property
    def total_variance(self) -> float:
        """Trace of the covariance: E‖g − E g‖²."""
        return self.variance.sum().item()

    @property
    def total_signal_to_noise(self) -> float:
        """‖signal‖ / √(total variance)."""
        return _ratio(self.signal.norm().item(), math.sqrt(self.total_variance))

    def rows(self) -> list[dict[str, float | str]]:
        """A plain record for each parameter tensor, and one for all: norms over its entries, for a data frame."""
        ends = list(accumulate(self.sizes))
        parts = [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]
        records = [self._record(name, part) for name, part in zip(self.names, parts, strict=True)]
        return [*records, self._record("all", slice(0, ends[-1]))]

    def _record(self, name: str, part: slice) -> dict[str, float | str]:
        variance = self.variance[part].sum().item()
        record: dict[str, float | str] = {
            "parameter": name,
            "size": part.stop - part.start,
            "mean": self.mean[part].norm().item(),
            "standard error": math.sqrt(variance / self.repeats),
            "variance": variance,
            "signal to noise": _ratio(self.signal[part].norm().item(), math.sqrt(variance)),
        }
        if self.reference is not None:
            record["bias"] = self.bias[part].norm().item()
            record["largest deviation"] = self.deviation[part].abs().max().item()
        return record


def gradient_quality(
    estimator: GradientEstimator,
    model: LatentVariableModel,
    x: Tensor,
    *,
    context: Tensor | None = None,
    repeats: int = 1000,
    parameters: Iterable[nn.Parameter] | None = None,
    reference: Tensor | None = None,
    generator: Generator | None = None,
    progress: bool = True,
) -> GradientQuality:
    r"""Draw an estimator's gradient R times at the same model and points, and describe it.

    The gradient is that of the mean bound over the points, what a training step on them as one batch would use.
    Repeats run in batch (``torch.func.vmap`` over independent draws), in chunks of bounded memory; a model whose code
    vmap cannot follow is differentiated once a repeat. The model is in evaluation mode, so that the noise is the
    estimator's alone and not that of dropout.

    Args:
        x: points ``[*batch, D]``.
        context: contexts ``[*batch, C]`` of a conditional model.
        repeats: R, at least 2.
        parameters: of the model, all trainable ones if None; for the encoder's ``model.encoder.parameters()``.
        reference: the gradient to compare with, flat ``[P]`` in the same order, e.g. of the bound in closed form. It is
            also the signal of the signal-to-noise ratio, which the mean of a noisy estimator may not resolve.
        progress: show a progress bar, if there is a terminal to show it on.

    Returns:
        A :class:`GradientQuality`. Nothing accumulates in ``.grad``. Cost R times a gradient; memory independent of R.

    Raises:
        ValueError: repeats < 2; no points, or points that are not finite; a parameter that is not the model's, or
            none; a reference of another size; or a gradient that is not finite.
        TypeError: see :class:`~lvm.vae.gradients.GradientEstimator`.

    >>> from lvm import LinearVAE
    >>> from lvm.vae.gradients import StickingTheLanding
    >>> model = LinearVAE(3, 1, generator=torch.Generator().manual_seed(0)).double()
    >>> model.set_optimal_encoder()  # the posterior: every draw gives the same gradient, 0
    >>> x = torch.ones(4, 3, dtype=torch.float64)
    >>> encoder = model.encoder.parameters()
    >>> gradient_quality(StickingTheLanding(), model, x, repeats=10, parameters=encoder).total_variance < 1e-20
    True
    """
    repeats = check_count(repeats, "repeats")
    if repeats < 2:
        raise ValueError("gradient_quality needs at least 2 repeats to have a variance; got 1")
    if not isinstance(estimator, GradientEstimator):
        raise TypeError(f"gradient_quality expects a GradientEstimator; got {type(estimator).__name__}")
    check_points(x, model.features, "gradient_quality")
    check_data(x.reshape(-1, model.features), model.features, "gradient_quality")
    check_context(context, model.context_features, "gradient_quality", reference=x)
    chosen = _chosen(model, parameters)
    sizes = tuple(tensor.numel() for tensor in chosen.values())
    if reference is not None:
        if reference.shape != (sum(sizes),):
            raise ValueError(
                f"gradient_quality expects a flat reference [{sum(sizes)}], the entries of {', '.join(chosen)}; "
                f"got {list(reference.shape)}"
            )
        reference = reference.detach().double()
    batched, looped = _samplers(estimator, model, x, context, list(chosen), generator)
    points = max(1, x.numel() // x.shape[-1])
    chunk = max(1, min(repeats, ROWS_AT_ONCE // (estimator.draws * points), GRADIENTS_AT_ONCE // sum(sizes)))
    total = _Moments()
    sampler = batched
    bar = tqdm(total=repeats, desc="gradients", leave=False, disable=None if progress else True)
    with bar, evaluating(model):
        while total.count < repeats:
            size = min(chunk, repeats - total.count)
            state = None if generator is None else generator.get_state()
            try:
                gradients, bounds = sampler(size)
            except RuntimeError:
                if sampler is looped:
                    raise
                if generator is not None and state is not None:
                    generator.set_state(state)
                sampler = looped  # where the error is not vmap's, it comes again
                gradients, bounds = sampler(size)
            samples = torch.cat([gradients, bounds.unsqueeze(-1)], -1).double()
            if not bool(samples.isfinite().all()):
                repeat = total.count + int((~samples.isfinite().all(-1)).nonzero()[0])
                raise ValueError(f"gradient or bound of repeat {repeat} is not finite; the model's densities overflow")
            total.add(samples)
            bar.update(size)
    variance = total.squares / (repeats - 1)
    return GradientQuality(
        mean=total.mean[:-1],
        variance=variance[:-1],
        reference=reference,
        bound=total.mean[-1].item(),
        bound_error=math.sqrt(variance[-1].item() / repeats),
        repeats=repeats,
        names=tuple(chosen),
        sizes=sizes,
        vectorised=sampler is batched,
    )


class _MeanBound(nn.Module):
    """The mean of an estimator over the points, as a module: its parameters can then be swapped for others."""

    def __init__(
        self,
        estimator: GradientEstimator,
        model: LatentVariableModel,
        x: Tensor,
        context: Tensor | None,
        generator: Generator | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.estimator = estimator
        self.points = (x.detach(), generator, context)

    def forward(self) -> Tensor:
        return self.estimator(self.model, *self.points).mean()


def _samplers(
    estimator: GradientEstimator,
    model: LatentVariableModel,
    x: Tensor,
    context: Tensor | None,
    names: list[str],
    generator: Generator | None,
) -> tuple[Sampler, Sampler]:
    """Gradients and bounds of that many repeats: in one batch, and one after the other."""
    module = _MeanBound(estimator, model, x, context, generator)
    tensors = {name: tensor.detach() for name, tensor in module.named_parameters()}
    chosen = {f"model.{name}": tensors.pop(f"model.{name}") for name in names}

    def mean_bound(chosen: dict[str, Tensor]) -> Tensor:
        return torch.as_tensor(functional_call(module, {**tensors, **chosen}, ()))

    def one(_: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        gradients, bound = grad_and_value(mean_bound)(chosen)
        return gradients, bound

    def batched(repeats: int) -> tuple[Tensor, Tensor]:
        gradients, bounds = vmap(one, randomness="different")(x.new_empty(repeats))
        return torch.cat([gradient.reshape(repeats, -1) for gradient in gradients.values()], -1), bounds

    def looped(repeats: int) -> tuple[Tensor, Tensor]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in chosen.items()}
        rows, bounds = [], []
        for _ in range(repeats):
            bound = mean_bound(leaves)
            gradients = torch.autograd.grad(bound, list(leaves.values()), allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
            bounds.append(bound.detach())
        return torch.stack(rows), torch.stack(bounds)

    return batched, looped


def _chosen(model: LatentVariableModel, parameters: Iterable[nn.Parameter] | None) -> dict[str, nn.Parameter]:
    named = dict(model.named_parameters())
    if parameters is None:
        chosen = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
    else:
        names = {id(tensor): name for name, tensor in named.items()}
        chosen = {}
        for position, tensor in enumerate(parameters):
            if id(tensor) not in names:
                raise ValueError(f"parameter {position}, {list(tensor.shape)}, is none of {type(model).__name__}'s")
            chosen[names[id(tensor)]] = tensor
    if not chosen:
        raise ValueError(f"gradient_quality needs at least one parameter of {type(model).__name__}; got none")
    return chosen


class _Moments:
    """Mean and centred sum of squares, merged chunk by chunk without subtracting large numbers (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, samples: Tensor) -> None:
        count = samples.shape[0]
        mean = samples.mean(0)
        squares = (samples - mean).square().sum(0)
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        step = mean - self.mean
        self.squares = self.squares + squares + step.square() * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total


def _ratio(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf if signal > 0 else math.nan
    return signal / noise
