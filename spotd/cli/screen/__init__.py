"""The screen of ``spotd watch`` and ``spotd demo``: prices of many symbols on a terminal.

What is shown is pure and takes ``now`` (monotonic seconds) and ``unix_s`` (wall clock): ``rows``,
``trend``, ``order``, ``columns``, ``header``, ``keys``, ``controls``, ``screen``, ``escapes``.
``terminal`` talks to the terminal, and ``show`` brings both and a client together.
"""
