"""Masked networks: the outputs for a feature see only the features before it."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from density.checks import check_count
from density.families.nets import hidden_units
from density.families.network import OutOfPlace
from density.rebuildable import Rebuildable
from flows.layers.linear_maps.permutation import as_order
from flows.networks.columns import ELEMENTWISE


class MaskedLinear(Rebuildable, nn.Linear):
    """A linear layer, some of whose weights are held at zero: y = (mask ∘ W) x + b.

    Args:
        mask: booleans ``[outputs, inputs]``, False where no connection runs.

    Cost: O(inputs · outputs) per point.

    >>> layer = MaskedLinear(torch.tensor([[True, False]]))
    >>> (layer(torch.tensor([0.0, 1.0])) - layer(torch.tensor([0.0, 2.0]))).item()
    0.0
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.device, copy=True))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class Stage(NamedTuple):
    """One layer of a masked network: v = linear(φ(v of the stage before)) + v of the stage ``skip``, φ elementwise."""

    linear: MaskedLinear
    activations: Sequence[nn.Module] = ()  # φ, one after the other
    skip: int | None = None


class MaskedNetwork(Rebuildable, OutOfPlace, ABC):
    """A network of masked linear layers, elementwise activations and skips, which can be evaluated unit by unit.

    A subclass builds its layers, names its :meth:`stages` and calls :meth:`arrange`. Inputs are ``[*batch, D + C]``,
    context last; outputs ``[*batch, outputs · D]``, the first output of every feature, then the second.

    Attributes:
        features: how many features D there are.
        sizes: how many units of degree 0, 1, … D−1 each layer has, the input being layer 0. A unit's degree is the last
            place among the features that it sees, 0 if it sees none; an output's is the place before its feature's.
            None where the network cannot be evaluated by degree: its masks do not keep to the order, or an activation
            is not known to act on each unit by itself.
        dense: of each layer, whether every unit sees all units of no higher degree.
    """

    features: int
    sizes: list[list[int]] | None
    dense: list[bool]

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_rearrange)

    @abstractmethod
    def stages(self) -> list[Stage]:
        """The layers, first to last."""

    def arrange(self, order: Tensor) -> None:
        """Sort the units by degree, given which feature is in which place; O(number of weights).

        Degrees are read off the masks, so that masks loaded from elsewhere are obeyed.
        """
        self.features = features = len(order)
        stages = self.stages()
        device, order = stages[0].linear.mask.device, order.cpu()
        place = order.argsort() + 1
        degrees = [torch.cat([place, place.new_zeros(stages[0].linear.in_features - features)])]
        sortable = all(type(activation) in ELEMENTWISE for stage in stages for activation in stage.activations)
        for stage in stages:
            mask = stage.linear.mask.cpu()
            degrees.append((mask * degrees[-1]).amax(1) if mask.shape[1] else place.new_zeros(len(mask)))
            # A skip joins units of one degree.
            sortable &= stage.skip is None or degrees[stage.skip + 1].equal(degrees[-1])
        outputs = len(degrees[-1]) // features
        sortable &= len(degrees[-1]) == outputs * features and bool((degrees.pop() < place.repeat(outputs)).all())
        units = [layer.argsort(stable=True)[: int((layer < features).sum())] for layer in degrees]
        units.append((torch.arange(outputs, device=order.device) * features + order[:, None]).flatten())
        widths = [*(len(layer) for layer in degrees), features * outputs, features, features]
        for layer, (index, width) in enumerate(zip([*units, order, order.argsort()], widths, strict=True)):
            as_it_is = index.equal(torch.arange(width, device=index.device))
            self.register_buffer(f"_units_{layer}", None if as_it_is else index.to(device), persistent=False)
        above = [*degrees[1:], place.repeat(outputs) - 1]
        self.dense = [
            bool((stage.linear.mask.cpu() | (unit[:, None] < seen)).all())
            for stage, unit, seen in zip(stages if sortable else [], above, degrees, strict=False)
        ]
        counts = [torch.bincount(layer, minlength=features)[:features].tolist() for layer in degrees]
        self.sizes = [*counts, [outputs] * features] if sortable else None

    def sorted_units(self) -> list[Tensor | None]:
        """The units of each layer by degree, those that no output can see left out; then features by place, and back.

        The last layer's are the outputs of the feature in place 1, then those of the one in place 2, … None stands for
        units that are sorted as they are.
        """
        return [getattr(self, f"_units_{layer}") for layer in range(len(self.stages()) + 3)]


def _rearrange(network: nn.Module, incompatible_keys: object) -> None:
    """Follow loaded masks, which may be other ones; the order is the one arranged for last."""
    assert isinstance(network, MaskedNetwork)
    order = network.sorted_units()[-2]
    network.arrange(torch.arange(network.features, device="cpu") if order is None else order)


