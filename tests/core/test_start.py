"""What a process pays before its first prediction, and where compiled kernels are kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from prototide.core import compiling

LEARN = """
import warnings, numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from prototide.core import FastKMeansClassifier
    model = FastKMeansClassifier().partial_fit(np.eye(4), [0, 1, 2, 3])
    print(model.predict(np.eye(4)).tolist(), [str(w.message) for w in caught if w.category is UserWarning])
"""


def run(program: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | environment
    ).stdout


def test_importing_leaves_out_what_is_never_used() -> None:
    heavy = (
        "scipy.stats",
        "pandas",
        "torch",
        "triton",
        "sklearn.cluster",
        "sklearn.linear_model",
        "fsspec",
        "confluent_kafka",
    )
    loaded = run(f"import sys, prototide.core; print([name for name in {heavy!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_statistics_are_there_when_somebody_wants_them() -> None:
    program = "import prototide.core, scipy.stats, sklearn.utils.fixes as f; print(f._mode([1, 1, 2])[0], scipy.stats)"
    assert run(program).startswith("[1] <module 'scipy.stats'")


def test_a_cache_folder_that_is_not_writable_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    answered = run(LEARN, NUMBA_CACHE_DIR=str(tmp_path / "file" / "folder"), NUMBA_DISABLE_JIT="1")
    assert answered.startswith("[0, 1, 2, 3] ['cannot write to ")
    assert answered.count("cannot write to") == 1
    assert str(tmp_path / "file" / "folder") in answered


def test_the_kernels_run_uncompiled_for_debuggers() -> None:
    program = """
import numpy as np
from prototide.core import FastKMeansClassifier
model = FastKMeansClassifier(update_rows=8, lambda_penalty=0.1)
X, y = np.tile(np.eye(4), (6, 1)), np.arange(24) % 4
print(model.learn(X, y).stats["rows"], model.fit_batch(X, y)["rows"], model.predict(X[:4]).tolist())
"""
    assert run(program, NUMBA_DISABLE_JIT="1") == "24 24 [0, 1, 2, 3]\n"


def test_other_sources_are_compiled_into_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.py").write_text("@kernel()\ndef one(): return 1")
    monkeypatch.setattr(compiling, "SOURCES", tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    first = compiling.cache_folder()
    (tmp_path / "one.py").write_text("@kernel()\ndef one(): return 2")
    assert compiling.cache_folder() != first
    assert f"prototide-{version('prototide')}-" in first
    assert Path(first).is_dir()


def test_what_was_compiled_for_other_sources_is_deleted_when_nobody_used_it_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    ours = Path(compiling.cache_folder())
    kept, old = tmp_path / "prototide-1-0123456789ab", tmp_path / "prototide-0-0123456789ab"
    foreign = [tmp_path / name for name in ("someone-else", "prototide-checkpoints", "prototide-0-0123456789ab-models")]
    for folder in (kept, old, *foreign):
        (folder / "inside").mkdir(parents=True)
    for folder in (ours, old, *foreign):
        os.utime(folder, (0, time.time() - 31 * 86_400))
    assert Path(compiling.cache_folder()) == ours
    assert sorted(tmp_path.iterdir()) == sorted([ours, kept, *foreign])


def test_a_cache_folder_that_keeps_no_times_is_used_and_nothing_in_it_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    ours = Path(compiling.cache_folder())
    os.utime(ours, (0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(os, "utime", refused)
        assert Path(compiling.cache_folder()) == ours
    assert ours.is_dir()


def test_a_checkout_that_is_not_installed_compiles_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(compiling, "version", absent)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert Path(compiling.cache_folder()).parent == tmp_path
