"""``pretzel import``: turns a published checkpoint into a configuration and its weights."""
