"""How much a level counts, as a function of the epoch; so a resumed run needs no state for it."""

import math
from collections.abc import Sequence


class Schedule:
    """Straight lines between points (epoch, value), constant before the first and after the last.

    A ramp of 0.02 an epoch from 0 up to 1.5 is [[0, 0], [75, 1.5]]. Two points at one epoch are a jump, whose second
    value holds from there on.

    Args:
        points: Pairs (epoch, value) in rising order, value >= 0; a number is constant.
        per: "epoch" holds the value through an epoch, "step" lets it move within.

    Raises:
        ValueError: Points that do not rise, a negative value, or an unknown `per`.
    """

    def __init__(self, points: float | Sequence[Sequence[float]] = 1.0, per: str = "epoch") -> None:
        pairs = [(0.0, float(points))] if isinstance(points, int | float) else [(float(e), float(v)) for e, v in points]
        epochs = [epoch for epoch, _ in pairs]
        if not pairs or epochs != sorted(epochs) or not all(v >= 0 and math.isfinite(v) for _, v in pairs):
            raise ValueError(f"scale {points}: expected a number >= 0 or pairs [epoch, value >= 0] in rising order")
        if per not in ("epoch", "step"):
            raise ValueError(f"per {per!r}: expected epoch or step")
        self.points, self.per = pairs, per

    def value(self, epoch: float) -> float:
        """Value at an epoch; 2.5 is the middle of the third one."""
        at = math.floor(epoch) if self.per == "epoch" else epoch
        before = [point for point in self.points if point[0] <= at]
        after = [point for point in self.points if point[0] > at]
        if not before or not after:
            return before[-1][1] if before else after[0][1]
        (x0, y0), (x1, y1) = before[-1], after[0]
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
