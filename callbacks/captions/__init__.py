"""Parts of the quality of captions: their words, CIDEr-D."""
