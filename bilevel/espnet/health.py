"""The alarm for collapsed self-supervision: labels or states that are the same everywhere."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FLOORS = {
    "ssl_label_perplexity": "min_perplexity",
    "ssl_enhanced_perplexity": "min_perplexity",
    "ssl_feature_std": "min_feature_std",
}


@dataclass
class Health:
    """Stops a training when the mean of a health signal of a source over the last `window` steps is below its floor.

    A perplexity of 1 means that all frames have one label; a standard deviation of 0 over frames, that the encoder
    gives the same state everywhere. Either makes the loss easy and the encoder worthless, while the curves look fine.

    Attributes:
        window: Steps to average over; also how soon the alarm can come.
        min_perplexity: Floor of the perplexities of the labels.
        min_feature_std: Floor of the standard deviation of the states.
        enabled: False lets everything pass.
    """

    window: int = 100
    min_perplexity: float = 2.0
    min_feature_std: float = 0.01
    enabled: bool = True
    _seen: dict[tuple[str, str], deque[float]] = field(default_factory=dict, init=False, repr=False)

    def check(self, stats: Mapping[str, Any], step: int, source: str = "") -> None:
        """Take the statistics of a step on the batch of a source; "" where there is one source only.

        Raises:
            ValueError: A signal has collapsed.
        """
        for name, floor_name in FLOORS.items():
            if not self.enabled or name not in stats or not math.isfinite(float(stats[name])):
                continue
            seen = self._seen.setdefault((source, name), deque(maxlen=self.window))
            seen.append(float(stats[name]))
            mean, floor = math.fsum(seen) / len(seen), getattr(self, floor_name)
            if len(seen) == self.window and mean < floor:
                where = f" of source {source}" if source else ""
                raise ValueError(
                    f"step {step}: self-supervision has collapsed: {name}{where} is {mean:.3g} over the last "
                    f"{self.window} steps, expected at least {floor} (health_conf.{floor_name}). Lower the learning "
                    "rate or the weight of labels that the model makes itself; health_conf.enabled=false goes on "
                    "regardless"
                )
