"""Where a step's outputs go, from the settings and the topics: now, and when a journalled step was live."""

from __future__ import annotations

from dataclasses import dataclass

from prototide.service.journal import Encoding
from prototide.service.outputs import Outlet
from prototide.service.settings import Settings
from prototide.service.topics import Topology


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where outputs go, and how predictions are encoded."""

    predictions: Outlet
    dead_letters: Outlet
    encoding: Encoding


def live_outlets(settings: Settings, topology: Topology) -> Outlets:
    """Those of the settings; `limits.prediction_bytes` bounds predictions even where the topic would take more."""
    size = min(topology.max_message_bytes[settings.topics.predictions], int(settings.limits.prediction_bytes))
    return replay_outlets(settings, topology, Encoding(settings.predictions.format, settings.predictions.top_k, size))


def replay_outlets(settings: Settings, topology: Topology, encoding: Encoding) -> Outlets:
    """Those of a step that was encoded so."""
    letters, name = settings.topics.dead_letters, settings.topics.predictions
    return Outlets(
        Outlet(name, topology.partitions[name], encoding.max_bytes),
        Outlet(letters, topology.partitions[letters], topology.max_message_bytes[letters]),
        encoding,
    )
