"""WIRES and DRIVES: one loop per file, and ``daemon.py``, which knows all parts."""
