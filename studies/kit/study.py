"""What a study is made of: keys that name rows, tasks that compute them, claims that they decide, and its parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Generic, Self, TypeVar

from significance import Decision, Verdict
from studies.kit.rows import Row
from studies.kit.settings import CommonSettings


@dataclass(frozen=True)
class Key:
    """What names a row among those of equal settings; a study's own key adds columns.

    A row is a function of settings, data and key, and of nothing else: so it need not be computed twice.

    >>> @dataclass(frozen=True)
    ... class OfAModel(Key):
    ...     model: str
    >>> OfAModel("digits", "0f3a", 0, model="ppca").model
    'ppca'
    """

    data: str
    data_hash: str
    seed: int


K = TypeVar("K", bound=Key)
D = TypeVar("D")


@dataclass(frozen=True, eq=False)
class Task(Generic[K, D]):
    """A row that can be computed, from its data, by the study's ``measure``.

    Attributes:
        key: the columns that name the row.
        data: what the key's name and hash stand for; None where a study simulates its data.
        label: what to call the task while it runs; empty for rows that take no time.
        makes: files that are written beside the row; where one is missing the row counts as unfinished.
        needs: files that must be there, or else the task is passed over.
        refused: why this data is none for it, in words; it is then left out, and the run says so.

    >>> task = Task(Key("digits", "0f3a", seed=0), None, label="seed 0")
    >>> task.key.seed, task.refused
    (0, '')
    """

    key: K
    data: D
    label: str = ""
    makes: tuple[Path, ...] = ()
    needs: tuple[Path, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Check:
    """What must hold of any run, decided by its own numbers, if they do: an identity, an order of bounds, a bar.

    Attributes:
        claim: in words.
        passed: whether it holds; None where so few points, columns or steps cannot tell, and the claim says why.
        expected, measured: numbers, or nothing.
    """

    claim: str
    passed: bool | None
    expected: str = ""
    measured: str = ""

    @classmethod
    def at_the_end(cls, claim: str, holds: bool, spent: int, enough: int, unit: str) -> Self:
        """A claim about where a fit ends: one that does not hold yet, after too few steps, is undecided.

        >>> print(Check.at_the_end("it is close", False, 20, 100, "epochs").claim)
        it is close: not after 20 epochs, of which 100 are enough
        """
        if holds or spent >= enough:
            return cls(claim, holds)
        return cls(f"{claim}: not after {spent:,} {unit}, of which {enough:,} are enough", None)

    @property
    def verdict(self) -> str:
        """In a word.

        >>> [Check("", passed).verdict for passed in (True, False, None)]
        ['passed', 'FAILED', 'undecided']
        """
        return "undecided" if self.passed is None else "passed" if self.passed else "FAILED"

    @property
    def failed(self) -> bool:
        """Whether something is wrong with the run, or with the code."""
        return self.passed is not None and not self.passed  # numpy's False too


@dataclass(frozen=True)
class Finding(Check):
    """A claim about models or methods, which may come out either way: no run fails by it.

    ``passed`` is True where the claim is confirmed, False where its opposite is, None where it is open: of the fits
    that were made.

    Attributes:
        anew: the same of models fitted anew, in a word; empty of one seed, or of what no seed decides.
    """

    anew: str = ""

    @classmethod
    def of(cls, claim: str, decision: Decision, measured: str = "", expected: str = "") -> Self:
        """Whether a number, in nats where ``measured`` does not say it, is positive, as was decided with others.

        >>> from significance import decisions, over_seeds
        >>> found = decisions({"gain": over_seeds([1.0, 1.4], [0.1, 0.1], 100)})
        >>> finding = Finding.of("layers gain", found["gain"])
        >>> finding.verdict, finding.anew, finding.measured
        ('confirmed', 'open', '1.20 ± 0.10 nats')
        """
        anew = "" if decision.anew is None else TOLD[PASSED[decision.verdict_anew]]
        number = f"{decision.fitted.mean:.2f} ± {decision.fitted.error:.2f} nats"
        return cls(claim, PASSED[decision.verdict], expected, measured or number, anew)

    @property
    def verdict(self) -> str:
        """In a word.

        >>> [Finding("", passed).verdict for passed in (True, False, None)]
        ['confirmed', 'the opposite', 'open']
        """
        return TOLD[self.passed]

    @property
    def failed(self) -> bool:
        """Never: a disagreement is a result."""
        return False


PASSED = {Verdict.FIRST: True, Verdict.SECOND: False, Verdict.EQUAL: None, Verdict.OPEN: None}
TOLD = {True: "confirmed", False: "the opposite", None: "open"}


@dataclass(frozen=True)
class Study:
    """A study by its package, whose parts are imported when they are first asked for.

    - The package itself holds the docstring and nothing else.
    - ``settings``: ``Settings``, ``Key``, and ``tasks(settings)``, the rows that there are to be.
    - ``measure``: ``measure(settings, task)``, the columns of a row beside its key. No other part loads torch.
    - ``report``: ``table(rows)``, ``figure(rows)``, ``checks(rows)``, and ``selected(settings, rows)`` where settings
      choose among rows by more than their seeds.

    >>> study = Study("studies.elbo_gap")
    >>> study.name, study.settings().data, study.key
    ('elbo_gap', 'digits', ('study', 'settings_hash', 'data', 'data_hash', 'seed', 'model', 'versus'))
    """

    package: str

    @property
    def name(self) -> str:
        """The last word of the package's."""
        return self.package.rpartition(".")[2]

    @property
    def text(self) -> str:
        """The docstring."""
        return resolve_name(self.package).__doc__ or ""

    @property
    def settings(self) -> type[CommonSettings]:
        """The class of its settings."""
        return self._part("settings").Settings

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row in a file of rows."""
        return ("study", "settings_hash", *(field.name for field in fields(self._part("settings").Key)))

    def tasks(self, settings: CommonSettings) -> Iterable[Task[Key, Any]]:
        """The rows that a run with these settings consists of, in the order in which they are computed."""
        return self._part("settings").tasks(settings)

    def measure(self, settings: CommonSettings, task: Task[Key, Any]) -> Row:
        """Compute a row's columns; ``dtype`` and ``seconds`` are added where it does not say them."""
        return self._part("measure").measure(settings, task)

    @property
    def report(self) -> Any:  # noqa: ANN401 - a module
        """The part that draws and judges rows."""
        return self._part("report")

    def shows(self, data: str) -> str:
        """What its figure shows of some data, in words: the docstring of ``figure``."""
        return f"{self.name} on {data}. {' '.join((self.report.figure.__doc__ or '').split())}".strip()

    def _part(self, name: str) -> Any:  # noqa: ANN401
        return resolve_name(f"{self.package}.{name}")
