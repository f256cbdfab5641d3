"""Sequences of text and images: documents, special tokens, positions, packed batches."""

from pretzel.sequence.caption_questioner import CaptionQuestioner
from pretzel.sequence.document import (
    Document,
    DocumentBatch,
    Dropped,
    Image,
    Role,
    Segment,
    Text,
    caption_document,
    question_document,
    without_past,
)
from pretzel.sequence.packed_batch import IGNORE, PackedBatch
from pretzel.sequence.packer import Packer
from pretzel.sequence.special_tokens import SpecialTokens

__all__ = [
    "IGNORE",
    "CaptionQuestioner",
    "Document",
    "DocumentBatch",
    "Dropped",
    "Image",
    "PackedBatch",
    "Packer",
    "Role",
    "Segment",
    "SpecialTokens",
    "Text",
    "caption_document",
    "question_document",
    "without_past",
]
