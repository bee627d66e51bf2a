"""What the daemon is told: one TOML file, overridden by the environment. Secrets come from the environment alone.

    [kafka]     the broker, its topics, how to reach it, where to begin
    [store]     the label store, the folder of checkpoints, how often to commit
    [learner]   method, target, windows: see `stream.settings.Settings`
    [mapping]   topics of somebody's own JSON, and what their records are: see `stream.mapping`
    [http]      where /healthz, /readyz, /metrics and /status are served
    [log]       how much is said

Every key can be set by an environment variable: BELATED_KAFKA__SERVERS, BELATED_STORE__URL, ... Unknown keys are errors.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from labelstore.address import EXPECTED
from labelstore.refusals import BelatedError
from stream.environment import BETWEEN, PREFIX, heard, over, variable, whose
from stream.mapping import Topic
from stream.settings import UNITS, Duration, Settings, as_written, sentence
from stream.start import start as begin

SECRETS = ("kafka.password", "kafka.key_password", "store.password")  # never in the file
Name = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]


class ConfigError(BelatedError):
    """The configuration cannot be used; the message names the key, the value and the remedy."""


class Part(BaseModel):
    """What all sections share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Part):
    """The broker, and the topics that are read."""

    servers: Annotated[tuple[str, ...], Field(min_length=1, description="host:port of one or more brokers")] = (
        "127.0.0.1:9092",
    )
    impressions: Annotated[Name, Field(description="topic of impressions")] = "impressions"
    signals: Annotated[Name, Field(description="topic of signals: clicks, carts, ...")] = "signals"
    conversions: Annotated[Name, Field(description="topic of conversions and their adjustments")] = "conversions"
    items: Annotated[Name, Field(description="topic of product metadata")] = "items"
    dead_letters: Annotated[
        Name | None,
        Field(description="topic to which records that cannot be read are forwarded; none: they stay in SQL"),
    ] = None
    protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Field(description="how to speak to the broker")
    ] = "PLAINTEXT"
    cafile: Annotated[
        Path | None, Field(description="PEM file of the authority that signed the broker's certificate")
    ] = None
    certfile: Annotated[
        Path | None, Field(description="PEM file of our own certificate, where the broker asks for one")
    ] = None
    keyfile: Annotated[Path | None, Field(description="PEM file of its key")] = None
    key_password: Annotated[SecretStr | None, Field(description="of the key; only from the environment")] = None
    check_hostname: Annotated[bool, Field(description="whether the certificate must be that of the host")] = True
    mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Field(description="SASL mechanism")] = (
        "PLAIN"
    )
    username: Annotated[str | None, Field(description="SASL user")] = None
    password: Annotated[SecretStr | None, Field(description="SASL password; only from the environment")] = None
    start: Annotated[
        str,
        Field(
            pattern=r"^(earliest|latest|ts=.+|last=.+)$",
            description="where a first start begins: earliest, latest, ts=2024-05-01T12:00, last=6h",
        ),
    ] = "earliest"
    retention: Annotated[
        Literal["fail", "earliest"],
        Field(
            description="where retention has deleted our next record: fail, or go on from the earliest and say what is gone"
        ),
    ] = "fail"
    idle_after: Annotated[
        Duration, Field(gt=0, description="a partition with nothing new for this long holds nothing back")
    ] = 30 * UNITS["s"]
    timeout: Annotated[Duration, Field(gt=0, le=60_000, description="for an answer of the broker at the start")] = (
        10_000
    )

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that are read, each once."""
        return tuple(dict.fromkeys((self.impressions, self.signals, self.conversions, self.items)))

    @model_validator(mode="after")
    def _fits(self) -> "Kafka":
        if self.protocol.startswith("SASL") and not (self.username and self.password):
            raise ValueError(
                f"protocol {self.protocol} needs username, and the password in the environment: {variable('kafka.password')}"
            )
        if self.dead_letters in self.topics:
            raise ValueError(f"dead_letters {self.dead_letters!r} is one of the topics that are read; name another")
        return self

    @field_validator("start")
    @classmethod
    def _begins(cls, start: str) -> str:
        begin(start, now=0)
        return start


class Store(Part):
    """The label store and its checkpoints."""

    url: Annotated[str, Field(description="sqlite:///file.db, or postgresql+psycopg://user@host/database")] = (
        "sqlite:///belated.db"
    )
    password: Annotated[SecretStr | None, Field(description="of the database; only from the environment")] = None
    checkpoints: Annotated[
        Path | None,
        Field(description="folder of checkpoints; by default beside a SQLite file, required for PostgreSQL"),
    ] = None
    every: Annotated[Duration, Field(gt=0, description="between two commits, at most; changes no result")] = (
        30 * UNITS["s"]
    )
    records: Annotated[int, Field(gt=0, description="records between two commits, at most; changes no result")] = (
        200_000
    )

    @model_validator(mode="after")
    def _fits(self) -> "Store":
        try:
            url = make_url(self.url)
        except (ArgumentError, ValueError):
            raise ValueError(f"url: cannot be read; {EXPECTED}") from None
        if url.password or any(key.endswith("password") for key in url.query):
            raise ValueError(f"the url holds a password; put it into the environment: {variable('store.password')}")
        if not self.url.startswith("sqlite") and self.checkpoints is None:
            raise ValueError("checkpoints: name the folder of checkpoints, on a volume that lasts")
        return self

    @property
    def secret_url(self) -> str:
        """The URL with the password, for the database driver alone."""
        url = make_url(self.url)
        password = self.password.get_secret_value() if self.password else None
        return (url.set(password=password) if password else url).render_as_string(hide_password=False)


class Http(Part):
    """Health, metrics and status; loopback unless said otherwise."""

    host: Annotated[str, Field(description="address to bind to; all of them: 0.0.0.0")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0: any that is free")] = 8080


class Log(Part):
    """JSON lines on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="the least that is said")] = "info"


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=BETWEEN,
    )

    kafka: Kafka = Kafka()
    store: Store = Store()
    learner: Settings = Settings()
    mapping: dict[Name, Topic] = {}
    http: Http = Http()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `load` has found: nothing is read behind its back."""
        return (init_settings,)

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.learner.mapping:
            raise ValueError("learner.mapping: write it as [mapping.TOPIC]")
        return self

    @property
    def settings(self) -> Settings:
        """What the learner is told, the mapping with it: all that is part of the result."""
        return self.learner.model_copy(update={"mapping": self.mapping})


def load(file: Path | None, without: tuple[str, ...] = ()) -> Config:
    """The configuration in a file, and above it the environment; ``without`` the sections a caller has no use for.

    Raises:
        ConfigError: no such file, not TOML, an unknown key or section, a value that does not fit, or a secret in the file.
    """
    found, above = told(file)
    try:
        return Config(**{name: part for name, part in found.items() if name not in without})
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError("; ".join(_sentence(one, file, found, above) for one in problems)) from None


def told(file: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What file and environment say, by section and key, and what of it the environment says; raises as `load` does."""
    written: dict[str, Any] = {}
    if file is not None:
        try:
            written = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{file}: there is no such file; `belated config init {file}` writes one") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: not a TOML file that can be read: {error}") from None
    for key in SECRETS:
        section, name = key.split(".")
        if isinstance(written.get(section), dict) and name in written[section]:
            raise ConfigError(
                f"{file}: {key} does not belong into a file; put it into the environment: {variable(key)}"
            )
    try:
        above = heard(Config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return over(above, as_written(Config, written)), above


def _sentence(problem: Any, file: Path | None, told: dict[str, Any], above: dict[str, Any]) -> str:
    unknown = problem["type"] == "extra_forbidden"
    said = "there is no such key; `belated config init` shows all there are" if unknown else sentence(problem)
    return ": ".join(filter(None, (*whose([str(part) for part in problem["loc"]], file, told, above), said)))
