"""What owns descriptors, and gives them back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closable(ABC):
    """Owns something until ``close``, which the end of a ``with`` calls.

    What it owns, and whether it may be closed twice, each class says itself.
    """

    @abstractmethod
    def close(self) -> None:
        """Give up what is owned."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
