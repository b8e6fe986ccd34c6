"""Files written whole, folders bound by digests, locks between processes."""
