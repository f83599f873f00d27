"""Boxes in latent space, and what the values of log p(x, z) at the nodes of a rule say about them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import reduce
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from lvm.evidence.quadrature.rules import GaussKronrod

REACH = 2  # nodes each way, whose second differences count: those of one may vanish by chance among narrow modes
OPTIMISM = 0.5  # of the second difference: the peak of a parabola is at most 1/8 of it above the nearest node
ROUGH = 4.0  # nats of second difference, as of a Gaussian with nodes two standard deviations apart
CAUTION = 1.0  # nats an axis, taken off the mass of a peak that is guessed from its height and second differences
WORTH_TRIMMING = 0.6  # of the volume
SURPRISE = 1.0  # nats by which a known value exceeds all nodes of its box, so that they miss a peak
SHARE = 1e-3  # of the tolerance, that one neglected box may cost


@dataclass(frozen=True, eq=False)
class Rows:
    """Tensors with one row per box."""

    def __getitem__(self, index: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name).index_select(0, index) for field in fields(self)))

    def __add__(self, other: Self) -> Self:
        return self.concatenate([self, other])

    def split(self, size: int) -> list[Self]:
        """Blocks of at most so many rows, of the same memory."""
        columns = [getattr(self, field.name).split(size) for field in fields(self)]
        return [type(self)(*part) for part in zip(*columns, strict=True)]

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class Boxes(Rows):
    """m boxes centre ± half ``[m, d]``, each belonging to a point ``[m]``."""

    point: Tensor
    centre: Tensor
    half: Tensor

    @property
    def log_volume(self) -> Tensor:
        return (2 * self.half).log().sum(-1)

    def halved(self, axes: Tensor) -> tuple[Boxes, Tensor]:
        """Each cut in two along the axes where ``[m, d]`` is true: 2ᵈ children of each box, and which there are."""
        d = axes.shape[1]
        number = torch.arange(2**d, device=axes.device).unsqueeze(1)
        upper = number.bitwise_right_shift(torch.arange(d, device=axes.device)) % 2  # of child and axis: 0 or 1
        step = torch.where(axes, self.half / 2, 0.0)
        centre = self.centre.unsqueeze(1) + (2 * upper - 1) * step.unsqueeze(1)
        boxes = Boxes(
            self.point.repeat_interleave(2**d), centre.flatten(0, 1), (self.half - step).repeat_interleave(2**d, 0)
        )
        return boxes, (axes.unsqueeze(1) | (upper == 0)).all(2).flatten()

    def beyond_resolution(self) -> Tensor:
        """Whether a box is too small to be cut in floating point: ``[m]``."""
        return (self.half < 1e-13 * self.centre.abs().clamp_min(1e-200)).any(-1)


def pieces(axes: Tensor) -> Tensor:
    """How many boxes each of those cut along the axes ``[m, d]`` becomes: ``[m]``."""
    return 2 ** axes.sum(1)


@dataclass(frozen=True, eq=False)
class Assessment(Rows):
    """Assessment of m boxes by a rule; masses and errors are logarithms of integrals over the box.

    Attributes:
        point, centre, half: the box.
        mass: log of the Kronrod value of the integral.
        error: log of an estimate of its error.
        optimistic: log of the mass, if the highest peak that may hide between nodes filled the box.
        peak: the highest log-joint at a node.
        guess: a cautious log-mass that holds for peaks much narrower than the box.
        negligible: no node is worth a closer look.
        trimmed_centre, trimmed_half: the part of the box that has nodes worth a look.
        outside: log-mass of the rest.
        rough: axes along which the nodes do not resolve the integrand.
        cut: axes along which a resolved box is best cut.
        mean: of the integrand as a density over the box.
        information: E[∇f ∇fᵀ] of the log-joint f under that density: the inverse covariance of a Gaussian.
    """

    point: Tensor
    centre: Tensor
    half: Tensor
    mass: Tensor
    error: Tensor
    optimistic: Tensor
    peak: Tensor
    guess: Tensor
    negligible: Tensor
    trimmed_centre: Tensor
    trimmed_half: Tensor
    outside: Tensor
    rough: Tensor
    cut: Tensor
    mean: Tensor
    information: Tensor

    @property
    def boxes(self) -> Boxes:
        return Boxes(self.point, self.centre, self.half)

    @property
    def trimmed(self) -> Boxes:
        return Boxes(self.point, self.trimmed_centre, self.trimmed_half)

    @property
    def worth_trimming(self) -> Tensor:
        return self.trimmed.log_volume < self.boxes.log_volume + math.log(WORTH_TRIMMING)


@dataclass(frozen=True, eq=False)
class Leaves(Rows):
    """Boxes that are integrated as they are, and what their assessment says that is needed later.

    What belongs together lies together, so that few indices move all of it.

    Attributes:
        point: ``[m]``.
        masses: log of the integral and of its error, ``[m, 2]``.
        axes: of every axis centre, half, trimmed centre and half, mean, cut (0 or 1), information: ``[m, d, 6 + d]``.
    """

    point: Tensor
    masses: Tensor
    axes: Tensor

    @staticmethod
    def none(dimensions: int, like: Tensor) -> Leaves:
        """No box yet, in the dtype and on the device of a tensor."""
        point = torch.zeros(0, dtype=torch.long, device=like.device)
        return Leaves(point, like.new_empty(0, 2), like.new_empty(0, dimensions, 6 + dimensions))

    @staticmethod
    def of(found: Assessment) -> Leaves:
        """Those boxes of which nodes do not tell may hold as much more as can hide between them."""
        error = torch.where(found.rough.any(1), found.optimistic, found.error)
        numbers = found.centre, found.half, found.trimmed_centre, found.trimmed_half, found.mean, found.cut.to(error)
        axes = torch.cat([torch.stack(numbers, 2), found.information], 2)
        return Leaves(found.point, torch.stack([found.mass, error], 1), axes)

    @property
    def mass(self) -> Tensor:
        return self.masses[:, 0]

    @property
    def error(self) -> Tensor:
        return self.masses[:, 1]

    @property
    def centre(self) -> Tensor:
        return self.axes[..., 0]

    @property
    def half(self) -> Tensor:
        return self.axes[..., 1]

    @property
    def boxes(self) -> Boxes:
        return Boxes(self.point, self.centre, self.half)

    @property
    def trimmed(self) -> Boxes:
        return Boxes(self.point, self.axes[..., 2], self.axes[..., 3])

    @property
    def mean(self) -> Tensor:
        return self.axes[..., 4]

    @property
    def cut(self) -> Tensor:
        return self.axes[..., 5] > 0

    @property
    def information(self) -> Tensor:
        return self.axes[..., 6:]


def assess(
    boxes: Boxes, log_joint: Tensor, rule: GaussKronrod, low: Tensor, tolerance: float, seeds: Tensor, known: Tensor
) -> Assessment:
    r"""Read the values at the nodes of each box.

    A node is worth a closer look where the mass of the box would matter if the log-joint all over it were the node's
    plus half the second differences along the axes, the largest of a few nodes around it. For a parabola of any width
    the log-joint between equidistant nodes exceeds the nearest node's by at most an eighth of them, so a peak however
    narrow is seen from the nodes around it; what can be missed is a peak on a log-joint that is flat around it, and
    then the seeds help.

    Args:
        boxes: m boxes.
        log_joint: ``[m, N]``.
        rule: the rule of the nodes.
        low: a cautious log p(x) for each box, ``[m]``; −inf if there is none.
        tolerance: nats.
        seeds, known: places ``[m, s, d]`` where the log-joint is known, and its values ``[m, s]``.
    """
    grid = rule.grid(log_joint)
    axes = range(1, grid.ndim)
    steps = [grid.diff(dim=j) for j in axes]
    bends = [_bend(step, j) for j, step in zip(axes, steps, strict=True)]
    hopeful = grid
    for j, bend in zip(axes, bends, strict=True):
        hopeful = hopeful.add(_largest_near(bend, j), alpha=OPTIMISM)
    hopeful = hopeful.flatten(1)
    log_volume = boxes.log_volume
    peak = log_joint.amax(1)

    # A Gaussian peak at a node has the mass of its height times s √(2π / second difference) along each axis, not more
    # than about its weight; so a cautious sum shrinks the weights.
    narrowing = reduce(torch.add, [bend.log1p() for bend in bends]).flatten(1)
    log_weighted = log_joint + rule.weights.log()
    guess = log_weighted.sub(narrowing, alpha=0.5).logsumexp(1) + boxes.half.log().sum(-1) - CAUTION * rule.dimensions
    floor = torch.maximum(low, guess) + math.log(tolerance * SHARE) - log_volume

    inside = ((seeds - boxes.centre.unsqueeze(1)).abs() <= boxes.half.unsqueeze(1)).all(-1)
    reached = torch.where(inside, known, -math.inf).amax(1)
    surprised = reached > torch.maximum(peak + SURPRISE, floor)
    worth = hopeful > floor.unsqueeze(1)
    trimmed_low, trimmed_high = _bounding(rule, worth)
    trimmed_low, trimmed_high = (
        torch.where(surprised.unsqueeze(1), end, edge)
        for end, edge in ((-torch.ones_like(trimmed_low), trimmed_low), (torch.ones_like(trimmed_low), trimmed_high))
    )
    kept = _within(rule, trimmed_low, trimmed_high)

    top = peak.nan_to_num(neginf=0.0)
    density = (log_joint - top.unsqueeze(1)).exp()
    weighted = density * rule.weights
    scale = boxes.half.log().sum(-1) + top
    total = weighted.sum(1)
    residual = torch.linalg.vector_norm((density @ rule.null.flatten(0, 1).mT).unflatten(1, rule.null.shape[:2]), dim=2)
    mean = (weighted @ rule.nodes) / total.clamp_min(1e-300).unsqueeze(1)
    slope = torch.stack([_slope(step, rule.axis, j).flatten(1) for j, step in zip(axes, steps, strict=True)], 1)
    weight = total.clamp_min(1e-300)[:, None, None] * boxes.half.unsqueeze(1) * boxes.half.unsqueeze(2)
    information = (slope * weighted.unsqueeze(1)) @ slope.mT / weight
    rough = torch.stack([((rule.grid(worth) & (bend > ROUGH)).flatten(1).any(1)) for bend in bends], 1)
    return Assessment(
        point=boxes.point,
        centre=boxes.centre,
        half=boxes.half,
        mass=total.log() + scale,
        error=_kronrod_error(residual, total.unsqueeze(1)).sum(1).log() + scale,
        optimistic=torch.maximum(hopeful.amax(1), reached) + log_volume,
        peak=peak,
        guess=guess,
        negligible=~worth.any(1) & ~surprised,
        trimmed_centre=boxes.centre + boxes.half * (trimmed_low + trimmed_high) / 2,
        trimmed_half=boxes.half * (trimmed_high - trimmed_low) / 2,
        outside=weighted.masked_fill(kept, 0.0).sum(1).log() + scale,
        rough=rough | surprised.unsqueeze(1),
        cut=residual >= 0.25 * residual.amax(1, keepdim=True),
        mean=boxes.centre + boxes.half * mean,
        information=information,
    )


def _kronrod_error(residual: Tensor, total: Tensor) -> Tensor:
    """From the size δ of the null rules: δ itself at a kink, and (200 δ)^1.5 relative where that is less (QUADPACK)."""
    relative = residual / total.clamp_min(1e-300)
    return residual * (200**1.5 * relative.sqrt()).clamp_max(1.0)


def _bend(step: Tensor, axis: int) -> Tensor:
    """|second difference| along an axis of the differences from node to node, at the ends that of the neighbour; 0
    beside −inf, where the density ends."""
    bend = step.diff(dim=axis).abs().nan_to_num(nan=0.0, posinf=0.0)
    first, last = bend.narrow(axis, 0, 1), bend.narrow(axis, bend.shape[axis] - 1, 1)
    return torch.cat([first, bend, last], axis)


def _largest_near(bend: Tensor, axis: int) -> Tensor:
    """The largest second difference of each node and its neighbours along an axis."""
    wide = bend.movedim(axis, -1)
    rows = functional.max_pool1d(wide.reshape(-1, 1, wide.shape[-1]), 2 * REACH + 1, stride=1, padding=REACH)
    return rows.reshape(wide.shape).movedim(-1, axis)


def _slope(step: Tensor, places: Tensor, axis: int) -> Tensor:
    """Derivative along an axis of differences from place to place, exact for parabolas inside and one-sided at the
    ends; 0 beside −inf."""
    gaps = places.diff().view(-1, *[1] * (step.ndim - 1 - axis))
    slope, last = step / gaps, len(gaps) - 1
    inner = slope.narrow(axis, 1, last).lerp(slope.narrow(axis, 0, last), gaps[1:] / (gaps[1:] + gaps[:-1]))
    every = torch.cat([slope.narrow(axis, 0, 1), inner, slope.narrow(axis, last, 1)], axis)
    return every.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _bounding(rule: GaussKronrod, worth: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box of node coordinates ``[m, d]`` that holds the marked nodes and their neighbours."""
    grid = rule.grid(worth)
    size = rule.axis.numel()
    edges = torch.cat([-torch.ones_like(rule.axis[:1]), rule.axis, torch.ones_like(rule.axis[:1])])
    low, high = [], []
    for j in range(1, grid.ndim):
        marked = grid.movedim(j, 1).reshape(grid.shape[0], size, -1).any(2).to(torch.uint8)
        low.append(edges[marked.argmax(1)])
        high.append(edges[size + 1 - marked.flip(1).argmax(1)])
    return torch.stack(low, 1), torch.stack(high, 1)


def _within(rule: GaussKronrod, low: Tensor, high: Tensor) -> Tensor:
    """Which nodes lie in boxes [low, high] ``[m, d]`` of node coordinates: ``[m, N]``."""
    along = (rule.axis >= low.unsqueeze(2)) & (rule.axis <= high.unsqueeze(2))
    within = along[:, 0]
    for j in range(1, rule.dimensions):
        within = (within.unsqueeze(2) & along[:, j].unsqueeze(1)).flatten(1)
    return within
