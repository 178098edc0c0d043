"""What every store sees to before a checkpoint takes effect."""

from __future__ import annotations

from durable_host.storage.contract import Checkpoint

__all__ = ["check_checkpoint"]


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that contradicts itself.

    Raises:
        ValueError: the version of its state is not where its events lead; a bug of the engine.
    """
    state, base = checkpoint.state, checkpoint.base
    if state is None:
        if checkpoint.events or checkpoint.amended:
            raise ValueError(f"{checkpoint.lease.key!r}: events without a state that says where history stands then")
        return
    version = state.version
    if version is None:
        raise ValueError(f"{checkpoint.lease.key!r}: the state of a checkpoint carries a version")
    kept = base.length if base is not None and version.generation == base.generation else 0
    if version.length != kept + len(checkpoint.events) or (base is not None and version.generation < base.generation):
        raise ValueError(
            f"{checkpoint.lease.key!r}: from {base}, {len(checkpoint.events)} events do not lead to {version}"
        )
