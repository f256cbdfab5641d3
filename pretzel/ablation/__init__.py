"""The instrument: grids of runs that differ only where their YAML says so."""
