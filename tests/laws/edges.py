"""The laws of a model's edges: what counts as a number, what as data, and what an outer setting of torch may change."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.masked import masked_tensor
from torch.utils.data import DataLoader, TensorDataset

from density import Bound, Density, ExactModel, Model, Training
from density.rebuildable import Rebuildable, arguments_of
from lvm import LayeredModel
from tests.laws.modules import ModuleCase

SUMS = ("Gaussian", "PPCA", "GaussianMixture", "FiniteMixture")  # their fits sum statistics, of arrays, too
PACKAGES = ("density", "flows", "lvm", "bridge")


def numpy_integers_are_sizes(case: ModuleCase, generator: Generator) -> None:
    """Every part is built alike by numpy's integers, and keeps Python's."""
    for part in _parts(case.make(generator)):
        variadic, named = arguments_of(part)
        if variadic or not any(_is_size(value) for value in named.values()):
            continue
        again = type(part)(**{name: _sizes(value, np.int64) for name, value in named.items()})
        assert isinstance(again, nn.Module)
        assert isinstance(part, nn.Module)
        assert _shapes(again) == _shapes(part)
        for name, value in vars(again).items():
            assert not isinstance(value, np.integer), f"{type(part).__name__} keeps {name} as {type(value).__name__}"


def true_is_no_size(case: ModuleCase, generator: Generator) -> None:
    for part in _parts(case.make(generator)):
        variadic, named = arguments_of(part)
        for name, value in named.items():
            if not variadic and _is_size(value):
                with pytest.raises(ValueError, match=rf"{name}.* must be .*int.*; got True"):
                    type(part)(**(named | {name: True}))


def an_outer_autocast_changes_nothing(case: ModuleCase, generator: Generator) -> None:
    """Values and draws are those of the model's own precision, to the bit."""
    model = case.make(generator)
    inputs = tuple(x.float() for x in case.inputs(model, generator))
    model = model.float()

    def asked() -> list[Tensor]:
        torch.manual_seed(0)
        found = []
        with torch.no_grad():
            if isinstance(model, Density):
                context = inputs[1] if len(inputs) > 1 else None
                found += [model.log_prob(*inputs), *model.sample_with_log_prob(2, context=context)]
            if isinstance(model, Bound):
                given = {"context": inputs[1]} if len(inputs) > 1 else {}
                found += [model.elbo(inputs[0], **given), model.log_weights(inputs[0], 2, **given)]
                found += [model.sample(2, **given)]
        return found

    expected = asked()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = asked()
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype is theirs.dtype
        assert mine.equal(theirs)


def frame(x: Tensor) -> object:
    return pd.DataFrame(x.numpy())


CONTAINERS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "frame": (frame, r"got DataFrame.*torch\.tensor\((x|data|context)\.to_numpy\(\)\)"),
    "sparse": (Tensor.to_sparse, r"got a sparse one .*\.to_dense\(\)"),
    "masked": (lambda x: masked_tensor(x, x > 0), r"got MaskedTensor.*\.to_tensor\(torch\.nan\)"),
    "list": (Tensor.tolist, r"got (list|numbers).*torch\.tensor"),
}
NOT_READ: dict[str, tuple[Callable[[Tensor], object], str]] = {  # but by fits that sum statistics
    "array": (Tensor.numpy, r"got ndarray. Convert with torch\.as_tensor\(x\)"),
    "masked array": (lambda x: np.ma.masked_array(x.numpy(), x.numpy() > 0), r"got MaskedArray.*filled\(numpy\.nan\)"),
    "loader": (
        lambda x: DataLoader(TensorDataset(x), batch_size=2),
        r"got DataLoader.*torch\.cat\(\[rows for rows, \*_ in x\]\)",
    ),
}


@pytest.mark.filterwarnings("ignore:.*MaskedTensor.*")  # torch calls them a prototype
def foreign_data_is_one_message(case: ModuleCase, generator: Generator) -> None:
    """It says what came and how to make a tensor of it, wherever data enters."""
    model = case.make(generator)
    if not isinstance(model, Model):
        return
    x, *context = case.inputs(model, generator)
    entrances: list[Callable[[Any], object]] = [model.log_density] if not context else []
    if context and isinstance(model, ExactModel | LayeredModel):
        entrances += [lambda x: model.log_density(x, context=context[0])]
    entrances += [model.log_prob] if isinstance(model, Density) and not context else []
    entrances += [lambda x: model(x, *context)] if isinstance(model, Bound) else []
    for convert, message in (CONTAINERS | NOT_READ).values():
        for enter in entrances:
            with pytest.raises(TypeError, match=message):
                enter(convert(x))
    sums = type(model).__name__ in SUMS
    read = list(NOT_READ) if sums else ["loader"] if reads_chunks(model) else []
    for name, (convert, message) in (CONTAINERS | NOT_READ).items():
        if name not in read:
            with pytest.raises(TypeError, match=message):
                model.fit(convert(x))  # type: ignore[arg-type]


