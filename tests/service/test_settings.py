import inspect
import json
from pathlib import Path

import pytest

from prototide.core import FastKMeansClassifier
from prototide.service.errors import PersonMustAct
from prototide.service.settings import Settings, documented, load
from prototide.service.wire import Limits

SECRET = "hunter2-very-secret"


def value_of(settings: Settings, name: str) -> object:
    return next(row.value for row in settings.effective() if row.name == name)


def source_of(settings: Settings, name: str) -> str:
    return next(row.source for row in settings.effective() if row.name == name)


def problem(*overrides: str, config_file: Path | None = None, **environ: str) -> str:
    with pytest.raises(PersonMustAct) as refused:
        load(config_file, overrides, environ)
    assert refused.value.exit_code == 78
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None  # a validation error would carry the input, secrets included
    return str(refused.value)


def toml(folder: Path, text: str) -> Path:
    file = folder / "prototide.toml"
    file.write_text(text, "utf-8")
    return file


def test_defaults_are_those_of_the_specification() -> None:
    defaults = {leaf.name: leaf.default for leaf in documented()}
    assert (
        defaults
        | {
            "kafka.bootstrap_servers": "localhost:9092",
            "kafka.group_id": "prototide",
            "kafka.common": "{}",
            "kafka.startup_timeout_s": "60",
            "kafka.transaction_deadline_s": "180",
            "topics.train": "train",
            "topics.predictions": "predictions",
            "topics.dead_letters": "dead-letters",
            "topics.journal": "<kafka.group_id>.journal",
            "start_from": "earliest",
            "delivery": "exactly_once",
            "learn": "true",
            "batch.max_rows": "4096",
            "batch.max_wait_ms": "5",
            "commit.interval_ms": "0",
            "limits.record_bytes": str(8 * 2**20),
            "limits.rows": "65536",
            "limits.features": str(2**24),
            "limits.nnz": "2000000",
            "limits.label_bytes": "128",
            "limits.prediction_bytes": str(16 * 2**20),
            "core.device": "cpu",
            "predictions.top_k": "3",
            "predictions.format": "msgpack",
            "checkpoint.uri": "./checkpoints",
            "checkpoint.interval_s": "60",
            "checkpoint.keep": "3",
            "dead_letters.max_ratio": "0.5",
            "dead_letters.window": "1000",
            "drift.window": "1000",
            "drift.detectors": '["adwin", "page_hinkley"]',
            "drift.on_alarm": "none",
            "metrics.top_classes": "20",
            "http.host": "0.0.0.0",
            "http.port": "8000",
            "log.format": "auto",
            "log.level": "info",
            "instance.id": "<host>:<http.port>",
            "instance.takeover_silence_s": "10",
            "shutdown.grace_s": "25",
        }
        == defaults
    )
    assert all(leaf.help for leaf in documented())


def test_core_settings_are_the_classifiers_constructor() -> None:
    constructor = inspect.signature(FastKMeansClassifier).parameters
    assert load(environ={}).core.classifier_parameters() == {name: each.default for name, each in constructor.items()}


def test_limits_are_those_that_decoding_applies() -> None:
    assert load(environ={}).limits.record() == Limits()
    assert load(None, ["limits.record_bytes=1 MiB"], {}).limits.record() == Limits(record_bytes=2**20)


def test_a_stronger_source_wins(tmp_path: Path) -> None:
    file = toml(tmp_path, "learn = false\n[batch]\nmax_rows = 10\nmax_wait_ms = 20\n[kafka]\ngroup_id = 'file'")
    environ = {"PROTOTIDE_BATCH__MAX_ROWS": "11", "PROTOTIDE_KAFKA__GROUP_ID": "environment"}
    settings = load(file, ["kafka.group_id=flag"], environ)
    assert (settings.batch.max_wait_ms, settings.batch.max_rows, settings.kafka.group_id) == (20, 11, "flag")
    assert settings.learn is False
    assert source_of(settings, "batch.max_wait_ms") == str(file)
    assert source_of(settings, "batch.max_rows") == "PROTOTIDE_BATCH__MAX_ROWS"
    assert source_of(settings, "kafka.group_id") == "--set"
    assert source_of(settings, "http.port") == "default"


