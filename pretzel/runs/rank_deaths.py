"""Runs of several processes of which one ends badly: told which, and where its messages are.

Lightning kills the others then, the first one included, without a word; and where the first one
notices by itself, all it knows is that a connection was closed.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from typing_extensions import override

from pretzel.errors import UserError

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # for the first process to end by itself, perhaps of the same error
_EXIT_SECONDS = 2.0  # between the end of a connection and that of the process behind it
_CONNECTION = re.compile(r"connection|gloo|nccl|processgroup|socket|timed out", re.IGNORECASE)


class RankLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of a run as Lightning does, and notices how they end.

    Args:
        replaced: Lightning's own.
        messages: Where the processes write, for example ``log.txt``.
        end: Called from another thread where the first process does not end by itself; has to end
            it.
    """

    def __init__(
        self,
        replaced: _SubprocessScriptLauncher,
        messages: str,
        end: Callable[[UserError], None],
    ) -> None:
        sizes = replaced.num_processes, replaced.num_nodes
        super().__init__(replaced.cluster_environment, *sizes)
        self.messages, self.end = messages, end
        self._death: UserError | None = None

    @override
    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        environment, count = self.cluster_environment, self.num_processes
        environment.validate_settings(num_devices=count, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self.observe, daemon=True).start()
        _set_num_threads_if_needed(num_processes=count)
        return function(*args, **kwargs)

    def observe(self) -> None:
        """Wait until all processes have ended well, or end the run."""
        while (death := self.death()) is None:
            if all(process.returncode == 0 for process in self.procs):
                return
            time.sleep(_POLL_SECONDS)
        time.sleep(_GRACE_SECONDS)
        for process in self.procs:
            process.kill()
        self.end(death)

    def death(self, seconds: float = 0.0) -> UserError | None:
        """Return which process was the first to end badly, if one does within some time."""
        until = time.monotonic() + seconds
        while self._death is None:
            for local, process in enumerate(self.procs, 1):
                if code := process.poll():
                    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                    rank = self.cluster_environment.node_rank() * self.num_processes + local
                    count = self.num_processes * self.num_nodes
                    self._death = UserError(
                        f"rank {rank} of {count} (process {process.pid}) ended {how}; its messages "
                        f"are {self.messages}"
                    )
                    break
            if time.monotonic() >= until:
                break
            time.sleep(_POLL_SECONDS)
        return self._death


@contextlib.contextmanager
def ranks_observed(
    trainer: Trainer, messages: str, end: Callable[[UserError], None]
) -> Iterator[None]:
    """Say which process of a run has died, where that ends the run; arguments as above.

    Raises:
        UserError: In the place of the first process's complaint of a connection.
    """
    launcher: Any = trainer.strategy.launcher
    if type(launcher) is _SubprocessScriptLauncher:
        launcher = trainer.strategy._launcher = RankLauncher(launcher, messages, end)
    try:
        yield
    except RuntimeError as error:
        is_connection = isinstance(launcher, RankLauncher) and _CONNECTION.search(str(error))
        if is_connection and (death := launcher.death(_EXIT_SECONDS)):
            raise death from error
        raise


def exit_with(error: UserError) -> None:
    """End the process with a sentence, whatever its main thread waits for."""
    os.write(2, f"pretzel: error: {error}\n".encode())
    os._exit(2)
