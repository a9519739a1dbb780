"""DRIVES. One loop per file, each with an owner and a name: awaits, and asks core what to do."""
