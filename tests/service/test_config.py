import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from prototide.service.commands.config import config

app = typer.Typer()
app.command()(config)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"PROTOTIDE_CONFIG": None, **environ})


def test_json_tells_value_source_and_meaning_of_every_setting(tmp_path: Path) -> None:
    file = tmp_path / "prototide.toml"
    file.write_text("[http]\nport = 81")
    result = run("--json", "--config", str(file), "--set", 'core.k_list=[["a", 2]]', PROTOTIDE_BATCH__MAX_ROWS="7")
    assert result.exit_code == 0
    told = {row["name"]: row for row in json.loads(result.stdout)}
    assert (told["http.port"]["value"], told["http.port"]["source"]) == (81, str(file))
    assert (told["batch.max_rows"]["value"], told["batch.max_rows"]["source"]) == (7, "PROTOTIDE_BATCH__MAX_ROWS")
    assert (told["core.k_list"]["value"], told["core.k_list"]["source"]) == ([["a", 2]], "--set")
    assert told["learn"] == {
        "name": "learn",
        "value": True,
        "source": "default",
        "help": "false: predict only, the model is frozen",
    }


def test_the_table_shows_values_as_they_are_written() -> None:
    result = run("--set", 'core.k_list=[["red", 2]]', "--set", "kafka.consumer.fetch.min.bytes=5")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["core.k_list", '[["red",', "2]]", "--set"] in [words[:4] for words in lines]
    assert ["kafka.consumer.fetch.min.bytes", "5", "--set"] in [words[:3] for words in lines]
    assert ["learn", "true", "default", "false:", "predict", "only,"] in [words[:6] for words in lines]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_secrets_are_masked(arguments: list[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    result = run(
        *arguments,
        "--set",
        "kafka.common.sasl.password=hunter2",
        PROTOTIDE_KAFKA__BOOTSTRAP_SERVERS_FILE=str(secret),
    )
    assert result.exit_code == 0
    assert "kafka.common.sasl.password" in result.stdout
    assert "hunter2" not in result.stdout


def test_wrong_settings_end_with_one_line_and_exit_code_78() -> None:
    result = run("--set", "batch.max_rows=0", "--set", "http.prot=1")
    assert result.exit_code == 78
    [line] = result.stderr.splitlines()
    assert line.startswith("prototide: wrong settings: http.prot (--set) is not a setting, did you mean http.port?")
    assert "batch.max_rows = 0 (--set): must be greater than or equal to 1" in line
