"""The screen of ``spotd watch`` and ``spotd demo``, and the terminal that shows it.

What is shown is pure and takes ``now`` (monotonic seconds) and ``unix_s`` (wall clock): ``rows``,
``trend``, ``order``, ``lines``, ``columns``, ``header``, ``keys``, ``controls``, ``screen``,
``styles``, ``escapes``.
``terminal`` talks to the terminal, and ``show`` brings both and a client together. ``text`` shows
any text on the terminal: that of ``spotd status --watch``.
"""
