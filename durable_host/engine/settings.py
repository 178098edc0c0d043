"""Limits and intervals of one worker."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

__all__ = ["EngineSettings"]


def _ten_per_core() -> int:
    return 10 * (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What a TaskHubWorker may use and when it gives up. Durations are timedeltas.

    Attributes:
        max_concurrent_orchestrations: episodes at once on this host; up to as many again may have their checkpoints
            written meanwhile.
        max_concurrent_activities: activities at once on this host.
        max_orchestration_actions: actions of one generation; one more fails the instance.
        store_inputs: keep inputs in TaskScheduled and SubOrchestrationInstanceCreated events.
        max_cached_sessions, max_cached_bytes: bounds of the session cache.
        max_episode_failures: deliveries after which an episode that keeps failing in our own code is quarantined.
        max_reply_deferrals: deliveries after which a reply that history does not know is dropped with a warning.
        hold_idle: how long an instance's lease is kept for results that this worker computes.
        drain: how long a stopping worker waits for what it holds.
        watchdog: the main loop blocked for longer is reported with the function's name.
    """

    max_concurrent_orchestrations: int = field(default_factory=_ten_per_core)
    max_concurrent_activities: int = field(default_factory=_ten_per_core)
    max_orchestration_actions: int = 100_000
    store_inputs: bool = False
    max_cached_sessions: int = 1_000
    max_cached_bytes: int = 32 * 1024 * 1024
    max_episode_failures: int = 8
    max_reply_deferrals: int = 12
    hold_idle: timedelta = timedelta(seconds=5)
    drain: timedelta = timedelta(seconds=10)
    watchdog: timedelta = timedelta(seconds=1)
