"""The decisions, pure: no I/O, no clock, nothing from outside the standard library.

Floor 0. Whatever needs the time takes ``now`` in `Seconds` of a monotonic clock;
whatever changes says so in its return value.
"""
