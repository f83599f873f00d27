"""Formulas in plain letters, such as ``log p(x) = ELBO + KL(q(z|x) ‖ p(z|x))``, as MathML, which browsers typeset."""

from __future__ import annotations

import re
from html import escape

FUNCTIONS = frozenset({"log", "exp", "det", "max", "min", "arg", "diag", "sd"})
ACCENTS = {"\u0302": "^", "\u0304": "¯", "\u0303": "~"}  # combining hat, bar, tilde
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀᵏᵗᶜᴰ", "0123456789+−TktcD", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ᵢⱼₖₜᵩ", "0123456789+−ijktφ", strict=True))
LARGE = "Σ∏∫"
KINDS = {**dict.fromkeys("TktcDijkφ", "i"), **dict.fromkeys("+−", "o")}  # of signs that are raised or lowered
TOKEN = re.compile(
    r"(?P<number>\d[\d,]*(?:\.\d+)?)|(?P<word>[A-Za-zΑ-ΩΓ-ωŁ∇∂ϕ]\u0302?(?:[A-Za-z]\u0302?)*)|(?P<half>[½¼⅓])"
    r"|(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀᵏᵗᶜᴰ]+)|(?P<lowered>[₀-₉₊₋ᵢⱼₖₜᵩ]+)|(?P<script>[\^_])|(?P<space>\s+)|(?P<other>.)"
)
# What in running text is a formula: an application of p, q, KL, … with its parentheses, or a letter with an index.
START = re.compile(
    r"(?<![\w])(?:−|½\s|E\s)?(?:log\s)?(?:(?:p̂|p|q|KL|N|δ|f|g|exp|ELBO)(?=\()|log\s(?:det|p̂)(?![\w(])|\|(?=ELBO\())"
    r"|(?<![\w])[σβθφλ](?:[²ᵢ]|(?![\w]))|(?<![\w])(?:f⁻¹|WᵀW|√[βK])"
)


def mathml(formula: str, *, display: bool = False) -> str:
    """A formula as a ``<math>`` element; ``^`` and ``_`` raise and lower what follows, in parentheses or not.

    >>> mathml("σ²")
    '<math><msup><mi>σ</mi><mn>2</mn></msup></math>'
    """
    block = ' display="block"' if display else ""
    return f"<math{block}>{_row(_tokens(formula))}</math>"


def _tokens(formula: str) -> list[tuple[str, str]]:
    """Kinds and texts; what is raised or lowered by its letters is a script of that row."""
    found: list[tuple[str, str]] = []
    for match in TOKEN.finditer(formula):
        kind, text = str(match.lastgroup), match[0]
        if kind in ("raised", "lowered"):
            table = SUPERSCRIPTS if kind == "raised" else SUBSCRIPTS
            found += [("script", "^" if kind == "raised" else "_"), ("group", "".join(table[sign] for sign in text))]
        else:
            found.append((kind, text))
    return found


def _row(tokens: list[tuple[str, str]]) -> str:
    parts: list[str] = []
    place = 0
    while place < len(tokens):
        kind, text = tokens[place]
        if kind == "script":
            place, script = _argument(tokens, place + 1)
            base = parts.pop() if parts else "<mrow></mrow>"
            parts.append(f"<m{'sup' if text == '^' else 'sub'}>{base}{script}</m{'sup' if text == '^' else 'sub'}>")
        elif text == "√":
            place, radicand = _argument(tokens, place + 1)
            parts.append(f"<msqrt>{radicand}</msqrt>")
        else:
            apart = text in FUNCTIONS and bool(parts) and parts[-1].endswith("</mi>")
            parts.append(('<mspace width="0.17em"/>' if apart else "") + _atom(kind, text))
            place += 1
    return "".join(filter(None, parts))


def _argument(tokens: list[tuple[str, str]], place: int) -> tuple[int, str]:
    """Where an argument ends, and what it is: a row in parentheses, which are dropped, or one atom."""
    if place >= len(tokens):
        return place, "<mrow></mrow>"
    kind, text = tokens[place]
    if kind == "group":
        signs = [f"<m{KINDS.get(sign, 'n')}>{sign}</m{KINDS.get(sign, 'n')}>" for sign in text]
        return place + 1, signs[0] if len(signs) == 1 else f"<mrow>{''.join(signs)}</mrow>"
    if text != "(":
        return place + 1, _atom(kind, text)
    depth, end = 1, place + 1
    while end < len(tokens) and depth:
        depth += {"(": 1, ")": -1}.get(tokens[end][1], 0)
        end += 1
    return end, f"<mrow>{_row(tokens[place + 1 : end - 1])}</mrow>"


def _atom(kind: str, text: str) -> str:
    if kind == "space":
        return ""
    if kind in ("number", "half"):
        return f"<mn>{text}</mn>"
    if text in LARGE:
        return f'<mo largeop="false">{text}</mo>'
    if kind == "word":
        if len(text) == 2 and text[1] in ACCENTS:
            return f'<mover accent="true"><mi>{text[0]}</mi><mo>{ACCENTS[text[1]]}</mo></mover>'
        if len(text) > 1 and text not in FUNCTIONS and text.islower() and text.isascii():
            return f'<mspace width="0.3em"/><mtext>{escape(text)}</mtext><mspace width="0.3em"/>'
        space = '<mspace width="0.17em"/>' if text in FUNCTIONS else ""
        return f"<mi>{escape(text)}</mi>{space}"
    stretch = ' stretchy="false"' if text in "()[]|‖" else ""
    return f"<mo{stretch}>{escape(text)}</mo>"


def inline(text: str) -> str:
    """A paragraph as HTML, with what is a formula in it typeset; the rest is escaped.

    >>> inline("the gap log p(x) − ELBO < 1").replace("<mi>", "").replace("</mi>", "")[:44]
    'the gap <math>log<mspace width="0.17em"/>p<m'
    """
    found, last = [], 0
    for match in START.finditer(text):
        if match.start() < last:
            continue
        end = _closing(text, match.end())
        found += [escape(text[last : match.start()], quote=False), mathml(text[match.start() : end])]
        last = end
    return "".join([*found, escape(text[last:], quote=False)])


def _closing(text: str, place: int) -> int:
    """Where the parentheses that begin here are closed, with what is raised behind them; here, if none begin."""
    if place >= len(text) or text[place] != "(":
        return place
    depth = 0
    for end in range(place, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            return end + 1
    return place
