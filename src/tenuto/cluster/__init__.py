"""The same work on many machines: the only place that knows Ray (extra `cluster`)."""