def test_the_environment_may_name_the_file_and_a_flag_overrules_it(tmp_path: Path) -> None:
    first = toml(tmp_path, "[http]\nport = 1")
    second = tmp_path / "other.toml"
    second.write_text("[http]\nport = 2")
    assert load(environ={"PROTOTIDE_CONFIG": str(first)}).http.port == 1
    assert load(second, environ={"PROTOTIDE_CONFIG": str(first)}).http.port == 2


def test_names_without_a_section_come_from_the_environment_too() -> None:
    settings = load(environ={"PROTOTIDE_LEARN": "false", "PROTOTIDE_START_FROM": "latest"})
    assert (settings.learn, settings.start_from) == (False, "latest")


def test_other_variables_with_the_prefix_are_left_alone() -> None:
    injected = {"PROTOTIDE_PORT": "tcp://10.0.0.1:80", "PROTOTIDE_SERVICE_HOST": "x", "PROTOTIDE_NOBODY__KNOWS": "1"}
    assert load(environ=injected) == load(environ={})


def test_derived_defaults_follow_what_they_derive_from() -> None:
    settings = load(None, ["kafka.group_id=m1", "http.port=9"], {})
    assert settings.topics.journal == "m1.journal"
    assert settings.instance.id.endswith(":9")
    assert load(None, ["topics.journal=j", "instance.id=me"], {}).topics.journal == "j"


def test_librdkafka_properties_pass_through_under_their_dotted_names(tmp_path: Path) -> None:
    file = toml(tmp_path, '[kafka.common]\nsasl.username = "from-file"\n"socket.keepalive.enable" = true')
    environ = {"PROTOTIDE_KAFKA__COMMON": '{"sasl.username": "ann", "client.rack": "a"}'}
    settings = load(file, ["kafka.common.client.rack=b", "kafka.producer.linger.ms=5"], environ)
    assert settings.kafka.properties("common") == {
        "sasl.username": "ann",
        "socket.keepalive.enable": "true",
        "client.rack": "b",
    }
    assert settings.kafka.properties("producer")["linger.ms"] == "5"
    assert "linger.ms" not in settings.kafka.properties("consumer")
    assert source_of(settings, "kafka.common.client.rack") == "--set"


