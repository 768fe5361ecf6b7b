"""How it meets others: published checkpoints in and out, and the field's evaluation harness."""
