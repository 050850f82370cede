"""The library: guards around an application's own calls.

Floor 2. Needs nothing from outside the standard library; what knows a driver or a
framework stands in a module of its own at the top of the package, and is imported only
by those who use it.
"""
