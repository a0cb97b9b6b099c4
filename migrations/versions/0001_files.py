"""Files, their deliveries, replicas and the identity of the storage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "file",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("attempt", sa.Uuid, nullable=False, comment="the key of the bytes in storage"),
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
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when it became visible; before that, when it began",
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("max_downloads", sa.Integer),
        sa.Column("downloads", sa.Integer, nullable=False, server_default="0", comment="whole deliveries"),
        sa.Column("gone_at", sa.DateTime(timezone=True), comment="when it expired or was used up"),
        sa.PrimaryKeyConstraint("id", name="pk_file"),
        sa.UniqueConstraint("attempt", name="uq_file_attempt"),
        sa.UniqueConstraint("retry_key", "retry_part", name="uq_file_retry_key_retry_part"),
        sa.CheckConstraint(
            "state IN ('receiving', 'stored', 'damaged', 'aborting', 'deleting', 'expiring', 'gone')",
            name=op.f("ck_file_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('stored', 'damaged') OR (size IS NOT NULL AND sha256 IS NOT NULL AND crc32 IS NOT NULL)",
            name=op.f("ck_file_complete"),
        ),
    )
    op.create_index("ix_file_created_at_id", "file", ["created_at", "id"])
    unsettled = sa.text("state <> 'stored'")
    op.create_index("ix_file_unsettled", "file", ["state"], sqlite_where=unsettled, postgresql_where=unsettled)
    op.create_table(
        "delivery",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("file_id", sa.Uuid, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False, comment="shared by the pieces of one client"),
        sa.Column("owner", sa.Uuid, nullable=False, comment="the replica that sends it"),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_delivery_file_id", ondelete="CASCADE"),
        comment="running downloads of files that may be downloaded only so often",
    )
    op.create_index("ix_delivery_file_id", "delivery", ["file_id"])
    op.create_table(
        "piece",
        sa.Column("file_id", sa.Uuid, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("stop", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "client", "start", name="pk_piece"),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_piece_file_id", ondelete="CASCADE"),
        comment="what a client has got so far: the bytes [start, stop)",
    )
    op.create_table(
        "replica",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column(
            "lease_until", sa.DateTime(timezone=True), nullable=False, comment="its attempts are alive until then"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_replica"),
    )
    op.create_table(
        "storage",
        sa.Column("only", sa.Boolean, nullable=False, comment="always true, so that there is one row"),
        sa.Column("identity", sa.Uuid, nullable=False, comment="what the marker in the storage must say"),
        sa.PrimaryKeyConstraint("only", name="pk_storage"),
        sa.CheckConstraint('"only"', name=op.f("ck_storage_only")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("storage")
    op.drop_table("replica")
    op.drop_table("piece")
    op.drop_index("ix_delivery_file_id", "delivery")
    op.drop_table("delivery")
    op.drop_index("ix_file_unsettled", "file")
    op.drop_index("ix_file_created_at_id", "file")
    op.drop_table("file")
