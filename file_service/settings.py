"""All settings, read once from the environment. Sizes are bytes, times are seconds."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    FilePath,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "FILE_SERVICE_"
KIB, MIB = 1 << 10, 1 << 20


class BadSettings(Exception):
    """A variable has a value that cannot be used; the message names the variable."""


class Settings(BaseSettings):
    """The settings; each is the variable of its name in capitals after `FILE_SERVICE_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(Path("data"), description="folder of the files and of the embedded database")
    database_url: str = Field(
        "", repr=False, description="postgresql+asyncpg://... or sqlite+aiosqlite:///...; empty: SQLite in DATA_DIR"
    )
    database_pool_size: PositiveInt = Field(5, description="connections to the database, for each worker")
    database_timeout: PositiveFloat = Field(2.0, description="how long the database may hang before the answer is 503")
    storage: Literal["local", "s3"] = Field("local", description="where the bytes go")
    s3_bucket: str = Field("", description="bucket of the files; credentials by the usual AWS_* variables or files")
    s3_endpoint_url: str | None = Field(None, description="address of an S3-compatible store; empty: Amazon's")
    s3_region: str | None = Field(None, description="region of the bucket")
    s3_prefix: str = Field("", description="what the keys of all objects begin with")
    s3_part_size: int = Field(8 * MIB, ge=5 * MIB, description="smallest part of a multipart upload")
    s3_equal_parts: bool = Field(False, description="parts of one size only, as Cloudflare's R2 wants them")
    s3_memory: int = Field(256 * MIB, ge=10 * MIB, description="bytes that parts on their way may take, in each worker")
    s3_storage_class: str | None = Field(None, description="storage class of new objects")
    s3_path_style: bool | None = Field(
        None, description="bucket in the path instead of the host; empty: if not Amazon's"
    )
    s3_ca_file: FilePath | None = Field(None, description="certificates to trust in place of the system's")
    s3_redirect: bool = Field(False, description="true answers a GET by a redirect to the store")
    s3_public_url: str | None = Field(
        None, description="address of the store in these redirects, if clients know it by another one"
    )
    chunk_size: int = Field(256 * KIB, ge=4 * KIB, le=64 * MIB, description="bytes read from storage and sent at once")
    block_size: int = Field(512 * KIB, ge=4 * KIB, le=64 * MIB, description="bytes received before they are written")
    download_framing: Literal["chunked", "length"] = Field(
        "chunked", description="framing of whole downloads on HTTP/1.1: chunked, or length for a Content-Length"
    )
    max_file_size: PositiveInt | None = Field(None, description="largest file taken; empty: no limit")
    durable: bool = Field(True, description="false leaves out every fsync: fast, and lost in a power cut")
    body_idle_timeout: PositiveFloat = Field(60.0, description="an upload without progress for so long ends with 408")
    send_idle_timeout: PositiveFloat = Field(
        60.0, description="a download whose reader takes nothing for so long is cut"
    )
    drain_timeout: NonNegativeFloat = Field(30.0, description="how long running requests may go on after SIGTERM")
    sweep_interval: PositiveFloat = Field(60.0, description="between two sweeps for what failed attempts left")
    lease_time: PositiveFloat = Field(30.0, description="a replica silent for twice this long is taken for dead")
    default_expiry: PositiveFloat | None = Field(
        None, description="lifetime of a file that asks for none; empty: for ever"
    )
    max_expiry: PositiveFloat | None = Field(None, description="longest lifetime that may be asked for; empty: any")
    gone_retention: NonNegativeFloat = Field(604_800.0, description="how long an expired file answers 410 before 404")
    import_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="networks that imports may reach although they are not public, separated by commas"
    )
    workers: PositiveInt = Field(1, description="processes that share the port")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged, on stderr")

    @field_validator(
        *("max_file_size", "default_expiry", "max_expiry", "s3_endpoint_url", "s3_region"),
        *("s3_storage_class", "s3_path_style", "s3_ca_file", "s3_public_url"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("max_expiry")
    @classmethod
    def _not_below_the_default(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and value < (info.data.get("default_expiry") or 0):
            raise ValueError(f"must not be less than {PREFIX}DEFAULT_EXPIRY")
        return value

    @field_validator("import_allow", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else map(str, value)
        return tuple(ip_network(part.strip()) for part in parts if part.strip())

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            driver = make_url(value).drivername if value else "sqlite+aiosqlite"
        except (ArgumentError, ValueError):  # whose message may show a part of the password
            driver = "nothing readable"
        if driver not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
            raise ValueError(f"must begin with postgresql+asyncpg:// or sqlite+aiosqlite://, not {driver}")
        return value

    @field_validator("s3_memory")
    @classmethod
    def _two_parts(cls, value: int, info: ValidationInfo) -> int:
        if value < 2 * info.data.get("s3_part_size", 0):
            raise ValueError("must hold two parts of FILE_SERVICE_S3_PART_SIZE")
        return value

    @field_validator("s3_bucket")
    @classmethod
    def _named(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("storage") == "s3" and not value:
            raise ValueError("must name the bucket when FILE_SERVICE_STORAGE is s3")
        return value

    @property
    def database(self) -> str:
        """The address of the database, the embedded one by default."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir}/file_service.db"


def from_environment(**overrides: Any) -> Settings:
    """The settings; raises `BadSettings` with the names of the variables that cannot be used."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = (f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise BadSettings("; ".join(problems)) from None


def table() -> list[tuple[str, str, str]]:
    """Name of the variable, default, meaning: for `--help` and for the test that keeps the README equal."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else str(field.default)
        shown = default.lower() if field.annotation is bool else default
        rows.append((PREFIX + name.upper(), shown, str(field.description)))
    return rows
