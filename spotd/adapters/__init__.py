"""TALKS. One outside thing per file; decides nothing. Foreign errors are translated here."""
