"""Imports of the fork server: whatever would take each run seconds.

Nothing is built, and no thread started: a fork would be without it.
"""

import atexit
import gc
import os
from importlib import import_module

from pretzel.ablation.engines.local import worker_environment

os.environ.update(worker_environment())  # torch reads the number of threads when it is imported
import_module("pretzel.ablation.worker.training")
import_module("pretzel.runs.cli").import_parts()
gc.freeze()  # forks share what is there now, as long as their collectors do not walk it
atexit.register(gc.unfreeze)  # extension modules complain of what is never collected
