"""What the databases themselves refuse: to change or remove a row, or to move the head back.

They stop accidents and well-meant corrections. Whoever owns the tables can drop them; `verify`
does not depend on them.
"""

from typing import Final

_REFUSAL: Final = "the ledger is append-only: record a new decision instead"

_POSTGRESQL: Final = (
    f"""
    CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
    """,
    """
    CREATE TRIGGER ledger_entries_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
    """,
    """
    CREATE TRIGGER ledger_head_keep BEFORE DELETE OR TRUNCATE ON ledger_head
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
    """,
    """
    CREATE TRIGGER ledger_head_forward BEFORE UPDATE ON ledger_head
    FOR EACH ROW WHEN (NEW.count <> OLD.count + 1) EXECUTE FUNCTION ledger_refuse()
    """,
)

_SQLITE: Final = tuple(
    f"CREATE TRIGGER {name} BEFORE {change} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    for name, change in {
        "ledger_entries_update": "UPDATE ON ledger_entries",
        "ledger_entries_delete": "DELETE ON ledger_entries",
        "ledger_head_delete": "DELETE ON ledger_head",
        "ledger_head_forward": "UPDATE ON ledger_head WHEN NEW.count <> OLD.count + 1",
    }.items()
)

STATEMENTS: Final = {"postgresql": _POSTGRESQL, "sqlite": _SQLITE}
"""Statements that create the triggers, by kind of database."""
