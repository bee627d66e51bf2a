"""The protocol of the papers: a period of pre-training, a gap of one attribution window, then predict and train.

    begun          midnight before the first impression
    until          begun + pretrain: impressions before it are learned once, when they are settled, by one learner,
                   `pretrained`
    stream         until + window: by then all of them are settled; every method starts here, from those weights

Impressions of the gap are not judged. At the start of the stream each method first takes the looks of the gap, as its
schedule says: looks are a function of the facts, so they can be asked for again. Delayed positives, and other later looks,
of impressions before the gap are among them: in a stream that runs for long as many come in as are still to come, and
without them the level would be too low. Auxiliary models hear of outcomes all the while, as they arrive. River's
classifiers cannot start from our weights: each learns from the same settled labels of the pre-training by itself.
"""

import numpy as np
from numpy.typing import NDArray

from labelstore.observations import Look, Observations
from labelstore.retention import DAY
from stream.learning import PRETRAINED
from stream.settings import RIVER, Settings
from stream.watermark import BEGINNING, END


class Pretraining:
    """When which learner learns. Without a pre-training everything is stream."""

    def __init__(self, settings: Settings) -> None:
        self._pretrain, self._window = settings.pretrain, settings.window
        self.until = self.stream = END if self._pretrain else BEGINNING
        self.over = not self._pretrain

    def begin(self, first: int) -> None:
        """The first impression has passed, shown at ``first``, ms."""
        if self._pretrain and self.until == END:
            self.until = first - first % DAY + self._pretrain
            self.stream = self.until + self._window

    def learns(self, name: str, seen: Observations) -> NDArray[np.bool_]:
        """Which looks a learner may learn from."""
        before = np.asarray((seen.shown_at < self.until) & (seen.at < self.stream))
        after = np.asarray((seen.shown_at >= self.until) & (seen.at >= self.stream))
        return before if name == PRETRAINED else before | after if name.startswith(RIVER) else after

    def of_gap(self, seen: Observations) -> NDArray[np.bool_]:
        """Which looks of the gap a method takes at the start of the stream."""
        return np.asarray((seen.shown_at >= self.until) | (seen.look != Look.FIRST))

    def state(self) -> list[int]:
        """What a checkpoint keeps."""
        return [self.until, self.stream, int(self.over)]

    def restore(self, state: list[int]) -> None:
        """Go on from `state`."""
        self.until, self.stream = state[:2]
        self.over = bool(state[2])
