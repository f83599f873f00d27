"""The random streams of a fit: where they stand, and streams of their own for the parts of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

from density.parallel import processes

GIVEN, HOST, ACCELERATOR = "given", "host", "accelerator"


class Randomness:
    """The generators that a computation draws from: the one it was given, and torch's own.

    Networks draw from torch's own even where a generator is given (dropout does).

    Args:
        generator: the one that was given, if one was.
        device: whose own generator belongs to the computation, besides that of the CPU.

    >>> randomness = Randomness(Generator().manual_seed(0), torch.device("cpu"))
    >>> state = randomness.state()
    >>> first = torch.randn(3, generator=randomness.generator)
    >>> randomness.restore(state)
    >>> bool((torch.randn(3, generator=randomness.generator) == first).all())
    True
    """

    def __init__(self, generator: Generator | None, device: torch.device) -> None:
        self.generator = generator
        self.device = device

    @property
    def seed(self) -> int | None:
        """The seed of the generator that was given, wherever it stands by now; None without one."""
        return None if self.generator is None else self.generator.initial_seed()

    def state(self) -> dict[str, Tensor]:
        """Where every generator stands: a few kilobytes, on the CPU."""
        state = {HOST: torch.get_rng_state()}
        if self.generator is not None:
            state[GIVEN] = self.generator.get_state()
        if self.device.type == "cuda":
            state[ACCELERATOR] = torch.cuda.get_rng_state(self.device)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put every generator back to where it stood."""
        torch.set_rng_state(state[HOST])
        if self.generator is not None:
            self.generator.set_state(state[GIVEN])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state[ACCELERATOR], self.device)

    def place_in_words(self, state: dict[str, Tensor]) -> str:
        """Where a computation draws whose generators stand like that."""
        return "an accelerator" if ACCELERATOR in state else "the CPU"

    def differs(self, state: dict[str, Tensor]) -> bool:
        """Does the generator that this computation chiefly draws from stand elsewhere than it did?"""
        own = GIVEN if self.generator is not None else ACCELERATOR if self.device.type == "cuda" else HOST
        return own not in state or not state[own].equal(self.state()[own])


@contextmanager
def lent(generator: Generator | None) -> Iterator[None]:
    """Torch's own random numbers, on the generator's device, are those of the generator, which moves on with them.

    Afterwards torch's own stand where they stood. None changes nothing.

    >>> generator, again = Generator().manual_seed(0), Generator().manual_seed(0)
    >>> with lent(generator):
    ...     x = torch.randn(3)
    >>> bool(x.equal(torch.randn(3, generator=again))), generator.get_state().equal(again.get_state())
    (True, True)
    """
    if generator is None:
        yield
        return
    own = Randomness(None, generator.device)
    before, place = own.state(), ACCELERATOR if generator.device.type == "cuda" else HOST
    own.restore({**before, place: generator.get_state()})
    try:
        yield
        generator.set_state(own.state()[place])
    finally:
        own.restore(before)


class Streams:
    """Independent streams of random numbers, numbered from 0, that follow from one draw of a generator.

    On several processes, all of which make one, the draw of the first counts.

    Stream i is seeded with (start + 2i) mod 2³², so that no two of the first 2³¹ are alike: torch's generator on the
    CPU takes 32 bits of its seed. While a stream is in use, torch's own generators are seeded with the number beside
    it, and afterwards stand where they stood.

    Args:
        generator: draws the start, once; torch's own, if None.
        device: of the streams and of the generator.
    """

    def __init__(self, generator: Generator | None, device: torch.device) -> None:
        start = int(torch.randint(2**32, (), generator=generator, device=device).item())
        self.start = processes.from_main(lambda: start)
        self.device = device
        self._stream = Generator(device)

    @contextmanager
    def at(self, index: int) -> Iterator[Generator]:
        """Stream ``index``, from its beginning."""
        seed = (self.start + 2 * index) % 2**32
        own = Randomness(None, self.device)
        before = own.state()
        torch.default_generator.manual_seed(seed ^ 1)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed ^ 1)
        try:
            yield self._stream.manual_seed(seed)
        finally:
            own.restore(before)
