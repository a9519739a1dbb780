"""TALKS to operators: HTTP, metrics, logs and systemd. Decides nothing."""