class MaskedMLP(MaskedNetwork):
    r"""A network whose outputs for feature j see only the features before j.

    Germain et al. 2015, arXiv:1502.03509, §3-4. Every unit has a degree: feature j's is its place 1 … D in the
    order, the context's is 0. A hidden unit of degree m sees units of degrees ≤ m; an output of place k sees hidden
    units of degrees < k. Hidden degrees are spread evenly over 0 … D−1 (1 … D−1 without context), so the context
    reaches every output, the first one too, through the hidden layers.

    Args:
        order: ``order[k]`` is the feature in place k+1.
        outputs: how many numbers to return for each feature.
        hidden: widths of the hidden layers; one narrower than the number of degrees drops connections. One unit can
            carry the context or features, and not both: a warning says so.
        context_features: width C of the context; inputs are ``[*batch, D + C]``, context last.
        activation: makes the module between two linear layers; bounded by default, as in a coupling layer.
        hidden_degrees: degrees of the hidden units, one tensor a layer, instead of even spread; then ``hidden`` is not
            read. With all of them d, and an order that starts with the d features that pass, this is a coupling's net.
        dropout: share of the hidden units that is dropped in training mode, after each activation; 0 adds no layer.

    Returns:
        Shape ``[*batch, outputs · D]``: the first output of every feature, then the second. The last layer starts at
        zero.

    Cost: O(number of weights) per point.

    >>> net = MaskedMLP([0, 1, 2], outputs=1)
    >>> _ = nn.init.normal_(net.layers[-1].weight)
    >>> x = torch.randn(3, requires_grad=True)
    >>> [(torch.autograd.grad(net(x)[j], x, retain_graph=True)[0] != 0).tolist() for j in range(3)]
    [[False, False, False], [True, False, False], [True, True, False]]
    """

    def __init__(
        self,
        order: Sequence[int] | Tensor,
        outputs: int = 2,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        activation: Callable[[], nn.Module] = nn.Tanh,
        hidden_degrees: Sequence[Tensor] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        outputs = check_count(outputs, f"{owner}: outputs")
        context_features = check_count(context_features, f"{owner}: context_features", least=0)
        places = as_order(order, owner)
        place = places.argsort() + 1
        if hidden_degrees is None:
            hidden = [check_count(width, f"{owner}: hidden[{position}]") for position, width in enumerate(hidden)]
            # A single feature without context has nothing to see: no hidden layer, and its output is a bias.
            widths = hidden if len(place) > 1 or context_features else ()
            hidden_degrees = [_even_degrees(len(place), width, context_features, owner) for width in widths]
        layers: list[nn.Module] = []
        below = torch.cat([place, place.new_zeros(context_features)])
        for degrees in hidden_degrees:
            layers += [MaskedLinear(degrees[:, None] >= below), *hidden_units(activation, dropout, owner)]
            below = degrees
        last = MaskedLinear(place.repeat(outputs)[:, None] > below)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)
        self.arrange(places)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y

    def stages(self) -> list[Stage]:
        stages: list[Stage] = []
        between: list[nn.Module] = []
        for layer in self.layers:
            if isinstance(layer, MaskedLinear):
                stages.append(Stage(layer, between))
                between = []
            else:
                between.append(layer)
        return stages


class MaskedResidualMLP(MaskedNetwork):
    r"""A masked network with residual blocks, h ← h + W₂ φ(W₁ φ(h)) between a first and a last linear layer.

    As in Durkan et al. 2019, arXiv:1906.04032; degrees, inputs and outputs as in :class:`MaskedMLP`.

    Args:
        order: ``order[k]`` is the feature in place k+1.
        outputs: how many numbers to return for each feature.
        hidden: width of h.
        blocks: how many residual blocks.
        context_features: width C of the context.
        activation: makes φ.

    Returns:
        Shape ``[*batch, outputs · D]``. The last layer and the last one of each block start at zero.

    Cost: O(number of weights) per point.

    >>> MaskedResidualMLP([0, 1, 2], outputs=1, blocks=1)(torch.ones(5, 3)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        order: Sequence[int] | Tensor,
        outputs: int = 2,
        hidden: int = 64,
        blocks: int = 2,
        context_features: int = 0,
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        hidden = check_count(hidden, f"{owner}: hidden")
        blocks = check_count(blocks, f"{owner}: blocks")
        outputs = check_count(outputs, f"{owner}: outputs")
        context_features = check_count(context_features, f"{owner}: context_features", least=0)
        places = as_order(order, owner)
        place = places.argsort() + 1
        degrees = _even_degrees(len(place), hidden, context_features, owner)
        within = degrees[:, None] >= degrees
        self.first = MaskedLinear(degrees[:, None] >= torch.cat([place, place.new_zeros(context_features)]))
        self.blocks = nn.ModuleList(
            nn.Sequential(activation(), MaskedLinear(within), activation(), MaskedLinear(within)) for _ in range(blocks)
        )
        self.last = MaskedLinear(place.repeat(outputs)[:, None] > degrees)
        for layer in (*(stage.linear for stage in self.stages() if stage.skip is not None), self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.arrange(places)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        y: Tensor = self.last(h)
        return y

    def stages(self) -> list[Stage]:
        stages = [Stage(self.first)]
        for block in self.blocks:
            inner, first, outer, second = block.children()
            assert isinstance(first, MaskedLinear)
            assert isinstance(second, MaskedLinear)
            stages += [Stage(first, [inner]), Stage(second, [outer], len(stages) - 1)]
        return [*stages, Stage(self.last)]


def _even_degrees(features: int, width: int, context_features: int, owner: str) -> Tensor:
    """The degrees of hidden units, spread evenly over those that some output sees.

    Two units or more have the lowest and the highest degree among them, so that every feature but the last reaches an
    output, and the context every one. A single unit has the highest, or carries the context where there is one.
    """
    if width == 1 and features > 1:
        if context_features:
            warnings.warn(
                f"{owner}: a hidden layer of one unit carries the context alone, so that no output sees a feature; "
                "make it at least 2 wide",
                stacklevel=3,
            )
        return torch.tensor([0 if context_features else features - 1], device="cpu")
    lowest = 0 if context_features else min(1, features - 1)
    return torch.linspace(lowest, features - 1, width, device="cpu").round().long()
