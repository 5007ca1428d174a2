import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prototide.service.prequential import PrequentialWindow


def test_accuracy_is_nan_before_the_first_row() -> None:
    assert math.isnan(PrequentialWindow(3).accuracy)


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=9), st.integers(1, 7))
def test_accuracy_is_that_of_the_last_rows_however_they_arrive(steps: list[list[bool]], size: int) -> None:
    window = PrequentialWindow(size)
    for step in steps:
        window.update(np.array(step, np.bool_))
    rows = [wrong for step in steps for wrong in step][-size:]
    if rows:
        assert window.accuracy == pytest.approx(1 - sum(rows) / len(rows))
    else:
        assert math.isnan(window.accuracy)
