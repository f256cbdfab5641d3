"""The data that configurations read, as marks of its content, each data module built once."""

import json

from lightning.fabric.utilities.exceptions import MisconfigurationException

from pretzel.ablation.planning.config_resolver import Resolved
from pretzel.ablation.planning.model_builder import PlanningCLI
from pretzel.ablation.protocols import Manifested
from pretzel.runs.config.explain import explain_constructor
from pretzel.runs.config.overlay import Config


class Manifests:
    """Asks data modules what they read.

    Args:
        cli: The command line's parser.
    """

    def __init__(self, cli: PlanningCLI) -> None:
        self.cli = cli
        self._known: dict[str, dict[str, str]] = {}

    def __call__(self, config: Config, resolved: Resolved) -> dict[str, str]:
        """Return the marks, by ``split/name``; none where a data module offers none.

        Args:
            config: Its sources appear in the messages.
            resolved: What it was parsed to.

        Raises:
            UserError: If a constructor refuses its arguments, or the data is not there.
        """
        text = json.dumps(resolved.values.get("data"), sort_keys=True, default=repr)
        if text not in self._known:
            self.cli.given = config
            self._known[text] = self._ask(resolved)
        return self._known[text]

    def _ask(self, resolved: Resolved) -> dict[str, str]:
        try:
            data = self.cli.build_data("fit", resolved.namespace)
            return data.manifest() if isinstance(data, Manifested) else {}
        except (ValueError, OSError, MisconfigurationException) as error:
            raise explain_constructor(error, self.cli.given) from error
