"""The learner: `FastKMeansClassifier`. Knows nothing of Kafka."""

try:
    from prototide.core.classifier import FastKMeansClassifier
    from prototide.core.introspection import Contribution, Explanation, Prototype
    from prototide.core.model import Learned, LearnStats
except ModuleNotFoundError as missing:
    if missing.name in ("numba", "sklearn"):
        raise ModuleNotFoundError(
            f"prototide.core needs the package {missing.name!r}, which the light install leaves out: "
            "pip install 'prototide[core]'",
            name=missing.name,
        ) from None
    raise

__all__ = ["Contribution", "Explanation", "FastKMeansClassifier", "LearnStats", "Learned", "Prototype"]
