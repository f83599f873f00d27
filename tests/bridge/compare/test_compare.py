"""What a comparison says of claims whose differences are known, and of models."""

from __future__ import annotations

import math
import sys
from functools import partial

import pandas as pd
import pytest
import torch
from torch import Generator, Tensor

from bridge import Verdict, compare
from density import Gaussian, Kind, LogDensity, Measure
from density.data.points import Points
from flows import maf
from lvm import PPCA, VAE
from lvm.evidence import importance
from significance import Spread, Statement, holm

N = 400


def claim(value: Tensor, kind: Kind = Kind.EXACT, measure: Measure = Measure.LEBESGUE) -> LogDensity:
    return LogDensity(value.double(), kind, "made", measure=measure)


@pytest.fixture
def base(generator: Generator) -> Tensor:
    return -5 + 3 * torch.randn(N, generator=generator, dtype=torch.float64)


def noise(generator: Generator, size: float = 0.5) -> Tensor:
    return size * torch.randn(N, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# What a number says
# ---------------------------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_paired_difference(base: Tensor, generator: Generator) -> None:
    other = base - 0.1 + noise(generator)
    found = compare({"a": claim(base), "b": claim(other)})
    (pair,) = found.pairs
    difference = base - other
    error = difference.std().item() / math.sqrt(N)
    assert pair.fitted is not None
    assert pair.fitted.mean == pytest.approx(difference.mean().item(), abs=1e-12)
    assert pair.fitted.error == pytest.approx(error, rel=1e-12)
    low, high = pair.fitted.interval(0.95)
    assert high - low == pytest.approx(2 * 1.9659 * error, rel=1e-4)
    assert pair.verdict is Verdict.FIRST
    assert "Proven of these fits: a over b by [" in str(found)


@pytest.mark.parametrize(
    ("kinds", "shift", "verdict", "kind"),
    [
        ((Kind.EXACT, Kind.EXACT), 1.0, Verdict.FIRST, Kind.EXACT),
        ((Kind.EXACT, Kind.EXACT), -1.0, Verdict.SECOND, Kind.EXACT),
        ((Kind.LOWER, Kind.EXACT), 1.0, Verdict.FIRST, Kind.LOWER),
        ((Kind.LOWER, Kind.EXACT), -1.0, Verdict.OPEN, Kind.LOWER),
        ((Kind.EXACT, Kind.LOWER), 1.0, Verdict.OPEN, Kind.UPPER),
        ((Kind.EXACT, Kind.LOWER), -1.0, Verdict.SECOND, Kind.UPPER),
        ((Kind.LOWER, Kind.LOWER), 9.0, Verdict.OPEN, None),
        ((Kind.LOWER, Kind.UPPER), 1.0, Verdict.FIRST, Kind.LOWER),
        ((Kind.ESTIMATE, Kind.EXACT), 1.0, Verdict.FIRST, Kind.ESTIMATE),
    ],
)
def test_bounds_prove_one_side_alone(
    kinds: tuple[Kind, Kind], shift: float, verdict: Verdict, kind: Kind | None, base: Tensor, generator: Generator
) -> None:
    other = base - shift + noise(generator)
    found = compare({"a": claim(base, kinds[0]), "b": claim(other, kinds[1])})
    (pair,) = found.pairs
    assert pair.verdict is verdict
    assert (None if pair.fitted is None else pair.fitted.kind) is kind
    assert pair.proven is (verdict is not Verdict.OPEN and kind is not Kind.ESTIMATE)
    if verdict is Verdict.OPEN:
        assert "a stronger method for" in found.settled_by(pair)
    if kind is Kind.ESTIMATE:
        assert "Proven of these fits: nothing" in str(found)
        assert "By an estimate, of these fits: a over b" in str(found)


def test_equal_fits_are_equal_and_a_shift_is_a_difference(base: Tensor) -> None:
    found = compare({"a": claim(base), "same": claim(base.clone()), "above": claim(base + 1e-6)})
    assert found.pair("a", "same").verdict is Verdict.EQUAL
    same = found.pair("a", "same").fitted
    assert same is not None
    assert (same.mean, same.error, same.p_value) == (0, 0, 1)
    assert found.pair("a", "above").verdict is Verdict.SECOND, "the same number at every point: no chance in it"
    assert "Equal at every point: a and same" in str(found)
    within = compare({"a": claim(base), "above": claim(base + 1e-6)}, margin=1e-3)
    assert within.pair("a", "above").verdict is Verdict.OPEN


def test_equal_bounds_leave_open_which_model_is_better(base: Tensor) -> None:
    """The same ELBO of two models says nothing of how far either is below."""
    found = compare({"a": claim(base, Kind.LOWER), "b": claim(base.clone(), Kind.LOWER)})
    assert found.pairs[0].verdict is Verdict.OPEN


def test_fits_at_other_points_have_the_spread_of_their_means() -> None:
    spread = Spread.of_means([0.8, 1.0, 1.2], [0.01] * 3, 100)
    assert spread.mean == pytest.approx(1.0)
    assert spread.error == pytest.approx(0.2 / math.sqrt(3), rel=0.01)  # that of rows adds little
    assert spread.points_error == pytest.approx(0.01)


def test_rounding_is_no_difference(base: Tensor) -> None:
    single = LogDensity(base.float(), Kind.EXACT, "made")
    other = LogDensity(torch.nextafter(base.float(), torch.tensor(math.inf)), Kind.EXACT, "made")
    assert compare({"a": single, "b": other}).pairs[0].verdict is Verdict.EQUAL


def test_quadrature_widens_what_chance_does_not(base: Tensor) -> None:
    sure = claim(base)
    unsure = LogDensity(base - 0.1, Kind.EXACT, "quadrature", numerical_error=torch.full((N,), 0.2).double())
    assert compare({"a": sure, "b": unsure}).pairs[0].verdict is Verdict.OPEN


def test_what_would_settle_is_enough(base: Tensor, generator: Generator) -> None:
    """The number of points that is named for a small difference decides it about as often as is said."""
    small = Statement(Kind.EXACT, 0.02, 0.5 / math.sqrt(N), N - 1.0)
    needed = small.points_needed(N, 0.05)
    assert needed == pytest.approx((1.966 + 0.8416) ** 2 * (0.5 / 0.02) ** 2, rel=1e-3)
    seen = 0
    for _ in range(300):
        difference = 0.02 + 0.5 * torch.randn(int(needed), generator=generator, dtype=torch.float64)
        seen += compare({"a": claim(difference), "b": claim(torch.zeros_like(difference))}).pairs[0].proven
    assert abs(seen / 300 - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 300)
    found = compare({"a": claim(base), "b": claim(base - 0.01 + noise(generator))})
    assert "test points" in found.settled_by(found.pairs[0])


def test_draws_that_make_the_error_are_named(base: Tensor, generator: Generator) -> None:
    sampled = LogDensity(
        base + noise(generator, 0.5), Kind.ESTIMATE, "sampled", monte_carlo_error=torch.full((N,), 0.5).double()
    )
    found = compare({"a": sampled, "b": claim(base)})
    assert found.settled_by(found.pairs[0]).startswith("more draws for a or ")


def test_one_row_that_rules_a_mean_is_named(base: Tensor) -> None:
    broken = base.clone()
    broken[7] = -5000
    found = compare({"a": claim(base), "b": claim(broken)})
    ruled = next(each for each in found.standings if each.name == "b")
    assert ruled.ruled
    assert (ruled.worst_row, round(ruled.worst_share, 2)) == (7, 1.0)
    assert ruled.without_worst == pytest.approx(torch.cat([base[:7], base[8:]]).mean().item())
    assert "b: row 7 alone has 100% of the variance" in str(found)
    assert not any(each.ruled for each in found.standings if each.name == "a")


# ---------------------------------------------------------------------------------------------------------------------
# Several models, several fits
# ---------------------------------------------------------------------------------------------------------------------


def test_holm_is_the_step_down_procedure() -> None:
    assert holm([0.012, 0.04, 0.02, 0.9], 0.05) == [True, False, False, False]
    assert holm([0.012, 0.02, 0.016, 0.9], 0.05) == [True, True, True, False]
    assert holm([], 0.05) == []


def test_intervals_at_once_are_bonferronis(base: Tensor, generator: Generator) -> None:
    claims = {name: claim(base + noise(generator)) for name in "abc"}
    apart, at_once = compare(claims), compare(claims, simultaneous=True)
    assert at_once.level_of_pairs == pytest.approx(1 - 0.05 / 3)
    widths = [
        [float(row["high"] or 0) - float(row["low"] or 0) for row in each.differences()] for each in (apart, at_once)
    ]
    ratio = 2.4044 / 1.9659  # quantiles of t with 399 degrees of freedom
    assert widths[1] == pytest.approx([ratio * width for width in widths[0]], rel=1e-3)


def test_fits_that_differ_more_than_points_do_prove_nothing_of_the_models(base: Tensor, generator: Generator) -> None:
    ours = [claim(base + shift) for shift in (0.0, 1.0, 2.0)]
    theirs = [claim(base - 0.3 + shift + noise(generator, 0.1)) for shift in (2.0, 0.0, 1.0)]
    found = compare({"a": ours, "b": theirs})
    (pair,) = found.pairs
    assert pair.verdict is Verdict.FIRST
    assert pair.verdict_anew is Verdict.OPEN
    assert pair.anew is not None
    assert pair.anew.error == pytest.approx(math.sqrt(2 / 3), rel=0.02), "two sets of three with variance 1"
    assert pair.anew.freedom == pytest.approx(4, rel=0.02)
    assert "Proven of these models, fitted anew: nothing" in str(found)
    once = compare({"a": ours, "b": theirs[0]}).pairs[0]
    assert once.anew is None
    assert once.verdict_anew is Verdict.OPEN


def test_fits_at_points_of_their_own_are_compared_one_by_one(generator: Generator) -> None:
    x = torch.randn(3, 50, 2, generator=generator)
    values = torch.randn(3, 50, generator=generator, dtype=torch.float64)

    def at(shift: float) -> list[LogDensity]:
        rows = zip(values, x, strict=True)
        return [LogDensity(v + shift, Kind.EXACT, "made", points=Points.of(p)) for v, p in rows]

    (pair,) = compare({"a": at(0.5), "b": at(0.0)}).pairs
    assert pair.verdict_anew is Verdict.FIRST
    assert pair.fitted is not None
    assert pair.fitted.mean == pytest.approx(0.5)
    with pytest.raises(ValueError, match="same number and order"):
        compare({"a": at(0.5), "b": at(0.0)[:2]})
    with pytest.raises(ValueError, match="other rows, or the same in another order"):
        compare({"a": at(0.5), "b": at(0.0)[::-1]})


def test_measures_stay_apart(base: Tensor) -> None:
    found = compare({"a": claim(base), "b": claim(base + 1), "mass": claim(base, measure=Measure.COUNTING)})
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b")]
    assert "not compared" in str(found)
    assert "counting measure" in str(found)
    with pytest.raises(KeyError, match="two models of one measure"):
        found.pair("a", "mass")


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


def test_models_are_asked_in_the_strongest_way_or_by_a_method_of_their_own(generator: Generator) -> None:
    x = torch.randn(40, 3, generator=generator)
    models = {"full": Gaussian(3), "PPCA": PPCA(3, 1), "vae": VAE.gaussian(3, 1, hidden=(4,))}
    models["full"].fit(x)
    models["PPCA"].fit(x)
    found = compare(models, x, generator=generator)
    kinds = {each.name: each.kind for each in found.standings}
    assert kinds == {"full": Kind.EXACT, "PPCA": Kind.EXACT, "vae": Kind.EXACT}
    gaps = {each.name: each.gap for each in found.standings}
    assert math.isnan(gaps["full"])
    assert gaps["PPCA"] == pytest.approx(0, abs=1e-5)
    assert gaps["vae"] > 0
    weighted = compare(models, x, method={"vae": partial(importance, draws=20)}, generator=generator)
    assert {each.kind for each in weighted.standings if each.name == "vae"} == {Kind.LOWER}
    assert found.to_dataframe().loc["PPCA", "parameters"] == PPCA(3, 1).parameter_count
    differences = found.to_dataframe(differences=True)
    assert list(differences.index) == [("full", "PPCA"), ("full", "vae"), ("PPCA", "vae")]
    assert differences.equals(pd.DataFrame(found.differences()).set_index(["first", "second"]))
    bits = found.bits_per_dimension()
    assert bits["full"].mean == pytest.approx(-found.claims["full"][0].mean / (3 * math.log(2)), abs=1e-6)


def test_a_frame_without_pairs_and_without_pandas(base: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare({"alone": claim(base)})
    assert found.to_dataframe(differences=True).empty
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas: pip install pandas; without it rows\(\)"):
        found.to_dataframe()


def test_a_context_goes_to_those_that_have_one(generator: Generator) -> None:
    x, context = torch.randn(30, 2, generator=generator), torch.randn(30, 1, generator=generator)
    conditional, plain = maf(2, 1, (4,), context_features=1), Gaussian(2)
    plain.fit(x)
    found = compare({"c": conditional, "plain": plain}, x, context=context)
    expected = conditional.log_prob(x, context).detach()
    torch.testing.assert_close(found.claims["c"][0].value, expected)


def test_bad_input_has_one_clear_error(base: Tensor) -> None:
    good = claim(base)
    chancy = LogDensity(torch.zeros(3), Kind.UPPER, "made", confidence=0.95)
    with pytest.raises(ValueError, match=r"'one' is of kind upper bound at 95 %, and what that leaves to chance"):
        compare({"one": chancy}, None)
    with pytest.raises(ValueError, match="needs models by name"):
        compare({})
    with pytest.raises(TypeError, match="'a' is of float; expected a model, a LogDensity"):
        compare({"a": 3.0})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'a' has no fit"):
        compare({"a": []})
    with pytest.raises(ValueError, match="needs points x"):
        compare({"a": Gaussian(2)})
    with pytest.raises(ValueError, match=r"level must be at least 0\.5"):
        compare({"a": good}, level=95)
    with pytest.raises(ValueError, match="margin"):
        compare({"a": good}, margin=-1.0)
    with pytest.raises(ValueError, match="method names c"):
        compare({"a": good}, method={"c": importance})
    with pytest.raises(ValueError, match="give features="):
        compare({"a": good}).bits_per_dimension()
    with pytest.raises(ValueError, match=r"same number and order|ask all models about the same"):
        compare({"a": good, "b": claim(base[:-1])})
