"""Where events go: what is true now, metrics, traces, the log.

Floor 2. A sink is a callable that takes an event and does not block; sinks do not
know each other, and none can hold up another.
"""
