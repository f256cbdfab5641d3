"""Says which runs are twins while a grid runs, as soon as that is known."""

from collections.abc import Callable, Iterable

from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.ablation.twins import Traces, twin_sentences


class TwinWatch:
    """Follows what the runs of a plan train and measure, and says what is equal, once each."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self.say = plan, say
        self._traces: dict[str, Traces] = {}
        self._compared: dict[str, Traces] = {}
        self._told: set[str] = set()
        for run in plan.runs:
            self.note(run)

    def note(self, run: PlannedRun) -> None:
        """Take note of a run that nobody executes any more, or not yet."""
        folder, state = self.plan.folder(run), self.plan.state(run)
        self._traces[run.name] = Traces.read(folder, state, run.identity)

    def look(self, running: Iterable[PlannedRun]) -> None:
        """Look at the runs that are executed, and say what is new."""
        for run in running:
            if self._traces[run.name].first is None:
                self._traces[run.name] = Traces.of(self.plan.folder(run).progress)
        if self._traces == self._compared:
            return
        self._compared = dict(self._traces)
        for sentence in twin_sentences(self.plan.as_json(), self._traces):
            if sentence not in self._told:
                self._told.add(sentence)
                self.say(sentence)
