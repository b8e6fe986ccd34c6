"""Release mechanism, accounting, ledger and ceilings."""
