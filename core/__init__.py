"""The learner: `FastKMeansClassifier`. Knows nothing of Kafka."""

from prototide.core.classifier import FastKMeansClassifier
from prototide.core.introspection import Contribution, Explanation, Prototype
from prototide.core.model import Learned, LearnStats

__all__ = ["Contribution", "Explanation", "FastKMeansClassifier", "LearnStats", "Learned", "Prototype"]
