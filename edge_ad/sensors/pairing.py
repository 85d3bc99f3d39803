"""Whether the two pictures of a frame belong together: a camera repeats the old picture of a stream that lags."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pairing:
    """Call it with every pair in order. ``missed``: numbers that the camera left out so far.

    skew_s : colour and depth further apart than this are no pair.
    """

    skew_s: float
    missed: int = 0
    _before: tuple[int, int] | None = None

    def __call__(
        self, numbers: tuple[int, int], times: tuple[float, float], clocks: tuple[str, str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(flags, health reasons) of a pair; each argument is (depth, colour), times in seconds."""
        flags, health = [], []
        before, self._before = self._before, numbers
        if before is not None:
            again = [i for i in (0, 1) if before[i] == numbers[i]]
            flags += ["repeated"] if len(again) == 2 else []
            health += [f"the {('depth', 'colour')[i]} picture is an old one (number {numbers[i]})" for i in again]
            self.missed += max(0, max(now - old for now, old in zip(numbers, before, strict=True)) - 1)
        apart = times[1] - times[0]
        if clocks[0] != clocks[1]:
            health.append(f"depth and colour are timed by two clocks ({clocks[0]}, {clocks[1]})")
        elif abs(apart) > self.skew_s:
            word = "ahead of" if apart > 0 else "behind"
            health.append(f"colour is {abs(apart) * 1e3:.0f} ms {word} depth (limit {self.skew_s * 1e3:.0f} ms)")
        return tuple(flags), tuple(health)
