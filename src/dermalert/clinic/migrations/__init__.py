"""The schema's history, a file each step upwards, run by Alembic. There is no way down: restore a backup instead."""
