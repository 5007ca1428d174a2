"""What importing the packages loads, and what each module may know of."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE, SERVICE = ROOT / "core", ROOT / "service"
MODULES = {
    ".".join(("prototide", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for folder in (CORE, SERVICE)
    for path in folder.rglob("*.py")
}

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


def test_a_service_on_the_cpu_loads_no_torch() -> None:
    program = "import sys, prototide.service.serving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def _imports(path: Path) -> set[str]:
    """Modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {inner if (inner := f"{module}.{alias.name}") in MODULES else module for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_never_imports_the_service(path: Path) -> None:
    assert not [name for name in _imports(path) if name.startswith(("prototide.service", "service", "core", ".."))]


def test_imports_form_a_tree() -> None:
    needs = {name: _imports(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    done: set[str] = set()
    while len(done) < len(needs):
        ready = {name for name, needed in needs.items() if needed <= done} - done
        assert ready, f"these import each other in a circle: {sorted(set(needs) - done)}"
        done |= ready


def test_only_settings_read_the_environment() -> None:
    readers = {name for name, path in MODULES.items() if re.search(r"os\.(environ|getenv)", path.read_text())}
    # __main__ only writes: what numba's threads read when they start.
    # Failpoints are armed by tests only. Compiled kernels are kept where numba and the desktop's rules say.
    others = {"prototide.service.__main__", "prototide.service.failpoints", "prototide.core.compiling"}
    assert readers == {"prototide.service.settings"} | others


def test_the_learner_says_what_a_light_install_lacks() -> None:
    program = """
import sys
sys.modules["numba"] = None
try:
    import prototide.core
except ModuleNotFoundError as missing:
    print(missing)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.startswith("prototide.core needs the package 'numba'")
    assert "pip install 'prototide[core]'" in told
