"""The rules' unit tests, as a table; promtool runs what is made of it."""
