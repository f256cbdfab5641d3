"""How many images and answers the losses of a step are means over, estimated before training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from pretzel.latent.generative_model import GenerativeModel
from pretzel.sequence.document import Document, Image, Text
from pretzel.training.loss import Loss

NUM_EXAMPLES = 1000


@runtime_checkable
class ShowsDocuments(Protocol):
    """Data that can show documents as training gets them; to implement it needs no import."""

    batch_size: int

    def example_documents(self, count: int) -> Sequence[Document]:
        """Return documents of training samples, about ``count``; none where none can be read."""


def counted_samples(data: object, model: GenerativeModel, loss: Loss) -> Mapping[str, float]:
    """Return the mean numbers of images and answers that a step of one process counts.

    Args:
        data: Data module; nothing is known of one that shows no documents.
        model: Model of images and text.
        loss: What is trained by.
    """
    documents = data.example_documents(NUM_EXAMPLES) if isinstance(data, ShowsDocuments) else ()
    if not documents:
        return {}
    assert isinstance(data, ShowsDocuments)
    counts: Counter[str] = Counter()
    for document in documents:
        is_read = False
        for segment in model.view(document).segments:
            if isinstance(segment, Image):
                kind = "images after text" if is_read else "images without text"
                counts[kind] += loss.flow_weight > 0
            elif isinstance(segment, Text):
                is_read |= model.reads_text and segment.role != "dropped"
                is_answer = model.answers and segment.role == "target"
                counts["answers"] += is_answer and loss.text_weight > 0
    scale = data.batch_size / len(documents)
    return {name: count * scale for name, count in sorted(counts.items()) if count}
