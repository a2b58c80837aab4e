"""The training loop: objective, rows, optimizer, state, events."""
