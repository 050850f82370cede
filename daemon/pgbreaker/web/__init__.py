"""HTTP: the API, health for load balancers, metrics, and a page.

Floor 4; the only place that imports aiohttp.
"""
