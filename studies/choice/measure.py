"""What `choice` measures: for each number of components or latents held-out evidence, BIC and ELBO, and their picks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from density import PerFeatureScale, Training
from lvm import EM, PPCA, VAE, GaussianMixture, LinearVAE
from lvm.evidence import importance
from studies.choice.rows_of import Rows
from studies.choice.settings import TRUTH, Family, Key, Settings
from studies.kit.compute import curve, place, seeded, seeded_start, standard_error
from studies.kit.rows import Row
from studies.kit.study import Task

DIGITS = 8
TRAINING = Training(batch_size=100, learning_rate=3e-3, patience=None, validation=0.0, progress=False)


Drawn = Callable[..., Generator]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One number of components or latents.

    Attributes:
        evidence: log p(x) of held-out rows ``[m]``.
        bic: of the rows that all are fitted to.
        elbo: of the held-out rows, on average; None where the posterior is known, and it is the evidence.
    """

    evidence: Tensor
    bic: float
    elbo: float | None


def measure(settings: Settings, task: Task[Key, Rows]) -> Row:
    """The columns of a row."""
    key = task.key
    sizes = range(1, settings.most(key.family) + 1)
    found = [candidate(settings, task.data, key, size) for size in sizes]
    means = [each.evidence.mean().item() for each in found]
    best = max(range(len(found)), key=means.__getitem__)
    behind = [found[best].evidence - each.evidence for each in found]
    errors = [standard_error(each) for each in behind]
    small = next(i for i, each in enumerate(behind) if each.mean().item() <= errors[i])
    bics = [each.bic for each in found]
    elbos = [each.elbo for each in found if each.elbo is not None]
    row: Row = {
        "train_rows": len(task.data.train),
        "test_rows": len(found[0].evidence),
        "features": task.data.train.shape[1],
        "sizes": curve(sizes, DIGITS),
        "evidence": curve(means, DIGITS),
        "behind": curve([each.mean().item() for each in behind], DIGITS),
        "behind_errors": curve(errors, DIGITS),
        "bic": curve(bics, DIGITS),
        "by_evidence": sizes[best],
        "by_one_error": sizes[small],
        "by_bic": sizes[min(range(len(found)), key=bics.__getitem__)],
    }
    if key.data == "simulated":
        row["truth"] = TRUTH[key.family]
    if elbos:
        row |= {"elbo": curve(elbos, DIGITS), "by_elbo": sizes[max(range(len(found)), key=elbos.__getitem__)]}
    return row


def candidate(settings: Settings, rows: Rows, key: Key, size: int) -> Candidate:
    """A model of that size, fitted and judged."""
    device, dtype = place(settings)
    train = torch.as_tensor(rows.train).to(device, dtype)

    def drawn(*purpose: str) -> Generator:
        return seeded(device, key.seed, "choice", key.family, str(key.repeat), str(size), *purpose)

    with seeded_start(key.seed, "choice", key.family, str(key.repeat), str(size)):
        if rows.test is not None:
            return fitted(settings, key.family, size, train, torch.as_tensor(rows.test).to(train), drawn)
        whole = fitted(settings, key.family, size, train, train, drawn)
        order = torch.randperm(len(train), generator=seeded(device, key.seed, "choice", "folds"), device=device)
        evidence = torch.empty_like(train[:, 0])
        for number, part in enumerate(order.tensor_split(settings.folds)):
            rest = torch.ones_like(order, dtype=torch.bool).index_fill(0, part, False)
            judged = fitted(settings, key.family, size, train[rest], train[part], lambda *p: drawn(*p, str(number)))  # noqa: B023
            evidence[part] = judged.evidence
        return Candidate(evidence, whole.bic, whole.elbo)


def fitted(settings: Settings, family: Family, size: int, train: Tensor, test: Tensor, drawn: Drawn) -> Candidate:
    """A model of that size, fitted to rows and judged by others."""
    features = train.shape[1]
    match family:
        case "mixture":
            mixture = GaussianMixture(features, size)
            mixture.fit(train, EM(restarts=settings.restarts, progress=False), generator=drawn("fit"))
            return Candidate(mixture.log_density(test).value, mixture.bic(train), None)
        case "ppca":
            ppca = PPCA(features, size)
            ppca.fit(train)
            return Candidate(ppca.log_density(test).value, ppca.bic(train), None)
        case "linear-vae":
            linear = LinearVAE(features, size)
            linear.fit(train)
            parameters = PPCA(features, size).parameter_count
            bic = _bic(linear.log_density(train).value, parameters)
            elbo = linear.elbo_closed_form(test).mean().item()
            return Candidate(linear.log_density(test).value, bic, elbo)
    scale = PerFeatureScale(features, std=0.3)
    vae = VAE.gaussian(features, size, hidden=settings.hidden, scale=scale)
    vae.fit(train, replace(TRAINING, epochs=settings.epochs), generator=drawn("fit"))
    parameters = sum(p.numel() for p in vae.decoder.parameters())
    claims = [importance(vae, x, draws=settings.draws, generator=drawn("evidence")).value for x in (train, test)]
    elbo = vae.elbo(test, draws=settings.draws, generator=drawn("elbo")).mean().item()
    return Candidate(claims[1], _bic(claims[0], parameters), elbo)


def _bic(log_p: Tensor, parameters: int) -> float:
    return -2 * log_p.double().sum().item() + parameters * math.log(len(log_p))
