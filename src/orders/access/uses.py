"""When each API key was used last in this replica, and which of that is still to be written. Pure."""

from collections.abc import Collection

WRITE_EVERY_S = 60.0
"""Pause between two notes in the database that a key is in use."""

FORGET_AFTER_S = 300.0
"""How long a key that is not used any more is remembered. Longer than the pause between two notes."""


class Uses:
    """The uses of keys. Times are those of one monotonic clock."""

    def __init__(self) -> None:
        self.used_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}

    def to_write(self, now: float) -> list[str]:
        """The keys of which a use is to be noted in the database now."""
        return [
            key_id
            for key_id, used_at in self.used_at.items()
            if key_id not in self._written_at
            or (used_at > self._written_at[key_id] and now >= self._written_at[key_id] + WRITE_EVERY_S)
        ]

    def written(self, key_ids: Collection[str], now: float) -> None:
        """Remember that these were noted at `now`, a moment before the statement began."""
        self._written_at.update(dict.fromkeys(key_ids, now))

    def since(self, moment: float) -> list[str]:
        """The keys that were used after this moment."""
        return [key_id for key_id, used_at in self.used_at.items() if used_at > moment]

    def forget_old(self, now: float) -> None:
        """Forget the keys that have not been used for long."""
        old = [key_id for key_id, used_at in self.used_at.items() if used_at <= now - FORGET_AFTER_S]
        for key_id in old:
            del self.used_at[key_id]
            self._written_at.pop(key_id, None)
