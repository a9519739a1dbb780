"""TALKS to Alpaca: the stock stream and REST. Decides nothing."""
