"""Generated images that no metric can say anything of: not finite, or without any variance."""

from torch import Tensor

from pretzel.errors import UserError


class ImageCheck:
    """Follows the images of one evaluation, and refuses those that must not get a score.

    Rounded to eight bits, NaN are pixels like any others, and a metric gives them a number.

    Args:
        when: What begins the message, such as ``at step 100``.
        metrics: Names of what is not measured then.
    """

    def __init__(self, when: str, metrics: str) -> None:
        self._when = when
        self._metrics = metrics
        self._first: Tensor | None = None
        self._n = 0
        self._has_variance = [False, False]  # within an image, between images

    def not_finite(self, images: Tensor) -> int:
        """Return the number of images ``[n, ...]`` with a NaN or an infinity."""
        return int((~images.isfinite().flatten(1).all(dim=1)).sum())

    def take_in(self, images: Tensor, num_not_finite: int) -> None:
        """Follow a batch of all ranks' images.

        Raises:
            UserError: If some are not finite.
        """
        if num_not_finite:
            raise UserError(
                f"{self._when} {num_not_finite} of {len(images)} generated images are not finite "
                f"(NaN or infinity): {self._metrics} cannot be measured"
            )
        flat = images.flatten(1)
        self._first = flat[:1] if self._first is None else self._first
        self._n += len(images)
        self._has_variance[0] |= bool((flat != flat[:, :1]).any())
        self._has_variance[1] |= bool((flat != self._first).any())

    def end(self) -> None:
        """Refuse images that are all constant, or all the same.

        Raises:
            UserError: If they are.
        """
        within, between = self._has_variance
        if not within or (not between and self._n > 1):
            what = "are equal" if within else "have one value everywhere"
            raise UserError(
                f"{self._when} all {self._n} generated images {what}: {self._metrics} would be "
                "scores of nothing"
            )
