"""The database: SQLAlchemy Core on SQLite (embedded) with DBOS tables in the same file."""
