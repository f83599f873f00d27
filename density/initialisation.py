"""Starts from data: what a model takes from data before it is trained, and how data in other units is told.

A model learns in units that suit its parameters, and data come in any. So some parts take mean and standard deviation
from data (:class:`Standardisation`, activation norms, the scale of a half-normal), each from the data as the parts
before it leave it, and :meth:`Initialisable.initialise` is the one way to all of them. They take them once: a second
fit goes on from where the first ended, and is refused where its data is in other units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from density.checks import check_contexts, check_count, check_rows, find_reference
from density.evaluating import evaluating
from density.families.network import VIEWS, InputLayer
from density.linalg.moments import centre, is_constant
from density.rebuildable import Rebuildable

INITIALISATION_ROWS = 4096
MOVED = 5  # standard deviations that a mean may move
STRETCHED = 4  # factor by which a standard deviation may change
FEW = 30  # rows; the deviation of as many normal draws is below a quarter of theirs with probability 1e-12


def initialisation_rows(n: int) -> slice:
    """Which of n rows data-dependent starts are made from: up to 4096 of them, evenly spaced."""
    return slice(None, None, -(-n // INITIALISATION_ROWS))


class StartingPoints:
    """Points ``[n, D]`` as they reach a part of a model: data, or what the parts before it make of data.

    They are made when a part first asks for them, by when those before it have been set, and not at all if none does.

    Args:
        make: makes the points; None where nobody knows them before training, as those of an encoder.
        fixed: no parameter has a say in them, so that data in other units can be told by them. What trained layers make
            of data may be anything.
        latent: an encoder drew them. Their units are the model's own, and no data could change them.
        rows: of data, all of its rows, where ``make`` picks some of them.
        what: what they are, for errors.
    """

    def __init__(
        self,
        make: Callable[[], Tensor] | None,
        *,
        fixed: bool = True,
        latent: bool = False,
        rows: Tensor | None = None,
        what: str = "data",
    ) -> None:
        self._make = make
        self._rows = rows
        self.fixed = fixed
        self.latent = latent
        self.what = what

    @staticmethod
    def of(x: Tensor, what: str = "data") -> StartingPoints:
        """Data ``[n, D]``, of which up to 4096 rows, evenly spaced, go through the parts of the model."""
        return StartingPoints(lambda: x[initialisation_rows(len(x))], rows=x, what=what)

    @staticmethod
    def all(x: Tensor, what: str = "data") -> StartingPoints:
        """Data of which every row goes through."""
        return StartingPoints(lambda: x, what=what)

    @property
    def known(self) -> bool:
        """Whether there are points."""
        return self._make is not None

    @cached_property
    def points(self) -> Tensor:
        """The points."""
        assert self._make is not None, "a part asked for points that nobody knows"
        return self._make()

    @property
    def rows(self) -> Tensor:
        """All rows of data; elsewhere the points."""
        return self.points if self._rows is None else self._rows

    def mapped(self, function: Callable[[Tensor], Tensor]) -> StartingPoints:
        """Their images under a function without parameters."""
        return self._images(function, self.fixed)

    def through(self, part: nn.Module, function: Callable[[Tensor], Tensor]) -> StartingPoints:
        """Their images under what a part of the model makes of them."""
        return self._images(function, self.fixed and not any(True for _ in part.parameters()))

    def encoded(self, draw: Callable[[Tensor], Tensor]) -> StartingPoints:
        """Latents that an encoder draws for them."""
        return StartingPoints(lambda: draw(self.points), fixed=False, latent=True) if self.known else UNKNOWN

    def beside(self, other: StartingPoints) -> StartingPoints:
        """Each point followed by another one, as a network reads both."""
        if not (self.known and other.known):
            return UNKNOWN
        return StartingPoints(
            lambda: torch.cat([self.points, other.points], -1),
            fixed=self.fixed and other.fixed,
            latent=self.latent or other.latent,
            what=self.what,
        )

    def _images(self, function: Callable[[Tensor], Tensor], fixed: bool) -> StartingPoints:
        if not self.known:
            return UNKNOWN
        inner = self.what if "inner part" in self.what else f"{self.what}, as an inner part sees it,"
        return StartingPoints(lambda: function(self.points), fixed=fixed, latent=self.latent, what=inner)


UNKNOWN = StartingPoints(None, fixed=False)


class Standardisation(Rebuildable, InputLayer):
    """The map (x − shift) / scale, feature by feature; shift and scale are buffers that :meth:`match` takes from data.

    >>> standardise = Standardisation(2)
    >>> standardise.match(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> standardise(torch.tensor([[3.0, 6.0]]))
    tensor([[1., 1.]])
    """

    shift: Tensor
    scale: Tensor
    matched: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features = check_count(features, "features")
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("matched", torch.tensor(False))

    def match(self, x: Tensor, what: str = "data") -> None:
        """Take mean and standard deviation from x ``[n, D]``, the first time only; constant columns keep scale 1.

        Raises:
            ValueError: they were taken before, and this data is in other units (:func:`check_units`).
        """
        if bool(self.matched):
            check_units(x, self.shift, self.scale, what)
            return
        mean, std, constant = _moments(x)
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(std), std))
        self.matched.fill_(True)

    def take(self, x: StartingPoints) -> None:
        """:meth:`match` what reaches this part, if it has units of the data; no refusal of what trained layers made."""
        if x.known and not x.latent and (x.fixed or not bool(self.matched)):
            self.match(x.rows, x.what)

    def blank(self, like: Tensor) -> Tensor:
        return self.shift

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """shift + scale · y."""
        return self.shift + self.scale * y


class Initialisable(nn.Module):
    """A part or a model that may take something from data before it is trained.

    Attributes:
        incomplete: whether nan marks a missing entry of data; elsewhere it is an error.
    """

    features: int
    context_features: int = 0
    incomplete: bool = False

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set what is to be set from data before training: the units of the data, in every part that has some.

        ``fit`` does this first; a training loop of one's own calls it once, before the first step. What was set before
        stays, so that training may go on. No gradients are recorded, and no random numbers are drawn from a generator
        that others use.

        Args:
            x: data ``[n, D]``.
            context: contexts ``[n, C]`` of a conditional model.

        Raises:
            TypeError, ValueError: x or the contexts are not what the model takes, or not finite.
            ValueError: something was set before from data in other units: a column's mean lies more than five standard
                deviations away, or its standard deviation differs by a factor of more than four.
        """
        name, reference = type(self).__name__, find_reference(self)
        check_rows(x, self.features, name, reference=reference, incomplete=self.incomplete)
        check_contexts(context, self.context_features, x, name)
        given = UNKNOWN if context is None else StartingPoints.of(context, "contexts")
        with torch.no_grad(), evaluating(self):  # batch statistics are not the start's to move
            self._initialise(StartingPoints.of(x), given)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        """Set what this part takes from the points that it is about and from their contexts, either of them perhaps
        unknown, and hand both on to its own parts. By default, networks that standardise their input take the context.
        """
        for child in self.children():
            take_input(child, self.context_features, context)


def take_input(network: nn.Module, width: int, x: StartingPoints) -> None:
    """Let each :class:`Standardisation` of that width in a network take what the network reads."""
    for module in _standardisations(network):
        if module.features == width:
            module.take(x)


def check_units(x: Tensor, shift: Tensor, scale: Tensor, what: str = "data", stretched: float = STRETCHED) -> None:
    """Raise unless data ``[n, D]`` may be in the units that a shift and a scale ``[D]`` were taken from. O(nD).

    Raises:
        ValueError: a column's mean lies more than five scales away, or its standard deviation differs by more than a
            factor, four. Columns that are constant, or were (their scale is 1), may vary as little as they like, and
            so may columns of fewer than 30 rows, which may do so by chance.
    """
    mean, std, constant = _moments(x)
    shift, scale = shift.double(), scale.double()
    other = ((mean - shift).abs() > MOVED * scale) | (std > stretched * scale)
    if x.shape[:-1].numel() >= FEW:
        other = other | (~constant & (scale != 1) & (stretched * std < scale))
    if bool(other.any()):
        column = int(other.nonzero()[0])
        raise ValueError(
            f"this model was fitted to {what} in other units: column {column} had mean {shift[column]:.4g} and "
            f"standard deviation {scale[column]:.4g}, and now has {mean[column]:.4g} and {std[column]:.4g}. "
            f"Build a new model, or bring the {what.partition(',')[0]} to the former units"
        )


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of the columns of x ``[*batch, D]``, float64, and whether each is constant."""
    mean, centred = centre(x.detach().reshape(-1, x.shape[-1]).double())
    variance = centred.square().mean(0)
    return mean, variance.sqrt(), is_constant(mean, variance, x.dtype)


def _standardisations(network: nn.Module) -> Iterator[Standardisation]:
    """Those that read a network's input; not those of densities in it, which have points of their own."""
    if isinstance(network, Standardisation):
        yield network
    elif type(network) is nn.Sequential:
        for layer in network:
            yield from _standardisations(layer)
            if type(layer) not in VIEWS:
                return
    elif not isinstance(network, Initialisable):
        for child in network.children():
            yield from _standardisations(child)
