"""PostgreSQL as we meet it: its errors, its addresses, its connections.

Floor 1. The only place of the daemon that imports asyncpg.
"""
