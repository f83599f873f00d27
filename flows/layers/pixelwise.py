"""One transform at every pixel."""

from __future__ import annotations

from torch import Tensor

from density.checks import check_count
from density.initialisation import StartingPoints
from density.support import Step, Support, preimage
from flows.networks.columns import by_columns
from flows.transform import Transform


class PixelWise(Transform):
    r"""A transform of the channels, one and the same at each of P pixels; log-determinants add.

    With a :class:`~flows.Linear` it is the invertible 1×1 convolution (Kingma & Dhariwal 2018,
    arXiv:1807.03039, §3.2), with an :class:`~flows.ActNorm` the activation norm of images, whose
    mean and standard deviation are those of a channel over all pixels of all images:

    .. math:: z_{\cdot p} = f(x_{\cdot p}; c), \qquad
              \log|\det \partial z/\partial x| = \sum_p \log|\det \partial f/\partial x_{\cdot p}|

    Points are flat, channel by channel: D = C·P. A context goes to every pixel.

    Args:
        transform: f, of C features.
        pixels: P.

    Raises:
        TypeError: not a Transform.
        ValueError: the transform takes any width, so that it does not say C, or pixels is not a positive int.

    Cost: that of the transform for nP points; its parameters are O(C²) where those of a linear layer of all are O(D²).

    >>> import torch
    >>> from flows import LULinear
    >>> layer = PixelWise(LULinear.from_matrix(torch.tensor([[0.0, 2.0], [1.0, 0.0]])), pixels=3)
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 30.0]))
    >>> z.tolist(), round(log_det.exp().item(), 4)
    ([20.0, 40.0, 60.0, 1.0, 2.0, 3.0], 8.0)
    """

    features: int

    def __init__(self, transform: Transform, pixels: int) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(transform, Transform):
            raise TypeError(f"{owner} takes a Transform; got a {type(transform).__name__}")
        if transform.features is None:
            raise ValueError(
                f"{owner} expects a transform of as many features as there are channels; got a "
                f"{type(transform).__name__} of any width, which needs no pixels: take it as it is"
            )
        self.transform = transform
        self.channels = transform.features
        self.pixels = pixels = check_count(pixels, f"{owner}: pixels")
        self.features = self.channels * pixels
        self.context_features = transform.context_features

    @property
    def domain(self) -> Support | None:
        return self._everywhere(self.transform.domain)

    @property
    def image(self) -> Support | None:
        return self._everywhere(self.transform.image)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._forward_columns, x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._inverse_columns, z, context)

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.transform._forward_columns(self._channels(x), self._at_every_pixel(context))
        return z.reshape(x.shape), self._summed(log_det, x)

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.transform._inverse_columns(self._channels(z), self._at_every_pixel(context))
        return x.reshape(z.shape), self._summed(log_det, z)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        seen = x.mapped(lambda x: self._points(x).flatten(0, -2))
        given = context.mapped(lambda c: c.flatten(0, -2).repeat_interleave(self.pixels, 0))
        self.transform._initialise(seen, given)
        return self._onward(x, context)

    def _points(self, x: Tensor) -> Tensor:
        """The pixels ``[*batch, P, C]`` of points ``[*batch, D]``."""
        return x.unflatten(-1, (self.channels, self.pixels)).transpose(-1, -2)

    def _channels(self, x: Tensor) -> Tensor:
        """Points as columns ``[D, n]`` as pixels as columns, ``[C, P·n]``: a view where columns lie in a row."""
        return x.reshape(self.channels, self.pixels * x.shape[1])

    def _at_every_pixel(self, context: Tensor | None) -> Tensor | None:
        return context if context is None or not self.context_features else context.repeat(1, self.pixels)

    def _summed(self, log_det: Tensor, x: Tensor) -> Tensor:
        """Over the pixels, and the rows ``[k, P·n]`` that log-determinants may be."""
        return log_det.unflatten(-1, (self.pixels, x.shape[1])).flatten(0, -2).sum(0)

    def _everywhere(self, support: Support | None) -> Support | None:
        return preimage([Step("", None, self._points), Step(f"at a pixel, {type(self.transform).__name__}", support)])
