"""Token ids with a special meaning."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Token ids with a special meaning.

    Ids from the size of the vocabulary on stand for tokens that the model's own vocabulary lacks:
    the interleaving learns their embeddings, and their rows of the language head.

    Attributes:
        pad: Fills rows; never attended by other positions.
        begin_of_image: Stands before the positions of an image; its state predicts the first.
        end_of_image: Stands after them; forced, never predicted.
        end_of_text: Ends a supervised run of text.
    """

    pad: int
    begin_of_image: int
    end_of_image: int
    end_of_text: int
