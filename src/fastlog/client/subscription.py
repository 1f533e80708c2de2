"""What a consumer reads: topics by their names, or by a pattern, as a member of a group; or partitions that its user assigns."""

from typing import TYPE_CHECKING

from fastlog.client.cluster import Cluster

if TYPE_CHECKING:
    import re

    from fastlog.client.failures import ClientError


class Subscription:
    """Of one consumer. Set in its user's thread, read in those of the group and of control."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.topics: list[str] = []
        self.pattern: re.Pattern[str] | None = None  # matched here, against all topics
        self.broker_pattern: str | None = None  # matched by the broker
        self.manual = False  # its user assigns
        self.failure: ClientError | None = None  # of one of its topics: for the user, when next polling

    def subscribe(self, topics: list[str], pattern: str | None, *, matched_there: bool) -> None:
        """Raises ValueError for what is no regular expression."""
        import re

        try:
            compiled = re.compile(pattern) if pattern and not matched_there else None
        except re.error as error:
            raise ValueError(f"pattern {pattern!r}: {error}") from error
        self.manual = False
        self.topics, self.pattern = topics, compiled
        self.broker_pattern = pattern if matched_there else None

    def clear(self) -> None:
        self.topics, self.pattern, self.broker_pattern = [], None, None

    @property
    def by_group(self) -> bool:
        """Whether partitions come from the group."""
        return not self.manual and bool(self.topics or self.pattern or self.broker_pattern)

    def names(self) -> list[str]:
        """The topics, by name. Asks a broker, where they are given by a pattern. Raises ClientError."""
        if self.pattern is None:
            return self.topics
        found = self._cluster.metadata(None).items()
        return [name for name, meta in found if self.pattern.fullmatch(name) and not meta.error and not meta.internal]

    def raise_failure(self) -> None:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
