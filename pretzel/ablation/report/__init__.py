"""What a grid has found: statistics over seeds, tables, one page, TensorBoard."""
