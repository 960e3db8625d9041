"""Alembic's environment: runs migrations on the connection that `kit.migrate` holds."""  # noqa: INP001  (Alembic loads it by path)

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
