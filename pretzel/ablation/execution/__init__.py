"""Which run of a grid comes next, and what users do with a grid that has a plan."""
