"""How systems are compared: a table's spec, its cells, the runner, the statistics, and what is written of them."""
