"""TensorBoard over a grid's folder, on loopback."""

import contextlib
import signal
import threading
from pathlib import Path

from pretzel.ablation.report import tensorboard_hparams
from pretzel.ablation.report.comparison import load
from pretzel.errors import UserError


def serve(folder: Path, port: int | None) -> None:
    """Run TensorBoard until Ctrl-C or SIGTERM; HParams and changes of a grid are written before.

    It listens on a port of 127.0.0.1: None for 6006 or the next that is free, 0 for any.

    Raises:
        UserError: If it cannot listen there.
    """
    from tensorboard import program
    from tensorboard.program import TensorBoardServerException

    if (folder / "plan.json").exists():
        with contextlib.suppress(OSError):  # what cannot be written can still be shown
            tensorboard_hparams.write(load(folder))
    board = program.TensorBoard()
    arguments = ["tensorboard", "--logdir", str(folder), "--host", "127.0.0.1"]
    if port is not None:
        arguments += ["--port", str(port)]
    board.configure(argv=arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            url = board.launch()
        except TensorBoardServerException as error:
            raise UserError(f"TensorBoard cannot start: {' '.join(str(error).split())}") from error
        print(f"TensorBoard over {folder}: {url}   (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("TensorBoard has ended")
    finally:
        signal.signal(signal.SIGTERM, before)
