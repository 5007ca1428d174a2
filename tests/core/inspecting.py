"""What tests read from `FastKMeansClassifier.state`: the one place in the tests that knows its layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core import FastKMeansClassifier
from prototide.core.engines.tables import ACTIVE, MEAN_LOSS, OMEGA, ROWS


@dataclass(frozen=True)
class Prototype:
    """An active prototype; what the model stores times omega is given without it."""

    id: int
    label: int | str
    mass: float
    square: float  # |M|^2
    centre: NDArray[np.float64]  # (features,)
    correction: NDArray[np.float64]  # (features,) with the mutual information in it
    information: NDArray[np.float64]  # (features,) that


def prototypes(model: FastKMeansClassifier) -> list[Prototype]:
    """The active prototypes by slot."""
    arrays, metadata = model.state()
    part = {name.removeprefix("engine."): array for name, array in arrays.items()}
    omega = part["scalars"][OMEGA]
    shape = part["slot.kind"].size, part["entry.count"].size
    indptr = np.append(0, np.cumsum(part["entry.count"]))
    centre, correction, information = (
        sp.csc_matrix((part[name].astype(np.float64), part["entry.slot"], indptr), shape).tocsr() / omega
        for name in ("entry.centre", "entry.correction", "entry.pmi")
    )
    return [
        Prototype(
            id=int(part["slot.id"][slot]),
            label=metadata["labels"][part["slot.cls"][slot]],
            mass=float(part["slot.mass"][slot] / omega),
            square=float(part["slot.square"][slot] / omega**2),
            centre=centre[[slot]].toarray()[0],
            correction=correction[[slot]].toarray()[0],
            information=information[[slot]].toarray()[0],
        )
        for slot in np.flatnonzero(part["slot.kind"] == ACTIVE)
    ]


@dataclass(frozen=True)
class Shared:
    """What all prototypes share."""

    omega: float
    rows: float  # weight of the rows learned
    mean_loss: float
    document_frequency: NDArray[np.float64]
    violation: NDArray[np.float64]
    total: NDArray[np.float64]


def shared(model: FastKMeansClassifier) -> Shared:
    """The shared state, without omega."""
    arrays, _ = model.state()
    scalars = arrays["engine.scalars"]
    omega = float(scalars[OMEGA])
    return Shared(
        omega=omega,
        rows=float(scalars[ROWS]) / omega,
        mean_loss=float(scalars[MEAN_LOSS]),
        document_frequency=arrays["engine.feature.document_frequency"] / omega,
        violation=arrays["engine.feature.violation"] / omega,
        total=arrays["engine.feature.total"] / omega,
    )


def fingerprint(model: FastKMeansClassifier, *, parameters: bool = True) -> dict[str, Any]:
    """Equal when the states are equal to the last bit; ``parameters``: the constructor's too."""
    arrays, metadata = model.state()
    kept = metadata if parameters else {name: value for name, value in metadata.items() if name != "parameters"}
    content: dict[str, Any] = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    return content | {"metadata": json.dumps(kept, sort_keys=True)}
