"""How it is learned: the pure step, state, parallelism, optimizers, schedules, checkpoints and the loop."""
