"""The sections of the settings: names, defaults, units, what is allowed, help; nothing about where values come from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, StrictInt, StrictStr, field_validator, model_validator

from prototide.service.kafka_properties import refusal
from prototide.service.settings_types import (
    Amount,
    Count,
    Number,
    Positive,
    Properties,
    Section,
    Share,
    Size,
    Text,
    Topic,
    clear_text,
    shown,
)
from prototide.service.wire import Limits

MIB = 2**20


class Kafka(Section):
    """How to reach the brokers, and who we are to them."""

    bootstrap_servers: Text = Field(default="localhost:9092", description="brokers, host:port separated by commas")
    group_id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")] = Field(
        default="prototide",
        description="identity of one model: consumer group, transactional id, prefix of the journal topic",
    )
    common: Properties = Field(default={}, description="librdkafka properties of every client, passed through")
    consumer: Properties = Field(default={}, description="librdkafka properties of the consumer, passed through")
    producer: Properties = Field(default={}, description="librdkafka properties of the producer, passed through")
    allow_unverified_certificates: bool = Field(
        default=False, description="true: librdkafka properties may switch certificate checks off"
    )
    startup_timeout_s: Positive = Field(
        default=60, description="seconds to wait for brokers at start before exit code 75"
    )
    transaction_deadline_s: Annotated[float, Number, Field(ge=0.1, le=1_000_000)] = Field(
        default=180, description="seconds a step's delivery is retried while brokers are away before exit code 75"
    )

    @model_validator(mode="after")
    def _refuse(self) -> Kafka:
        found = [
            f"kafka.{table}.{name} {why}"
            for table in ("common", "consumer", "producer")
            for name, value in getattr(self, table).items()
            if (why := refusal(name, clear_text(value), unverified_allowed=self.allow_unverified_certificates))
        ]
        if found:
            raise ValueError("; ".join(found))
        return self

    def properties(self, client: Literal["common", "consumer", "producer"]) -> dict[str, str]:
        """The passed-through properties of one kind of client in clear text, those of every client included."""
        return {name: clear_text(value) for name, value in {**self.common, **getattr(self, client)}.items()}


class Topics(Section):
    """Where records come from and go to."""

    train: Topic = Field(default="train", description="topic of sparse batches to predict and learn")
    predictions: Topic = Field(default="predictions", description="topic of predictions, one record per train record")
    dead_letters: Topic = Field(default="dead-letters", description="topic of records that could not be taken")
    journal: Topic = Field(
        default="", description="topic of the steps done", json_schema_extra={"derived": "<kafka.group_id>.journal"}
    )


class Batch(Section):
    """When a step closes."""

    max_rows: Count = Field(default=4096, description="rows that close a step; a larger record is a step of its own")
    max_wait_ms: Annotated[float, Number, Field(ge=0, le=10_000)] = Field(
        default=5, description="age in milliseconds that closes a step"
    )


class Commit(Section):
    """How steps share a transaction."""

    interval_ms: Amount = Field(default=0, description="milliseconds between commits; 0: one for each step")


class RecordLimits(Section):
    """What one record may hold; beyond it: a dead letter."""

    record_bytes: Size = Field(default=ByteSize(8 * MIB), description="bytes of a train record")
    rows: Count = Field(default=65_536, description="rows of a train record")
    features: Annotated[int, Number, Field(ge=1, le=2**31 - 1)] = Field(
        default=2**24, description="columns of a train record"
    )
    nnz: Count = Field(default=2_000_000, description="non-zeros of a train record")
    label_bytes: Count = Field(default=128, description="UTF-8 bytes of a label")
    prediction_bytes: Size = Field(
        default=ByteSize(16 * MIB),
        description="bytes of a prediction record: the topic's max.message.bytes, the producer's message.max.bytes",
    )

    @model_validator(mode="after")
    def _predictions_fit(self) -> RecordLimits:
        needed = self.rows * (self.label_bytes + 32)
        if self.prediction_bytes < needed:
            raise ValueError(
                f"limits.prediction_bytes = {int(self.prediction_bytes)}: must be at least "
                f"limits.rows x (limits.label_bytes + 32) = {needed}"
            )
        return self

    def record(self) -> Limits:
        """The limits that decoding a train record applies."""
        return Limits(
            record_bytes=int(self.record_bytes),
            rows=self.rows,
            features=self.features,
            nnz=self.nnz,
            label_bytes=self.label_bytes,
        )


class Core(Section):
    """The classifier's constructor, and the device it runs on."""

    k_init: Count = Field(default=3, description="most prototypes a class may have")
    k_list: tuple[tuple[StrictInt | StrictStr, Count], ...] | None = Field(
        default=None, description='the same for single classes: [["label", k], [7, k], ...]'
    )
    init_method: Literal["kmeans++", "random"] = Field(default="kmeans++", description="how fit draws seeds")
    distance: Literal["cosine", "euclidean"] = Field(default="cosine", description="metric")
    dtype: Literal["float16", "bfloat16", "float32", "float64"] = Field(
        default="float32", description="format of the vectors that score"
    )
    soft: bool = Field(
        default=True, description="a row moves all near prototypes of its class; false: the nearest only"
    )
    soft_type: Literal["linear", "softmax"] = Field(
        default="linear", description="shape of soft assignment and probabilities"
    )
    temperature: Positive = Field(default=1.0, description="flattens softmax")
    lambda_penalty: Amount = Field(default=0.1, description="strength of corrections against wrong classes; 0: none")
    merge_threshold: Amount | None = Field(
        default=None, description="distance below which prototypes of one class merge"
    )
    relative_merge: bool = Field(default=False, description="merge_threshold is a fraction of the mean distance")
    percentile_threshold: Share | None = Field(
        default=None, description="merge only below this quantile of all distances"
    )
    truncation_threshold: Annotated[float, Number, Field(ge=0, lt=1)] = Field(
        default=1e-3, description="share of the largest entry below which entries are dropped"
    )
    min_weight: Amount = Field(default=1e-3, description="decayed mass below which a prototype is pruned")
    batch_size: Count = Field(default=10_240, description="rows scored at once")
    n_threads: Annotated[int, Number, Field(ge=-1)] = Field(default=-1, description="threads; -1: every core")
    random_state: Annotated[int, Number, Field(ge=0, le=2**32 - 1)] | None = Field(default=42, description="seed")
    max_iters: Count = Field(default=50, description="most epochs of fit")
    tol: Amount = Field(default=1e-4, description="largest shift at which fit stops")
    half_life: Annotated[float, Number, Field(ge=1, allow_inf_nan=False)] | None = Field(
        default=None, description="rows after which a row's influence has halved"
    )
    idf: bool = Field(default=True, description="weigh columns by inverse document frequency learned from the stream")
    update_rows: Literal["auto"] | Count = Field(
        default="auto", description="rows learned against one state of the model"
    )
    novelty: Literal["auto"] | Annotated[float, Number, Field(gt=0, le=0.5)] | None = Field(
        default=None,
        description="share of known classes' rows that may be answered unknown, being unlike the others; auto: 0.01",
    )
    forget_classes: bool = Field(
        default=False, description="a class whose last prototype falls below min_weight is forgotten"
    )
    memory_budget_bytes: Size | None = Field(
        default=None, description="bytes of the model above which what matters least is given up; null: no bound"
    )
    device: Annotated[str, Field(pattern=r"^(cpu|(cuda|xpu)(:\d+)?|mps)$")] = Field(
        default="cpu", description="cpu, cuda, cuda:1, ..."
    )

    @field_validator("n_threads")
    @classmethod
    def _some_thread(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 or at least 1")
        return value

    @field_validator("k_list")
    @classmethod
    def _each_label_once(
        cls, value: tuple[tuple[int | str, int], ...] | None
    ) -> tuple[tuple[int | str, int], ...] | None:
        if value is not None and len({label for label, _ in value}) < len(value):
            raise ValueError("must name each label once")
        return value

    def classifier_parameters(self) -> dict[str, Any]:
        """Keyword arguments for the constructor of ``FastKMeansClassifier``."""
        parameters = {name: shown(getattr(self, name)) for name in type(self).model_fields if name != "device"}
        return parameters | {"k_list": None if self.k_list is None else dict(self.k_list)}

    def fingerprint(self) -> dict[str, Any]:
        """The settings that change what the model learns, as JSON values; two models differ where these do."""
        values = {
            name: shown(getattr(self, name))
            for name in type(self).model_fields
            if name not in {"device", "n_threads", "batch_size"}
        }
        return values | {"k_list": None if self.k_list is None else [list(pair) for pair in self.k_list]}


class Predictions(Section):
    """What a prediction record says."""

    top_k: Annotated[int, Number, Field(ge=0, le=1000)] = Field(
        default=3, description="best classes told for each row; 0: the first only"
    )
    format: Literal["msgpack", "json"] = Field(default="msgpack", description="encoding of prediction records")


class Checkpoint(Section):
    """Where the model survives."""

    uri: Text = Field(default="./checkpoints", description="folder or object-store URL of checkpoints")
    interval_s: Positive = Field(default=60, description="seconds between checkpoints")
    keep: Count = Field(default=3, description="newest checkpoints kept")


class DeadLetters(Section):
    """When bad records are too many."""

    max_ratio: Share = Field(default=0.5, description="share of dead letters above which the service is not ready")
    window: Count = Field(default=1000, description="records over which the share is taken")


class Drift(Section):
    """How drift is watched."""

    window: Count = Field(default=1000, description="rows of the prequential accuracy")
    detectors: tuple[Literal["adwin", "page_hinkley"], ...] = Field(
        default=("adwin", "page_hinkley"), description="detectors on the prequential errors"
    )
    on_alarm: Literal["none"] = Field(default="none", description="what an alarm changes in the model")


class MetricsSettings(Section):
    """Bounds of the metrics."""

    top_classes: Annotated[int, Number, Field(ge=0)] = Field(
        default=20, description="classes with a shift series of their own"
    )


class Http(Section):
    """Where metrics and health are served."""

    host: Text = Field(default="0.0.0.0", description="interface")
    port: Annotated[int, Number, Field(ge=0, le=65_535)] = Field(default=8000, description="port; 0: any free one")


class Log(Section):
    """How the service logs."""

    format: Literal["auto", "json", "text"] = Field(default="auto", description="auto: JSON unless a terminal")
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severity logged")


class Instance(Section):
    """Which process this is."""

    id: Text = Field(default="-", description="who writes", json_schema_extra={"derived": "<host>:<http.port>"})
    takeover_silence_s: Positive = Field(
        default=10, description="seconds another owner must be silent before this one takes over"
    )


class Shutdown(Section):
    """How the service ends."""

    grace_s: Positive = Field(default=25, description="seconds to finish the step and the last checkpoint")
