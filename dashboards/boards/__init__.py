"""The dashboards, as code: ``python -m boards`` in this folder's parent writes the JSON.

One file a dashboard, one function a line of panels. What they share stands beside them:
`queries` says whose series are meant, `panels` how a panel looks, `limits` at which
number an alert fires, `board` how a page is put together.
"""

import warnings
from importlib import import_module

# The SDK would have everybody write the second format, which Grafana 11 does not read. It
# says so when these two are first imported, and here is where that is.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    for name in ("builders.dashboard", "models.dashboardv2beta1"):
        import_module(f"grafana_foundation_sdk.{name}")
