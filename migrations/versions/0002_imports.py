"""Imports from a URL."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of imports."""
    op.create_table(
        "import",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("url", sa.Text, nullable=False, comment="may be a secret"),
        sa.Column("name", sa.Text, comment="asked for; else the other server names the file"),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("owner", sa.Uuid, comment="the replica that runs it"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0", comment="how often it was begun"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0", comment="come so far in the latest try"),
        sa.Column("total", sa.BigInteger, comment="bytes announced by the other server"),
        sa.Column("file_id", sa.Uuid, comment="the file at the end; it may be deleted since"),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), comment="the beginning of the latest try"),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_import"),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_import_state")
        ),
    )
    unfinished = sa.text("state IN ('pending', 'running')")
    op.create_index(
        "ix_import_unfinished", "import", ["created_at"], sqlite_where=unfinished, postgresql_where=unfinished
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_import_unfinished", "import")
    op.drop_table("import")
