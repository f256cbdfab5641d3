"""Error about media that cannot be used."""


class MediumError(ValueError):
    """Raised where a picture, video or sound cannot be used.

    Args:
        reason: In two words, the same for all such media.
        detail: The same of this one.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
