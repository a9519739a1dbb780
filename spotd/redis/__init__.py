"""TALKS to Redis: addresses, calls and scripts. Decides nothing."""
