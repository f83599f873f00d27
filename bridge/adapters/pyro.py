"""Pyro programs with one local latent (Bingham et al. 2019): a model and a guide as a VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from bridge.adapters.calls import Calls, seeded
from bridge.adapters.distribution import FromDistribution, is_discrete
from bridge.adapters.functions import AdaptedVAE
from density.checks import check_count, find_reference
from density.contract import Density
from density.families.gaussian import StandardNormal
from density.measure import Measure

Given = tuple[str, tuple[int, ...]]  # a site, and the shape of its values


class _Site(nn.Module):
    """The distribution of a site of a program, run on as many rows as there are contexts."""

    def __init__(self, program: nn.Module, site: str, event_shape: tuple[int, ...], given: Given | None = None) -> None:
        super().__init__()
        self.program = program
        self.site = site
        self.event_shape = event_shape
        self.given = given

    def forward(self, context: Tensor | None = None) -> Distribution:
        if context is None:
            context = torch.zeros(1, *self.event_shape)
            like = find_reference(self.program)
            context = context if like is None else context.to(like)
        if self.given is None:
            return _sites(self.program, context.reshape(-1, *self.event_shape))[self.site]
        site, shape = self.given
        rows = context.new_zeros(len(context), *self.event_shape)
        return _sites(self.program, rows, {site: context.reshape(-1, *shape)})[self.site]


def from_pyro(
    model: Callable[..., Any], guide: Callable[..., Any], event_shape: int | Sequence[int] | None = None
) -> AdaptedVAE:
    """A Pyro model and guide over data x, with one latent for each row, as a VAE.

    The prior is the latent's distribution in the model, the encoder that in the guide, the decoder the observed site's
    given the latent. Scales of sites (such as a KL weight, or that of a plate that subsamples) are not part of p(x).
    Modules that the programs belong to, or name, are parts of the VAE. Each evaluation runs a program once.

    Args:
        model: called with data ``[n, *event_shape]``.
        guide: called so too.
        event_shape: of one row of data; what the observed site says, if None and the model runs without knowing it.

    Raises:
        ValueError: no latent or several, or several observed sites; or the width is not to be seen.
    """
    programs = [program if isinstance(program, nn.Module) else Calls(program) for program in (model, guide)]
    shape = _event_shape(programs[0], event_shape)
    with torch.no_grad():
        like = find_reference(programs[0])
        rows = torch.zeros(1, *shape)
        rows = rows if like is None else rows.to(like)
        trace, inferred = _trace(programs[0], rows), _trace(programs[1], rows)
    latent, observed = _latent(trace), _observed(trace)
    if len(latent) != 1 or len(observed) != 1 or _latent(inferred) != latent:
        raise ValueError(
            "from_pyro takes a model with one latent and one observed site, and a guide of that latent; got latents "
            f"{latent}, observed {observed}, and {_latent(inferred)} in the guide"
        )
    fn = trace.nodes[latent[0]]["fn"]
    if (fn.batch_shape + fn.event_shape)[:1] != (1,):
        raise ValueError(
            f"from_pyro: {latent[0]!r} is no latent of a row: its shape for one row of data is "
            f"{list(fn.batch_shape + fn.event_shape)}. A latent that all rows share is a parameter, "
            "and has no place in log p(x) of a row"
        )
    z_shape = tuple((fn.batch_shape + fn.event_shape)[1:])
    width, features = torch.Size(z_shape).numel(), torch.Size(shape).numel()
    prior: Density = FromDistribution(_Site(programs[0], latent[0], shape), width)
    if _is_standard(fn):
        prior = StandardNormal(width).to(rows)
    likelihood = trace.nodes[observed[0]]["fn"]
    measure = Measure.COUNTING if is_discrete(likelihood) else Measure.LEBESGUE
    encoder = FromDistribution(_Site(programs[1], latent[0], shape), width, features)
    decoder = FromDistribution(_Site(programs[0], observed[0], shape, (latent[0], z_shape)), features, width, measure)
    return AdaptedVAE(prior, encoder, decoder, f"pyro's sites {latent[0]!r} and {observed[0]!r}, unscaled")


def _trace(program: Callable[..., Any], rows: Tensor, values: dict[str, Tensor] | None = None) -> Any:  # noqa: ANN401
    """A run of a program on rows of data, with given values of its sites; no global random state moves."""
    from pyro import poutine

    run = program if values is None else poutine.condition(program, data=values)
    with seeded(Generator(), rows.device):
        return poutine.trace(run).get_trace(rows)


def _sites(
    program: Callable[..., Any], rows: Tensor, values: dict[str, Tensor] | None = None
) -> dict[str, Distribution]:
    trace = _trace(program, rows, values)
    return {name: node["fn"] for name, node in trace.nodes.items() if node["type"] == "sample"}


def _latent(trace: Any) -> list[str]:  # noqa: ANN401
    def indexes(name: str) -> bool:  # a plate draws the indices of its rows
        return type(trace.nodes[name]["fn"]).__name__ == "_Subsample"

    return [name for name in trace.stochastic_nodes if not indexes(name)]


def _observed(trace: Any) -> list[str]:  # noqa: ANN401
    def said(name: str) -> bool:  # a deterministic site is held as an observed one
        return bool(trace.nodes[name].get("infer", {}).get("_deterministic"))

    return [name for name in trace.observation_nodes if not said(name)]


def _event_shape(model: Callable[..., Any], event_shape: int | Sequence[int] | None) -> tuple[int, ...]:
    if isinstance(event_shape, int):
        return (check_count(event_shape, "event_shape"),)
    if event_shape is not None:
        return tuple(check_count(size, "event_shape") for size in event_shape)
    try:
        with torch.no_grad():
            trace = _trace(model, torch.zeros(1, 1))
        fn = trace.nodes[_observed(trace)[0]]["fn"]
        return tuple((fn.batch_shape + fn.event_shape)[1:])
    except Exception as error:  # whatever a program does with data of another shape
        raise ValueError(
            "from_pyro: the model does not run on data of an unknown shape; pass event_shape=, the shape of one row"
        ) from error


def _is_standard(fn: Distribution) -> bool:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, Normal) and not fn.mean.requires_grad and bool(((fn.mean == 0) & (fn.stddev == 1)).all())
