"""Counts and names the samples that were skipped, in the run's folder, its log and its loggers."""

import fcntl
import json
import logging
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import final

from lightning.pytorch import Trainer

from datamodules.sample import Skipped
from pretzel.errors import UserError

FILE_NAME = "skipped.jsonl"
"""File in the folder of a run: one line of JSON with shard, key, reason and detail a sample."""
_NUM_NAMED = 5
_NUM_KEPT = 1000
_LOG = logging.getLogger(__name__)


@final
class SkipLog:
    """Counts every skipped sample once by its reason, however often it is read.

    Args:
        max_skipped: Share of skipped samples, among the last ``window`` that were looked at, above
            which the run stops.
        window: Number of samples that the share is of. The run does not stop before
            ``max_skipped * window`` have been skipped: ten bad samples in a row are no share.
    """

    def __init__(self, max_skipped: float, window: int = 1000) -> None:
        self.max_skipped = max_skipped
        self.window = window
        self.counts: Counter[str] = Counter()
        """Different skipped samples by reason: those of all processes of the run in process 0."""
        self._samples: list[Skipped] = []
        self._known: set[int] = set()  # hashes: a run may skip a million samples
        self._recent: deque[tuple[int, Counter[str]]] = deque()
        self._recent_seen = 0
        self._recent_reasons: Counter[str] = Counter()
        self._last: dict[str, Skipped] = {}  # by reason
        self._file: Path | None = None
        self._file_position = 0
        self._trainer: Trainer | None = None
        self._num_reported = 0
        self._num_warned = 0
        self._next_step = 0

    @property
    def samples(self) -> tuple[Skipped, ...]:
        """The skipped samples in the order in which they were first read, at most a thousand."""
        return tuple(self._samples)

    def follow(self, trainer: Trainer) -> None:
        """Write into the folder and the loggers of a run from now on; all ranks must call it.

        What the folder names already, from before a resume, counts as known.
        """
        self._trainer = trainer
        folder = trainer.log_dir
        if folder is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if (file := Path(folder) / FILE_NAME) != self._file:  # another run
            self.counts.clear()
            self._known.clear()
            self._samples.clear()
            self._file, self._file_position = file, 0
            self._num_reported = self._num_warned = self._next_step = 0
        self._read_file()

    def record(self, skipped: Iterable[Skipped], seen: int) -> None:
        """Add samples that were skipped among so many that were looked at.

        Raises:
            UserError: If the share of skipped samples is now above ``max_skipped``, or the last
                ``window`` samples were skipped without exception.
        """
        skipped = tuple(skipped)
        if new := [sample for sample in skipped if _identity(sample) not in self._known]:
            self._add(new)
        self._report()
        self._last |= {sample.reason: sample for sample in skipped}
        self._judge(Counter(sample.reason for sample in skipped), seen)

    def close(self) -> None:
        """Report the last counts, and warn about what was skipped since the last warning."""
        self._next_step = 0
        self._report()
        if self._file is not None and self._trainer is not None and self._trainer.global_rank > 0:
            return  # process 0 warns of what is in the file of all
        if (total := self.counts.total()) > self._num_warned:
            self._num_warned = total
            where = f"; all of them: {self._file}" if self._file is not None else ""
            warnings.warn(
                f"{total} samples were skipped ({listed(self.counts)}): "
                f"{examples(self._samples, total)}{where}",
                stacklevel=2,
            )

    def _judge(self, reasons: Counter[str], seen: int) -> None:
        self._recent.append((seen, reasons))
        self._recent_seen += seen
        self._recent_reasons += reasons
        while self._recent_seen - self._recent[0][0] >= self.window:
            before, gone = self._recent.popleft()
            self._recent_seen -= before
            self._recent_reasons -= gone
        seen, reasons = self._recent_seen, self._recent_reasons
        total = reasons.total()
        if total > self.max_skipped * max(seen, self.window) or self.window <= seen == total:
            raise UserError(
                f"{total} of the last {seen} samples were skipped, more than max_skipped="
                f"{self.max_skipped} of {max(seen, self.window)}: {listed(reasons)}; such as "
                f"{examples([self._last[reason] for reason, _ in reasons.most_common()])}"
            )

    def _remember(self, sample: Skipped) -> bool:
        """Count a sample and tell whether it is a new one."""
        if (identity := _identity(sample)) in self._known:
            return False
        self._known.add(identity)
        self.counts[sample.reason] += 1
        if len(self._samples) < _NUM_KEPT:
            self._samples.append(sample)
        return True

    def _add(self, samples: Sequence[Skipped]) -> None:
        """Count, log and write samples, but those that another process has written."""
        if self._file is None:
            self._tell(samples)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # all processes of a run append to one file
            self._read_file()
            if self._file_position < file.seek(0, os.SEEK_END):
                file.write(b"\n")  # behind a line that a crash has cut
            for sample in self._tell(samples):
                file.write(f"{json.dumps(asdict(sample))}\n".encode())

    def _tell(self, samples: Sequence[Skipped]) -> list[Skipped]:
        """Count and log samples; return those that are new."""
        new = []
        for sample in samples:
            if self._remember(sample):
                new.append(sample)
                first = self.counts[sample.reason] == 1
                _LOG.log(logging.WARNING if first else logging.INFO, "skipped %s", sample)
        return new

    def _read_file(self) -> None:
        """Count what other processes, or the run before it was resumed, have written."""
        if self._file is None or not self._file.is_file():
            return
        with self._file.open("rb") as file:
            file.seek(self._file_position)
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    break
                self._file_position += len(line)
                try:
                    self._remember(Skipped(**json.loads(line)))
                except (ValueError, TypeError):  # cut by a crash
                    continue

    def _report(self) -> None:
        """Log ``data/skipped_<reason>``, at most every ``log_every_n_steps`` steps."""
        trainer = self._trainer
        if trainer is None or not trainer.is_global_zero or trainer.global_step < self._next_step:
            return
        if trainer.world_size > 1:
            self._read_file()
        if self.counts.total() > self._num_reported:
            self._num_reported = self.counts.total()
            every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            self._next_step = trainer.global_step + every
            values = {
                f"data/skipped_{reason.replace(' ', '_')}": float(count)
                for reason, count in self.counts.items()
            }
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)


def _identity(sample: Skipped) -> int:
    return hash((sample.shard, sample.key, sample.reason))


def listed(reasons: Counter[str]) -> str:
    """Return reasons with their counts, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def examples(samples: Sequence[Skipped], total: int = 0) -> str:
    """Return the first of skipped samples in words, and how many more there are."""
    named = "; ".join(str(sample) for sample in samples[:_NUM_NAMED])
    rest = max(total, len(samples)) - _NUM_NAMED
    return f"{named}; and {rest} more" if rest > 0 else named
