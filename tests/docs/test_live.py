"""The live page in a real browser: sliders are moved, numbers read, and compared with this library's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bridge import GaussianRelaxation
from density import StandardNormal, kl
from density.importance.pareto import pareto_k, reliability_threshold
from flows import Flow, Transform
from lvm import LinearGaussianPosterior, LinearVAE
from lvm.evidence import quadrature
from tests.places import ROOT

PAGE = ROOT / "docs" / "live" / "live.html"
CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CLOSE = 1e-6

pytestmark = pytest.mark.slow


class Live:
    """The page, and what went wrong on it."""

    def __init__(self, page: Any) -> None:  # noqa: ANN401  # playwright need not be installed
        self.page, self.errors, self.requests = page, [], []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(PAGE.as_uri())

    def move(self, **sliders: float) -> None:
        """Put sliders where a hand would, and let the page know."""
        for name, value in sliders.items():
            self.page.eval_on_selector(
                f"#{name.replace('_', '-')}",
                "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }",
                str(value),
            )

    def number(self, section: str, key: str) -> float:
        value = self.page.get_attribute(f"#{section}-numbers dd[data-key={key}]", "data-value")
        return float(value.replace("Infinity", "inf"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which `make docs` installs")
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser at {CHROMIUM}")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def live(browser: Any) -> Live:  # noqa: ANN401
    return Live(browser.new_page(viewport={"width": 1280, "height": 900}))


def number(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def model_of(m: float, t: float, s: float) -> LinearVAE:
    """z ~ N(0, 1), x|z ~ N(z, s²), q = N(m, t²) whatever x is."""
    model = LinearVAE(1, 1).double()
    with torch.no_grad():
        for parameter, value in (
            (model.decoder.weight, 1.0), (model.decoder.mean, 0.0), (model.decoder.log_std, math.log(s)),
            (model.encoder.weight, 0.0), (model.encoder.bias, m), (model.encoder.log_std, math.log(t)),
        ):  # fmt: skip
            parameter.fill_(value)
    return model


@pytest.mark.parametrize(("m", "t", "x", "s"), [(-0.8, 0.4, 1.5, 0.8), (2.3, 1.7, -2.9, 0.3), (0.0, 0.1, 0.0, 2.0)])
def test_the_bound(live: Live, m: float, t: float, x: float, s: float) -> None:
    live.move(elbo_m=m, elbo_t=t, elbo_x=x, elbo_s=s)
    model, point = model_of(m, t, s), number(x)
    posterior = LinearGaussianPosterior(model.decoder)
    gap = kl(model.encoder, posterior, point, p_context=point)
    to_prior = kl(model.encoder, model.prior, point)
    assert gap is not None
    assert to_prior is not None
    mean, scale = posterior.at(point)
    for key, ours in (
        ("logP", model.log_prob(point)),
        ("elbo", model.elbo_closed_form(point)),
        ("gap", gap),
        ("toPrior", to_prior),
        ("reconstruction", model.elbo_closed_form(point) + to_prior),
        ("posteriorMean", mean),
        ("posteriorStd", scale.dense()),
    ):
        assert live.number("elbo", key) == pytest.approx(ours.item(), abs=CLOSE), key


def test_the_button_closes_the_gap(live: Live) -> None:
    live.move(elbo_x=-1.27, elbo_s=0.55)
    live.page.click("#elbo-best")
    assert abs(live.number("elbo", "gap")) < 1e-12
    assert live.number("elbo", "elbo") == pytest.approx(live.number("elbo", "logP"), abs=1e-12)


class Asinh(Transform):
    """z = asinh(x), one feature."""

    features = 1

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.asinh(), -0.5 * x.square().log1p().sum(-1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z.sinh(), z.cosh().log().sum(-1)


@pytest.mark.parametrize(("exponent", "x"), [(-0.5, 1.5), (-3.0, -4.0), (-1.7, 0.0), (0.0, 2.5)])
def test_the_delta(live: Live, exponent: float, x: float) -> None:
    live.move(delta_s=exponent, delta_x=x)
    flow, point = Flow(StandardNormal(1), Asinh()).double(), number(x)
    relaxed = GaussianRelaxation(flow, 10**exponent).double()
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    share = torch.tensor(weights / weights.sum()).reshape(-1, 1)
    with torch.no_grad():
        elbo = (share * relaxed.log_weights_at(point, torch.tensor(nodes).reshape(-1, 1, 1))).sum().item()
        log_p = flow.log_prob(point).item()
    evidence = quadrature(relaxed, point)
    for key, ours in (
        ("logP", log_p), ("elbo", elbo), ("off", log_p - elbo),
        ("logPSigma", evidence.value.item()), ("gap", evidence.value.item() - elbo),
    ):  # fmt: skip
        assert live.number("delta", key) == pytest.approx(ours, abs=CLOSE), key


def test_the_delta_costs_its_width_squared(live: Live) -> None:
    rates = []
    for exponent in (-2.0, -2.5, -3.0):
        live.move(delta_s=exponent, delta_x=1.5)
        rates.append(live.number("delta", "rate"))
    assert rates[0] > 0.1
    assert max(rates) - min(rates) < 1e-3


@pytest.mark.parametrize(("r", "exponent", "seed"), [(0.5, 3.0, 0), (0.3, 4.0, 3), (1.4, 2.0, 7), (0.8, 1.4, 20)])
def test_the_weights(live: Live, r: float, exponent: float, seed: int) -> None:
    live.move(weights_r=r, weights_k=exponent, weights_seed=seed)
    count = round(10**exponent)
    noise = torch.tensor(live.page.evaluate(f"noise({count}, {seed})"), dtype=torch.float64).reshape(-1, 1, 1)
    assert abs(noise.mean()) < 4 / math.sqrt(count)
    assert abs(noise.square().mean() - 1) < 6 / math.sqrt(count)
    point, std = number(1.0), math.sqrt(0.5)
    model = model_of(0.5, r * std, 1.0)
    z = 0.5 + r * std * noise
    with torch.no_grad():
        log_weights = (model.log_joint(point, z) - model.encoder.log_prob(z, point)).squeeze(-1)
    share = log_weights.softmax(0)
    estimate = log_weights.logsumexp(0) - math.log(count)
    for key, ours in (
        ("logP", model.log_prob(point)), ("estimate", estimate), ("elbo", log_weights.mean()),
        ("k", pareto_k(log_weights)), ("effective", 1 / share.square().sum()), ("largest", share.max()),
        ("error", (share * count).std() / math.sqrt(count)),
    ):  # fmt: skip
        assert live.number("weights", key) == pytest.approx(ours.item(), abs=CLOSE), key
    assert live.number("weights", "threshold") == pytest.approx(reliability_threshold(count), abs=CLOSE)


MISPLACED = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
    const [, , wide, tall] = svg.getAttribute("viewBox").split(" ").map(Number);
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent);
    const boxes = texts.map((text) => ({ words: text.textContent, box: text.getBBox() }));
    const within = ({ x, y, width, height }) => x > -1 && y > -2 && x + width < wide + 1 && y + height < tall + 2;
    const across = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width;
    const down = (a, b) => a.y + 3 < b.y + b.height && b.y + 3 < a.y + a.height;
    const meet = (a, b) => across(a.box, b.box) && down(a.box, b.box);
    return boxes.flatMap((a, i) => [
        ...(within(a.box) ? [] : [`${a.words} leaves its picture`]),
        ...boxes.slice(i + 1).filter((b) => meet(a, b)).map((b) => `${a.words} on ${b.words}`),
    ]);
})"""  # letters of a line reach 3 pixels less than its box


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(browser: Any, width: int, scheme: str) -> None:  # noqa: ANN401
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    live = Live(context.new_page())
    assert live.page.evaluate("document.documentElement.scrollWidth") == width
    assert live.page.locator("svg").count() == 6
    assert live.page.evaluate("document.documentElement.dataset.theme") == scheme
    live.page.click("#theme")
    assert live.page.evaluate("document.documentElement.dataset.theme") != scheme
    for section in ("elbo", "delta", "weights"):
        inputs = live.page.locator(f"#{section} input")
        before = live.page.inner_html(f"#{section}-numbers")
        for index in range(inputs.count()):  # from end to end, by the keyboard
            for key in ("Home", "End"):
                inputs.nth(index).press(key)
                assert "NaN" not in live.page.inner_html(f"#{section}")
                assert live.page.evaluate(MISPLACED) == []
        assert live.page.inner_html(f"#{section}-numbers") != before
    assert not live.errors
    assert all(url.startswith("file:") or url.startswith("data:") for url in live.requests)
    context.close()
