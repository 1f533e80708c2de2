"""A consumer's control thread: looks up what the core asks for (leaders, connections, whether a log is the one that was read), notices
topics that come, go and grow, and reports metrics."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastlog._core import ConsumerCore
from fastlog.client.cluster import Cluster
from fastlog.client.errors import error_for
from fastlog.client.failures import ClientError
from fastlog.client.logs import WARNING, say_seldom
from fastlog.client.reporting import Reporter
from fastlog.client.subscription import Subscription

if TYPE_CHECKING:
    from fastlog.client.group import Membership

ASK_METADATA, ASK_LINK, ASK_PROOF = 1, 4, 8
MISSING_S = 1.0  # between two looks for topics that are not there


class Watch:
    """Of one consumer; `run` is the thread. `member`: its membership, where it has one."""

    def __init__(
        self,
        core: ConsumerCore,
        cluster: Cluster,
        settings: Mapping[str, Any],
        *,
        subscription: Subscription,
        member: "Callable[[], Membership | None]",
        reporter: Reporter,
    ) -> None:
        self._core = core
        self._cluster = cluster
        self._settings = settings
        self._subscription = subscription
        self._member = member
        self._reporter = reporter

    def run(self) -> None:
        """Ends when the core does."""
        refresh_s = self._settings["metadata_max_age_ms"] / 1000
        due = time.monotonic() + refresh_s
        while True:
            wanted = self._core._wait_wanted(self._reporter.wait_s(max(0.01, min(due - time.monotonic(), 1.0))))
            if wanted < 0:
                return
            self._reporter.report()
            try:
                if wanted & ASK_METADATA or time.monotonic() >= due:
                    due = time.monotonic() + refresh_s
                    if not self._refresh():
                        due = min(due, time.monotonic() + MISSING_S)
                if wanted & ASK_LINK:
                    self._connect_wanted()
                if wanted & ASK_PROOF:
                    from fastlog.client import truncation

                    truncation.prove(self._core, self._cluster)
            except ClientError as error:
                if self._core._is_closed:
                    return
                say_seldom(WARNING, "%s: %s", self._settings["client_id"], error, client_id=self._settings["client_id"])
                time.sleep(self._settings["retry_backoff_ms"] / 1000)
                self._core._want_metadata()

    def _refresh(self) -> bool:
        """Asks for leaders, and joins again where topics have come, gone or grown. Whether all topics are there."""
        membership = self._member()
        topics = {t for t, _ in self._core._assigned()} | {*self._subscription.topics, *(membership.counts if membership else ())}
        found = self._cluster.metadata(sorted(topics), create=self._settings["allow_auto_create_topics"]) if topics else {}
        for name, meta in found.items():
            if meta.error == 0:
                self._core._set_leaders(name, meta.leaders, meta.epochs)
            else:
                error = error_for(meta.error, f"topic {name!r}")
                say_seldom(WARNING, "%s", error, topic=name)
                if not error.retriable:
                    self._subscription.failure = error
        if membership is not None and membership.state is membership.states.STABLE:
            counts = {name: found[name].size(before) if name in found else before for name, before in membership.counts.items()}
            matched = self._subscription.pattern is not None
            if counts != membership.counts or (matched and sorted(self._subscription.names()) != membership.subscribed):
                membership.rejoin()
        return not any(meta.error for meta in found.values())

    def _connect_wanted(self) -> None:
        for node in self._core._sources_wanted():
            try:
                self._core._attach(node, *self._cluster.link(node, "Fetch"))
            except ClientError as error:
                self._core._unreachable(node)
                who = self._settings["client_id"]
                say_seldom(WARNING, "%s: broker %d: %s", who, node, error, client_id=who, broker=node)
