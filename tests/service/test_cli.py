from importlib.metadata import version

from typer.testing import CliRunner

from prototide.service.cli import app


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"prototide {version('prototide')}\n")
