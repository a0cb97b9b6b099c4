"""The tables, and times by the database's own clock.

A file row is the owner of everything its attempt leaves in storage: it is committed before the first byte exists and
removed after the last one is gone. States: `receiving` -> `stored` <-> `damaged` -> `deleting` -> no row; `receiving`
-> `aborting` -> no row when the attempt failed, died or was superseded; `stored` | `damaged` -> `expiring` -> `gone`
when time or downloads are used up. Only `stored` and `damaged` files are visible, and only until they expire.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction


class Moment(sa.TypeDecorator[datetime]):
    """An aware UTC time on both databases; SQLite itself keeps naive text."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite compares times as text, so they go in as naive UTC."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time its zone back where the database has none."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class clock(GenericFunction[datetime]):  # noqa: N801 - SQLAlchemy names functions as SQL does, in lower case
    """The database's time, `seconds` (may be negative) from now."""

    type = Moment()
    inherit_cache = True

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(sa.literal(float(seconds), sa.Float))


@compiles(clock, "postgresql")
def _postgresql_clock(element: clock, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(now() + make_interval(secs => CAST({compiler.process(element.clauses, **kw)} AS double precision)))"


@compiles(clock, "sqlite")
def _sqlite_clock(element: clock, compiler: SQLCompiler, **kw: Any) -> str:
    # The text that SQLAlchemy's SQLite type writes and reads: six digits of a second.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {compiler.process(element.clauses, **kw)} || ' seconds')"


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UNSETTLED = sa.text("state <> 'stored'")

file = sa.Table(
    "file",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("attempt", sa.Uuid, nullable=False, unique=True, comment="the key of the bytes in storage"),
    sa.Column("owner", sa.Uuid, nullable=False, comment="the replica that receives it"),
    sa.Column("state", sa.String(9), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("crc32", sa.BigInteger, comment="for archives"),
    sa.Column("delete_token", sa.LargeBinary, comment="the SHA-256 of the token that the uploader got"),
    sa.Column("retry_key", sa.Text, comment="the request's Idempotency-Key"),
    sa.Column("retry_part", sa.Integer, comment="the file's position within that request"),
    sa.Column("created_at", Moment, nullable=False, comment="when it became visible; before that, when it began"),
    sa.Column("expires_at", Moment),
    sa.Column("max_downloads", sa.Integer),
    sa.Column("downloads", sa.Integer, nullable=False, server_default="0", comment="whole deliveries"),
    sa.Column("gone_at", Moment, comment="when it expired or was used up"),
    sa.UniqueConstraint("retry_key", "retry_part"),
    sa.CheckConstraint(
        "state IN ('receiving', 'stored', 'damaged', 'aborting', 'deleting', 'expiring', 'gone')", name="state"
    ),
    sa.CheckConstraint(
        "state NOT IN ('stored', 'damaged') OR (size IS NOT NULL AND sha256 IS NOT NULL AND crc32 IS NOT NULL)",
        name="complete",
    ),
    sa.Index(None, "created_at", "id"),
    sa.Index("ix_file_unsettled", "state", sqlite_where=UNSETTLED, postgresql_where=UNSETTLED),
)

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("file_id", sa.ForeignKey("file.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False, comment="shared by the pieces of one client"),
    sa.Column("owner", sa.Uuid, nullable=False, comment="the replica that sends it"),
    comment="running downloads of files that may be downloaded only so often",
)

piece = sa.Table(
    "piece",
    metadata,
    sa.Column("file_id", sa.ForeignKey("file.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("client", sa.Text, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stop", sa.BigInteger, nullable=False),
    comment="what a client has got so far: the bytes [start, stop)",
)

replica = sa.Table(
    "replica",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("lease_until", Moment, nullable=False, comment="its attempts are alive until then"),
)

UNFINISHED = sa.text("state IN ('pending', 'running')")

import_ = sa.Table(
    "import",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("url", sa.Text, nullable=False, comment="may be a secret"),
    sa.Column("name", sa.Text, comment="asked for; else the other server names the file"),
    sa.Column("state", sa.String(9), nullable=False),
    sa.Column("owner", sa.Uuid, comment="the replica that runs it"),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0", comment="how often it was begun"),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0", comment="come so far in the latest try"),
    sa.Column("total", sa.BigInteger, comment="bytes announced by the other server"),
    sa.Column("file_id", sa.Uuid, comment="the file at the end; it may be deleted since"),
    sa.Column("error", sa.Text),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("started_at", Moment, comment="the beginning of the latest try"),
    sa.Column("updated_at", Moment),
    sa.CheckConstraint("state IN ('pending', 'running', 'done', 'failed', 'cancelled')", name="state"),
    sa.Index("ix_import_unfinished", "created_at", sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
)

storage = sa.Table(
    "storage",
    metadata,
    sa.Column("only", sa.Boolean, primary_key=True, comment="always true, so that there is one row"),
    sa.Column("identity", sa.Uuid, nullable=False, comment="what the marker in the storage must say"),
    sa.CheckConstraint('"only"', name="only"),
)
