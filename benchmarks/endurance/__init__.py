"""A night's work, made short: kills, damaged inputs, a long run. `python -m benchmarks.endurance`."""
