"""The report of a grid: statistics over seeds, tables, one page, TensorBoard."""
