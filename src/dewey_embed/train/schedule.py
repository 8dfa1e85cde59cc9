"""How far a run has come, in steps or in minutes, and what learning rate belongs there."""

from __future__ import annotations

import time

from accelerate.utils import broadcast_object_list


class Progress:
    """The share of a run that is done: of its steps, or of its minutes where those end first.

    `elapsed_s` is the time that earlier processes of the same run have used. Shares and rates are
    those of the time noted last, which is the first process's: two that read their own clocks would
    train at two rates, and one might stop while the other waits for it.
    """

    def __init__(
        self, max_steps: int, *, max_minutes: float | None = None, elapsed_s: float = 0.0
    ) -> None:
        self.max_steps = max_steps
        self.max_minutes = max_minutes
        self._earlier_s = elapsed_s
        self._started_s = time.monotonic()
        self._noted_s = elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run has taken, those of earlier processes included."""
        return self._earlier_s + time.monotonic() - self._started_s

    def note(self) -> None:
        """Nothing; shares and rates are then of this moment, in all processes."""
        if self.max_minutes is not None:
            [self._noted_s] = broadcast_object_list([self.elapsed_s])

    def share(self, step: int) -> float:
        """The share done after `step` steps, from 0 to 1."""
        shares = [step / self.max_steps]
        if self.max_minutes is not None:
            shares.append(self._noted_s / (60 * self.max_minutes))
        return min(1.0, max(shares))

    def rate(self, step: int, warmup_steps: int) -> float:
        """The factor on every learning rate: up over the warm-up, then linearly to nothing.

        Source: arXiv 2503.20376 §4, 2000 warm-up steps and linear decay.
        """
        return min(1.0, (step + 1) / (warmup_steps + 1)) * (1.0 - self.share(step))
