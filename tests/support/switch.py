"""An endpoint that can be made to lead to another server, as a failover does it."""

from pgbreaker.demo.proxy import Proxy


class Switch(Proxy):
    """Forwards a port of 127.0.0.1; new connections go where it leads now, and those
    that are open stay where they are."""

    def lead(self, port: int) -> None:
        """Lead to *port* of 127.0.0.1 from now on."""
        self._to = ("127.0.0.1", port)
