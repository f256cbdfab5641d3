"""The grid file: its schema, its reader, and the configurations that it stands for."""
