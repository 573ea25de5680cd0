"""What is kept in memory of images, up to a size."""

from __future__ import annotations

from mmpt_bench.engine.models.encoding import Encoded

CACHE_BYTES = 2**30
"""Memory for kept features, by default."""
PICTURE_BYTES = 2**29
"""Memory for images as a processor makes them."""
Key = tuple[str, ...]


class FeatureCache:
    """What images became, up to a size, by (owner, key); an owner is a state of the vision side and a set of images.

    What is there stays, as the images of an epoch come round in a circle and the oldest is the next one wanted. Only
    another owner's make room. What a method finds that an earlier one made is booked in `spared`: a board's costs
    must not depend on which method ran first.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.bytes = limit, 0
        self.spared = 0.0
        """Seconds, since `begin`, that it took to make what was found and not made since then."""
        self._kept: dict[str, dict[Key, tuple[Encoded, float]]] = {}
        self._own: set[tuple[str, Key]] = set()

    def begin(self) -> None:
        """Begins the account of another training or evaluation."""
        self.spared, self._own = 0.0, set()

    def get(self, owner: str, key: Key) -> Encoded | None:
        """Returns what is kept, in main memory."""
        found = self._kept.get(owner, {}).get(key)
        if found is None:
            return None
        if (owner, key) not in self._own:
            self._own.add((owner, key))
            self.spared += found[1]
        return found[0]

    def holds(self, owner: str, key: Key) -> bool:
        """Returns whether something is kept, without booking it."""
        return key in self._kept.get(owner, {})

    def put(self, owner: str, key: Key, value: Encoded, seconds: float) -> None:
        """Keeps a copy where there is room for it, and how long it took to make."""
        self._own.add((owner, key))
        while self.bytes + value.n_bytes > self.limit:
            other = next((name for name in self._kept if name != owner), None)
            if other is None:
                return
            self.bytes -= sum(kept.n_bytes for kept, _ in self._kept.pop(other).values())
        mine = self._kept.setdefault(owner, {})
        if key not in mine:
            mine[key] = (value.to_keep(), seconds)
            self.bytes += value.n_bytes
