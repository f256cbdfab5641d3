"""Pretzel: an open STARFlow2 and the instrument to ablate it."""
