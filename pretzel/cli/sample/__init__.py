"""``pretzel sample``: images, answers and conversations of a trained model."""
