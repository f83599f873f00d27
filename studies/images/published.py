"""Bits per dimension from the literature, to stand beside ours: recalled, not looked up, and of other settings."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from studies.images.standings import Standing
from studies.kit.tables import empty
from studies.literature import Known


@dataclass(frozen=True)
class Published:
    """A number of one model.

    Attributes:
        data: the images, by our name for them.
        model: as the paper calls it.
        bits: per dimension, an upper bound or an estimate of it.
        source: paper and setting.
        like: which of our models is of that kind.
    """

    data: str
    model: str
    bits: float
    source: str
    like: str


MAF = "Papamakarios et al. 2017: logits, 50,000 images to fit"
FFJORD = "Grathwohl et al. 2019, table 2: 60,000 images"
SYLVESTER = "van den Berg et al. 2018: split 1565/200/200, 5,000 draws"
TABLE = (
    Published("mnist", "Gaussian", 2.01, MAF, "gaussian"),
    Published("mnist", "Real NVP (5)", 1.93, MAF, "nvp-wide"),
    Published("mnist", "Real NVP, multi-scale", 1.06, FFJORD, "glow"),
    Published("mnist", "Glow", 1.05, FFJORD, "glow"),
    Published("mnist-binary", "VAE, 50 latents", 0.163, "Burda et al. 2016: 88.71 nats, 50,000 images", "vae"),
    Published("frey-faces", "VAE, logistic of 256 levels", 4.40, SYLVESTER, "vae"),
    Published("frey-faces", "VAE, inverse autoregressive posterior", 4.38, SYLVESTER, "vae"),
)


def published_table(ours: dict[tuple[str, str], Standing]) -> Table | None:
    """Published bits per dimension beside ours of the same kind; None where nothing was published of our images.

    Of flows papers give the density of pixels with one draw of noise, so that ours beside it is that too.

    Args:
        ours: by data and model.
    """
    lines = [line for line in TABLE if (line.data, line.like) in ours]
    if not lines:
        return None
    words, numbers = ["images", "model", "setting", "read"], ["published", "ours", "of"]
    found = empty("Published bits per dimension beside ours of that kind", words, numbers, wrap=True)
    for line in lines:
        own = ours[line.data, line.like]
        bits = f"{own.density_bits:.2f}" if own.adds_noise else f"≤ {own.bits:.2f}"
        reached = "" if (own.density_bits if own.adds_noise else own.bits) <= line.bits else ", missed"
        known = Known.RECALLED.value
        found.add_row(line.data, line.model, line.source, known, f"{line.bits:.2f}", bits + reached, own.label)
    found.caption = "Their networks, budgets and numbers of training images are not ours"
    return found
