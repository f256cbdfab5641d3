"""Judge of the drawn scenes: finds objects and holds images to captions."""
