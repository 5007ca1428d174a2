"""The learner: `FastKMeansClassifier`. Knows nothing of Kafka."""

from prototide.core.classifier import FastKMeansClassifier
from prototide.core.model import Learned, LearnStats

__all__ = ["FastKMeansClassifier", "LearnStats", "Learned"]