@pytest.mark.parametrize("name", ["sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "ssl.key.password"])
def test_secret_properties_are_masked_but_reach_the_client(name: str) -> None:
    settings = load(None, [f"kafka.common.{name}={SECRET}"], {})
    assert settings.kafka.properties("consumer")[name] == SECRET
    assert SECRET not in shown_everywhere(settings)


def shown_everywhere(settings: Settings) -> str:
    dumps = [settings.model_dump(), settings.model_dump_json(), settings.effective()]
    return f"{settings!r} {settings} {settings.kafka!r} {dumps}"


def test_what_comes_by_file_is_masked_whatever_it_is(tmp_path: Path) -> None:
    servers, common, start = tmp_path / "servers", tmp_path / "common", tmp_path / "uri"
    servers.write_text(f"{SECRET}:9092\n")
    common.write_text(json.dumps({"sasl.username": SECRET}))
    start.write_text(f"s3://{SECRET}")
    environ = {
        "PROTOTIDE_KAFKA__BOOTSTRAP_SERVERS_FILE": str(servers),
        "PROTOTIDE_KAFKA__COMMON_FILE": str(common),
        "PROTOTIDE_CHECKPOINT__URI_FILE": str(start),
    }
    settings = load(environ=environ)
    assert settings.kafka.bootstrap_servers == f"{SECRET}:9092"
    assert settings.kafka.properties("common") == {"sasl.username": SECRET}
    assert settings.checkpoint.uri == f"s3://{SECRET}"
    assert SECRET not in shown_everywhere(settings)
    assert source_of(settings, "kafka.bootstrap_servers") == "PROTOTIDE_KAFKA__BOOTSTRAP_SERVERS_FILE"


def test_the_user_part_of_a_url_is_masked() -> None:
    assert SECRET not in str(load(None, [f"checkpoint.uri=s3://key:{SECRET}@host/b"], {}).effective())


def test_errors_never_echo_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    by_file = {"PROTOTIDE_BATCH__MAX_ROWS_FILE": str(file), "PROTOTIDE_KAFKA__COMMON_FILE": str(file)}
    assert SECRET not in problem(**by_file)
    assert SECRET not in problem(f"kafka.comon.sasl.password={SECRET}", f"sasl.password:{SECRET}")
    assert SECRET not in problem(config_file=toml(tmp_path, f'[kafka.common]\nsasl.password = ["{SECRET}"]'))
    assert SECRET not in problem(config_file=toml(tmp_path, f"[kafka.common]\nsasl.password = {SECRET}"))


def test_unknown_names_suggest_the_nearest(tmp_path: Path) -> None:
    file = toml(tmp_path, "lern = true\n[kafka]\nbootstrap_server = 'x'\n[bach]\nmax_rows = 1")
    told = problem("batch.maxrows=1", config_file=file, PROTOTIDE_HTTP__PROT="1")
    assert f"lern ({file}) is not a setting, did you mean learn?" in told
    assert "did you mean kafka.bootstrap_servers?" in told
    assert f"bach ({file}) is not a setting, did you mean batch?" in told
    assert "batch.maxrows (--set) is not a setting, did you mean batch.max_rows?" in told
    assert "http.prot (PROTOTIDE_HTTP__PROT) is not a setting, did you mean http.port?" in told


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("batch.max_rows=0", "batch.max_rows = 0 (--set): must be greater than or equal to 1"),
        ("batch.max_rows=many", "batch.max_rows = 'many' (--set): must be a valid integer"),
        ("batch.max_rows=true", "batch.max_rows = True (--set): must be a number, not true or false"),
        ("batch.max_wait_ms=NaN", "batch.max_wait_ms = nan (--set): must be"),
        ("start_from=middle", "start_from = 'middle' (--set): must be 'earliest' or 'latest'"),
        ("learn=perhaps", "learn = 'perhaps' (--set): must be a valid boolean"),
        ("core.n_threads=0", "core.n_threads = 0 (--set): must be -1 or at least 1"),
        ("core.update_rows=0", "core.update_rows = 0 (--set): must be 'auto' or must be greater than or equal to 1"),
        ("core.novelty=0", "core.novelty = 0 (--set): must be 'auto' or must be greater than 0"),
        ("core.novelty=0.9", "core.novelty = 0.9 (--set): must be 'auto' or must be less than or equal to 0.5"),
        ("core.novelty=sure", "core.novelty = 'sure' (--set): must be 'auto' or must be a valid number"),
        ("core.device=gpu", "core.device = 'gpu' (--set)"),
        ("limits.record_bytes=huge", "limits.record_bytes = 'huge' (--set): could not parse value and unit"),
        ("kafka.common=3", "kafka.common (--set): must be a table of properties"),
        ("drift.on_alarm=reset", "drift.on_alarm = 'reset' (--set): must be 'none'"),
        ("topics.train=a b", "topics.train = 'a b' (--set): must match"),
    ],
)
def test_wrong_values_say_name_value_source_and_what_is_allowed(override: str, told: str) -> None:
    assert told in problem(override)


def test_several_problems_are_told_at_once_in_one_line(tmp_path: Path) -> None:
    told = problem("batch.max_rows=0", "http.port=70000", "nobody.knows=1", PROTOTIDE_LOG__LEVEL="loud")
    assert all(part in told for part in ("batch.max_rows", "http.port", "nobody.knows", "log.level"))
    assert "\n" not in told


