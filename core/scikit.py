"""What is used of scikit-learn, without SciPy's statistics and pandas.

Importing scikit-learn imports `scipy.stats` for one function that is never called here, and pandas, where it is
installed, for none; these two take as long as all else. So modules that import them when they are first asked stand in
their place meanwhile.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        _remove(self)
        return getattr(importlib.import_module(self.__name__), name)


def _remove(module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]


@contextmanager
def _postponed(name: str) -> Iterator[None]:
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        yield
        return
    later = sys.modules[name] = _Later(name)
    later.__spec__ = spec
    try:
        yield
    finally:
        _remove(later)


with _postponed("scipy.stats"), _postponed("pandas"):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import DataConversionWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_feature_names, _get_feature_names, check_is_fitted

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "DataConversionWarning",
    "_check_feature_names",
    "_get_feature_names",
    "check_is_fitted",
    "check_random_state",
]
