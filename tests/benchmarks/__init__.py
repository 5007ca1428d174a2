"""Benchmarks of the learner on the real sets of ../shared/data: `python -m tests.benchmarks.<name> --help`."""
