"""A PostgreSQL of its own to break, a workload, and a show of what happens.

Floor 5; needs the extra ``demo``.
"""
