from typer.testing import CliRunner

from prototide.service.cli import app


def test_fresh_without_a_person_to_ask_says_how_to_mean_it() -> None:
    result = CliRunner().invoke(app, ["run", "--fresh"])
    assert result.exit_code == 78
    assert result.output.endswith("nobody is there to answer; add --yes\n")