@pytest.mark.parametrize(
    "name",
    [
        "group.id",
        "transactional.id",
        "isolation.level",
        "auto.offset.reset",
        "enable.auto.commit",
        "acks",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "allow.auto.create.topics",
        "request.required.acks",
    ],
)
def test_properties_that_break_the_guarantees_are_refused_by_name(name: str) -> None:
    assert f"kafka.consumer.{name} may not be set here" in problem(f"kafka.consumer.{name}=x")


def test_certificate_checks_stay_on_unless_allowed_by_name() -> None:
    off = "kafka.common.enable.ssl.certificate.verification=false"
    assert "kafka.allow_unverified_certificates" in problem(off)
    settings = load(None, [off, "kafka.allow_unverified_certificates=true"], {})
    assert settings.kafka.properties("common") == {"enable.ssl.certificate.verification": "false"}


def test_predictions_must_fit_their_limit() -> None:
    assert "must be at least limits.rows x (limits.label_bytes + 32) = 10485760" in problem(
        "limits.prediction_bytes=10485759"
    )
    assert load(None, ["limits.prediction_bytes=10485760"], {}).limits.prediction_bytes == 10_485_760


def test_topics_must_differ() -> None:
    assert "must be four different topics" in problem("topics.predictions=train")


def test_prototypes_per_class_become_the_constructors_dict(tmp_path: Path) -> None:
    file = toml(tmp_path, '[core]\nk_list = [["7", 2], [7, 5]]')
    assert load(file, (), {}).core.classifier_parameters()["k_list"] == {"7": 2, 7: 5}
    assert load(None, ['core.k_list=[["a", 1]]'], {}).core.classifier_parameters()["k_list"] == {"a": 1}
    assert load(file, ["core.k_list=null"], {}).core.classifier_parameters()["k_list"] is None
    assert "must name each label once" in problem('core.k_list=[["a", 1], ["a", 2]]')
    assert "core.k_list" in problem("core.k_list=[[true, 1]]")


def test_the_fingerprint_changes_with_what_changes_the_model_and_with_nothing_else() -> None:
    before = load(environ={}).fingerprint()
    for indifferent in (
        "core.device=cuda",
        "core.n_threads=3",
        "core.batch_size=7",
        "batch.max_rows=9",
        "limits.prediction_bytes=99 MB",
    ):
        assert load(None, [indifferent], {}).fingerprint() == before
    for name, value in (("core.k_init", 4), ("core.half_life", 100.0), ("limits.rows", 9)):
        assert load(None, [f"{name}={value}"], {}).fingerprint() == before | {name: value}
    assert json.loads(json.dumps(before)) == before


def test_settings_cannot_be_changed() -> None:
    settings = load(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.batch.max_rows = 1


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "No such file" in problem(config_file=tmp_path / "none.toml")
    assert "is not TOML" in problem(config_file=toml(tmp_path, "a = = 1"))
    assert "write [kafka] and its settings below" in problem(config_file=toml(tmp_path, "kafka = 1"))
    told = problem(PROTOTIDE_HTTP__PORT_FILE=str(tmp_path / "none"))
    assert "http.port (PROTOTIDE_HTTP__PORT_FILE): file" in told
    assert "keep one" in problem(PROTOTIDE_HTTP__PORT_FILE="x", PROTOTIDE_HTTP__PORT="1")


@pytest.mark.parametrize(
    "override",
    [
        "core.random_state=4294967296",
        "core.k_init=1000000000000000000000000000000",
        "core.half_life=0.0001",
        "batch.max_wait_ms=40000",
        "kafka.transaction_deadline_s=1e9",
        "predictions.top_k=1000000",
        f"core.k_list={'[' * 50_000}",
    ],
    ids=lambda override: override[:40],
)
def test_what_would_fail_after_the_start_is_refused_before_it(override: str) -> None:
    with pytest.raises(PersonMustAct, match=override.partition("=")[0].replace(".", r"\.")):
        load(None, [override], {})
