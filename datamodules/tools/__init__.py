"""Tools behind ``pretzel data``: pack, inspect, verify, preview, index."""
