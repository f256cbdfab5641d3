"""``pretzel import``: a published checkpoint becomes a configuration and its weights."""
