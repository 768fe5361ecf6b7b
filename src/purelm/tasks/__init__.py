"""What is learned: a batch, a loss as (sum, count), and the metrics of the field."""
