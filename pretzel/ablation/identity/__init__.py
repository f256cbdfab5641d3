"""What a cell is: configuration, code, data and versions, and how two differ."""
