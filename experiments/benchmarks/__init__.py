"""One file a table of experiments/benchmark.py."""
