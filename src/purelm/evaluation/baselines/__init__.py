"""What a trivial system reaches on the same test split, one module a task."""
