"""How an answer is judged: predictions, and the metrics of the field, one module a task."""
