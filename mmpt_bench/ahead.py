"""Pictures opened and made ready in a thread, while the model computes on earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from mmpt_bench.encoded import Encoded
from mmpt_bench.task import Picture

if TYPE_CHECKING:
    from mmpt_bench.backbone import Backbone


class Ahead:
    """Makes pictures ready before they are asked for; what goes wrong is raised where they are."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._coming: dict[str, Future[Encoded]] = {}
        # One is enough: a picture costs less than what the model does with it.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    def soon(self, pictures: Iterable[Picture]) -> None:
        """Begins with pictures that will be asked for next."""
        for picture in pictures:
            if picture.key not in self._coming:
                self._coming[picture.key] = self._pool.submit(self._made, picture)

    def take(self, pictures: Sequence[Picture]) -> list[Encoded]:
        """Returns pictures as the processor makes them; those that were not announced are made now."""
        found = {}
        for picture in pictures:
            future = self._coming.pop(picture.key, None)
            # Alone in either case: what a picture becomes must not depend on whether it was announced.
            found[picture.key] = self._made(picture) if future is None else future.result()
        return [found[picture.key] for picture in pictures]

    def close(self) -> None:
        """Ends the thread, and forgets what was announced and never asked for."""
        self._pool.shutdown(cancel_futures=True)
        self._coming.clear()

    def _made(self, picture: Picture) -> Encoded:
        return self.backbone.encode([picture.open()])[0]
