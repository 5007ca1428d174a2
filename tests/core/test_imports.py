"""What importing the learner loads, and what it may know of."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "core"
SERVICE = CORE.parent / "service"

PROGRAM = """
import json, sys
import prototide.core
loaded = sorted(sys.modules)
compiled = [
    f"{module.__name__}.{name}"
    for module in list(sys.modules.values()) if module.__name__.startswith("prototide")
    for name, value in vars(module).items() if getattr(value, "signatures", None)
]
kernels = [
    name for module in list(sys.modules.values()) if module.__name__.startswith("prototide")
    for name, value in vars(module).items() if hasattr(value, "signatures")
]
model = prototide.core.FastKMeansClassifier(n_threads=1)
model.fit_batch([[1.0, 2.0]], ["a"])
model.predict_proba([[1.0, 2.0]])
print(json.dumps({"loaded": loaded, "compiled": compiled, "kernels": kernels, "later": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """What a fresh process has after `import prototide.core`, and after a first use."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return dict(json.loads(answer.stdout))


@pytest.mark.parametrize("moment", ["loaded", "later"])
def test_neither_torch_nor_the_service_nor_kafka_is_loaded(imported: dict[str, list[str]], moment: str) -> None:
    assert "prototide.core" in imported[moment]
    heads = {name.partition(".")[0] for name in imported[moment]}
    assert not heads & {
        "torch",
        "confluent_kafka",
        "msgpack",
        "prometheus_client",
        "pydantic",
        "rich",
        "typer",
        "river",
    }
    assert not [name for name in imported[moment] if name.startswith("prototide.service")]


def test_the_packages_have_no_other_names(imported: dict[str, list[str]]) -> None:
    assert not {"core", "service"} & set(imported["later"])


def test_importing_compiles_nothing(imported: dict[str, list[str]]) -> None:
    assert imported["kernels"]
    assert imported["compiled"] == []


def _is_module(package: str, name: str) -> bool:
    folder = CORE.joinpath(*package.split(".")[2:])
    return package.startswith("prototide.core") and ((folder / f"{name}.py").exists() or (folder / name).is_dir())


def _imports(path: Path) -> set[str]:
    """Modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {f"{module}.{alias.name}" if _is_module(module, alias.name) else module for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_never_imports_the_service(path: Path) -> None:
    assert not [name for name in _imports(path) if name.startswith(("prototide.service", "service", "core", ".."))]


def test_imports_form_a_tree() -> None:
    files = {
        ".".join(("prototide", *path.relative_to(CORE.parent).with_suffix("").parts)): path
        for path in CORE.rglob("*.py")
    }
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    needs = {name: _imports(path) & set(files) - {name} for name, path in files.items()}
    done: set[str] = set()
    while len(done) < len(needs):
        ready = {name for name, needed in needs.items() if needed <= done} - done
        assert ready, f"these import each other in a circle: {sorted(set(needs) - done)}"
        done |= ready


def test_only_settings_read_the_environment() -> None:
    readers = [path for path in CORE.rglob("*.py") if "environ" in path.read_text() or "getenv" in path.read_text()]
    assert readers == []
