"""The stream around the learner: Kafka records in, predictions out, checkpoints, metrics and health.

Only :mod:`prototide.service.wire` is needed by producers and consumers; it imports with the light install.
"""
