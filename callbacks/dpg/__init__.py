"""DPG-Bench: questions about images of long prompts, answered by a model of images and texts."""
