"""The instrument: grids of cells that differ only where their YAML says so."""
