"""Text states of the frozen vision-language model, computed once and kept on disk."""

from pretzel.training.text_states.serving import TextStates, default_folder

__all__ = ["TextStates", "default_folder"]
