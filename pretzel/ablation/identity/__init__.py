"""Identity of a run: its configuration, code, data and versions, and how two differ."""
