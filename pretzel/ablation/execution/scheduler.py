"""Executes the runs of a plan on an engine, each as soon as what it needs is done."""

import contextlib
import shlex
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pretzel.ablation.engines.base import Engine, StartedRun
from pretzel.ablation.execution.adopted_runs import adopted_training
from pretzel.ablation.execution.live_view import LiveView
from pretzel.ablation.execution.shared_training import take_training
from pretzel.ablation.execution.twin_watch import TwinWatch
from pretzel.ablation.identity.differences import snapshot
from pretzel.ablation.ledger import RunFolder, State
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.ablation.planning.tuning import best_candidate
from pretzel.ablation.status_table import StatusRow
from pretzel.ablation.worker.process import DONE, INTERRUPTED, TAKEN, log_end
from pretzel.errors import UserError
from pretzel.files.atomic import write_json

_POLL_SECONDS = 0.2
_STOP_SECONDS = 60  # for runs to save and stop after Ctrl-C


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which runs are executed, and what happens when one fails."""

    only: Collection[str] | None = None  # names, those of what they need among them; None for all
    rerun: Collection[str] = ()  # names of runs to train from the beginning, whatever their state
    train: bool = True  # whether runs are trained; otherwise those that are trained are measured
    retry: int = 0  # how often a run that fails is started again
    fail_fast: bool = False  # whether the first run that fails for good stops the others
    again: Sequence[str] = ()  # command that continues after Ctrl-C; empty for grid run FILE


def execute(plan: Plan, engine: Engine, selection: Selection) -> int:
    """Train and test what is not done; return 0 if every selected run is done, 1 if some failed.

    Raises:
        UserError: If finished runs are stale and are not among those to run again, or the folder
            is not writable.
        KeyboardInterrupt: After the runs have saved and stopped.
    """
    runs = [run for run in plan.runs if selection.only is None or run.name in selection.only]
    if selection.train:
        _refuse_stale(plan, [run for run in runs if run.name not in selection.rerun])
    else:
        runs = [run for run in runs if plan.state(run) in (State.TRAINED, State.DONE)]
    plan.save()
    for run in plan.runs:
        if run.name in selection.rerun:
            # under its lease: another scheduler may be training it at this moment
            with plan.folder(run).lease() as acquired:
                if not acquired:
                    raise UserError(f"{run.name}: is running; stop it first")
                plan.folder(run).clear()
    view = LiveView(plan.grid.output)
    with _stop_signals() as stops:
        scheduler = _Scheduler(plan, runs, engine, selection, view, stops)
        return int(bool(scheduler.execute()))


def _refuse_stale(plan: Plan, runs: list[PlannedRun]) -> None:
    stale = [run.name for run in runs if plan.state(run) is State.STALE]
    if stale:
        raise UserError(
            f"{plan.grid.output}: finished with another configuration, code or data: "
            f"{', '.join(stale)}; pretzel grid why {plan.grid.file} {stale[0]} tells what differs. "
            "Change it back, give another `output`, run them again (pretzel grid rerun "
            f"{plan.grid.file} --stale), or accept them (pretzel grid adopt {plan.grid.file} RUN)"
        )


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the signals by which the user wants to stop, in place of their handlers."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Scheduler:
    """Starts runs on an engine and takes note of their ends."""

    plan: Plan
    runs: list[PlannedRun]
    engine: Engine
    selection: Selection
    view: LiveView
    stops: list[int]  # signals received
    started: dict[PlannedRun, StartedRun] = field(default_factory=dict)
    failed: list[PlannedRun] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    retried: set[PlannedRun] = field(default_factory=set)
    tries: dict[PlannedRun, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.twins = TwinWatch(self.plan, self.view.say)

    def execute(self) -> list[PlannedRun]:
        """Go on until every run is done or failed; return the failed ones."""
        waiting = []
        for run in self.runs:
            if self.plan.state(run) is State.DONE:
                self.done.add(run.name)
                self.view.say(f"{run.name}: done before, skipped")
            else:
                waiting.append(run)
        # what was never selected cannot be waited for
        self.done |= {run.name for run in self.plan.runs} - {run.name for run in self.runs}
        self.retried = {run for run in waiting if self.plan.state(run) is State.FAILED}
        self.twins.look(())
        try:
            while waiting or self.started:
                if self.stops:
                    self.stop_all()
                    again = self.selection.again or ("grid", "run", str(self.plan.grid.file))
                    raise KeyboardInterrupt(f"stopped; to continue: pretzel {shlex.join(again)}")
                if self.failed and self.selection.fail_fast:
                    self.view.say("--fail-fast: the other runs save a checkpoint and stop")
                    self.stop_all()
                    break
                waiting = self.start_ready(waiting)
                waiting += self.collect_ended()
                self.twins.look(self.started)
                self.view.show(lambda: [self.row(run) for run in self.runs])
                time.sleep(_POLL_SECONDS)
        finally:
            self.view.close()
            for started in self.started.values():
                started.kill()
        return self.failed

    def start_ready(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Start what can be started; return the runs still to start."""
        waiting: list[PlannedRun] = []
        ready: list[PlannedRun] = []
        capacity = self.engine.capacity()
        for run in runs:
            failed = {other.name for other in self.failed}
            may_fail = {candidate.run for candidate in run.candidates}
            needs = set(run.needs)
            if run.trained_by is not None:  # without its weights the run trains its own
                needs.add(run.trained_by)
                may_fail.add(run.trained_by)
            broken = sorted(failed & needs - may_fail)
            if broken:
                self.give_up(run, f"not run, {broken[0]} failed")
                continue
            if not (self.done | (failed & may_fail)).issuperset(needs):
                waiting.append(run)
                continue
            state = self.plan.state(run)
            if state is State.DONE:  # by another runner
                self.done.add(run.name)
                self.view.say(f"{run.name}: done by another runner")
            elif state is State.FAILED and run not in self.retried:
                folder = self.plan.folder(run)
                reason = f"{_error(folder)} (see {folder.path}/failure.json)"
                self.give_up(run, f"FAILED under another runner: {reason}")
            elif state is State.STALE:  # refused at the start, so it has come since then
                self.give_up(
                    run,
                    "not run: another runner has finished it with another configuration, code or "
                    "data; give one of the two grids another `output`",
                )
            elif state is State.RUNNING or len(ready) >= capacity:
                waiting.append(run)
            else:
                ready.append(run)
        return waiting + self.launch(ready)

    def launch(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Write ``run.json`` and hand runs to the engine; return what another runner has."""
        taken: list[PlannedRun] = []
        launched: list[PlannedRun] = []
        for run in runs:
            folder = self.plan.folder(run)
            try:
                spec = self.spec(run, folder)
            except UserError as error:
                self.give_up(run, f"not run: {error}")
                continue
            with folder.lease() as acquired:
                # between our look at the run and now, another runner may have had it
                if not acquired or not self.may_start(run):
                    taken.append(run)
                    continue
                folder.prepare(spec)
                is_trained = take_training(self.plan, run, self.selection.rerun)
            # the source code that it is about to run, which may be edited meanwhile
            snapshot(run.record, self.plan.grid.output)
            if spec["tuned"]:
                self.view.say(f"{run.name}: {spec['tuned']}")
            step = folder.progress.get("step")
            how = f"continues from step {step}" if step else "starts"
            how = f"measures the weights of {run.trained_by}" if is_trained else how
            self.view.say(f"{run.name}: {how}")
            self.retried.discard(run)
            launched.append(run)
        paths = [self.plan.folder(run).path for run in launched]
        if paths:  # at once: a cluster takes them as one array
            self.started |= zip(launched, self.engine.start(paths), strict=True)
        return taken

    def may_start(self, run: PlannedRun) -> bool:
        """Tell whether a run that nobody executes is still to be executed."""
        state = self.plan.folder(run).state_of_rest(run.identity, run.evaluation)
        is_over = state in (State.DONE, State.STALE, State.FAILED)
        return not is_over or (state is State.FAILED and run in self.retried)

    def spec(self, run: PlannedRun, folder: RunFolder) -> dict[str, Any]:
        """Return what ``run.json`` tells the run's process.

        Raises:
            UserError: If nothing can be chosen for a tuned run.
        """
        adopted, config, tuned = adopted_training(folder, run), run.config, None
        if run.candidates and adopted is None:
            output = self.plan.grid.output
            runs = [candidate.run for candidate in run.candidates]
            results = {name: RunFolder(path=output / name).result for name in runs}
            best, tuned = best_candidate(run, results)
            config = best.config
        spec = {
            "name": run.name,
            "identity": run.identity,
            "evaluation": run.evaluation,
            "export": run.export,
            "tests": run.tests,
            "checkpoint_seconds": self.plan.grid.checkpoint_seconds,
            "hang_seconds": self.plan.grid.hang_seconds,
            "config": config,
            "tuned": tuned,
            "fingerprint": run.record,
        }
        return spec | (adopted or {})

    def collect_ended(self) -> list[PlannedRun]:
        """Take note of the runs that have ended; return those to start again."""
        again = []
        for run, started in list(self.started.items()):
            code = started.poll()
            if code is None:
                continue
            del self.started[run]
            self.twins.note(run)
            folder = self.plan.folder(run)
            if code == TAKEN:
                self.view.say(f"{run.name}: another runner has it")
                again.append(run)
            elif code == DONE:
                self.done.add(run.name)
                seconds = (folder.result or {}).get("seconds", 0.0)
                results = f": {note}" if (note := self.row(run).note) else ""
                self.view.say(f"{run.name}: done in {seconds:.0f} s{results}")
            elif self.retries(run, folder, code):
                again.append(run)
        return again

    def retries(self, run: PlannedRun, folder: RunFolder, code: int) -> bool:
        """Take note of a run that failed; return whether it is started again."""
        if folder.failure is None and code != INTERRUPTED:  # killed from outside
            reason = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            failure = {"error": reason, "traceback": "", "log": log_end(folder)}
            with contextlib.suppress(UserError):  # the disk may be what it failed of
                write_json(folder.path / "failure.json", failure)
        tries = self.tries[run] = self.tries.get(run, 0) + 1
        if tries > self.selection.retry:
            self.give_up(run, f"FAILED: {_error(folder)} (see {folder.path}/failure.json)")
            return False
        again = f"started again: {tries} of {self.selection.retry}"
        self.view.say(f"{run.name}: failed ({_error(folder)}), {again}")
        self.retried.add(run)
        return True

    def give_up(self, run: PlannedRun, why: str) -> None:
        self.view.say(f"{run.name}: {why}")
        self.failed.append(run)

    def stop_all(self) -> None:
        """Ask the runs to save and stop; kill those that do not, or on a second Ctrl-C."""
        self.view.say("stopping: the runs save a checkpoint (Ctrl-C again: at once)")
        for started in self.started.values():
            started.interrupt()
        deadline = time.monotonic() + _STOP_SECONDS
        # a list: every one is polled, else those behind the first would not be noticed
        while any([started.poll() is None for started in self.started.values()]):
            if len(self.stops) > 1 or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)

    def row(self, run: PlannedRun) -> StatusRow:
        folder, names = self.plan.folder(run), [m.name for m in self.plan.grid.metrics]
        return StatusRow.of(run.name, folder, run.identity, run.evaluation, names)


def _error(folder: RunFolder) -> str:
    return str((folder.failure or {}).get("error", "interrupted")).split("\n")[0]