def reads_chunks(model: Model) -> bool:
    """Whether a model is fitted by gradient, to whatever comes."""
    return "validation" in signature(model.fit).parameters


@dataclass(frozen=True)
class OfAnotherFit:
    """Settings that no model takes."""

    epochs: int = 3


def settings_of_another_fit_are_one_message(case: ModuleCase, generator: Generator) -> None:
    """In the name of the model's fit, saying what it takes, whether an object or a class comes."""
    model = case.make(generator)
    if isinstance(model, Model):
        x, *_ = case.inputs(model, generator)
        for settings, words in ((OfAnotherFit(), r"OfAnotherFit\(…\)"), (Training, "the class Training")):
            name = type(model).__name__
            with pytest.raises(TypeError, match=rf"^{name}\.fit (expects|is in closed form) .*got {words}"):
                model.fit(x, settings)  # type: ignore[call-arg]


@pytest.mark.filterwarnings("ignore:.*MaskedTensor.*")
def chunks_are_the_data(case: ModuleCase, generator: Generator) -> None:
    """A fit starts from chunks and judges them as it does a tensor, weights and all; refused, it leaves no trace."""
    model = case.make(generator)
    if not isinstance(model, Model) or not reads_chunks(model) or not any(True for _ in model.parameters()):
        return
    x, *context = case.inputs(model, generator)
    weights = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    training = Training(epochs=1, validation=0.0, progress=False, learning_rate=1e-12, batch_size=3)

    def fitted(data: object, **given: object) -> float | str:
        """The objective of one step, in evaluation mode, or the error."""
        own = deepcopy(model)
        try:
            history = own.fit(data, training, generator=Generator().manual_seed(0), **given)
        except (TypeError, ValueError) as error:
            before, after = model.state_dict(), own.state_dict()
            assert all(after[name].equal(before[name]) for name in before)
            assert all(after[name].dtype is before[name].dtype for name in before)
            return str(error)
        return history.objective[0]

    def halves(data: Tensor) -> object:
        parts = [data[:2], data[2:]] if not context else [(data[:2], context[0][:2]), (data[2:], context[0][2:])]
        return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]

    given = {"context": context[0]} if context else {}
    expected, found = fitted(x, weights=weights, **given), fitted(halves(x), weights=weights)
    if isinstance(expected, str):
        assert expected in str(found)
    elif isinstance(model, ExactModel):
        assert found == pytest.approx(expected, rel=1e-9)
    else:  # rows and draws are paired in another way
        assert math.isfinite(found)
    bad = x.index_fill(0, torch.tensor(2), math.inf if model.incomplete else math.nan)
    said = fitted(halves(bad))
    assert isinstance(said, str)
    if "discrete" not in said:
        assert re.search("expects finite data.*; row 0, column 0 is (nan|inf)", said)
        assert said.endswith("(in a chunk that begins with row 2 of the data)")
    narrow = (fitted(data) for data in (halves(x.float()), halves(bad.float())))
    if not context and not isinstance(expected, str):
        assert [isinstance(found, float) for found in narrow] == [True, False]


def no_contexts_have_no_draws(case: ModuleCase, generator: Generator) -> None:
    model = case.make(generator)
    if not isinstance(model, Density) or not model.context_features:
        return
    nothing = torch.zeros(0, model.context_features, dtype=torch.float64)
    draws, log_prob = model.sample_with_log_prob(3, context=nothing)
    assert model.sample(3, context=nothing).shape == draws.shape == (3, 0, model.features)
    assert log_prob.shape == (3, 0)
    assert draws.dtype is torch.float64
    assert model.log_prob(torch.zeros(0, model.features, dtype=torch.float64), nothing).shape == (0,)
    assert model.sample(3, context=nothing.unsqueeze(0)).shape == (3, 1, 0, model.features)


edge_laws: list[Callable[[ModuleCase, Generator], None]] = [
    numpy_integers_are_sizes,
    true_is_no_size,
    an_outer_autocast_changes_nothing,
    foreign_data_is_one_message,
    settings_of_another_fit_are_one_message,
    chunks_are_the_data,
    no_contexts_have_no_draws,
]


def _parts(model: nn.Module) -> list[Rebuildable]:
    """What of a model these packages define; somebody's own part makes what it will of its arguments."""
    own = [part for part in model.modules() if type(part).__module__.partition(".")[0] in PACKAGES]
    return [part for part in own if isinstance(part, Rebuildable)]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sizes(value: object, kind: Callable[[int], object]) -> object:
    if isinstance(value, tuple):
        return tuple(_sizes(item, kind) for item in value)
    return kind(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
