"""Virtual time: seconds since the cluster's start, and the wall clock that objects are stamped with."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def stamp(self, offset: float = 0.0) -> str:
        """Now as metav1.Time, which has no fractions."""
        return (EPOCH + timedelta(seconds=self.seconds + offset)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def micro(self) -> str:
        """Now as metav1.MicroTime."""
        return (EPOCH + timedelta(seconds=self.seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds(stamp: str) -> float:
    """What `stamp` gave, back as virtual seconds."""
    return (datetime.fromisoformat(stamp) - EPOCH).total_seconds()
