"""Which environment variables Kubernetes injects. Must not read the environment itself.

For each Service of a namespace, Kubernetes injects some into each container ("Service: Discovering
services" in its documents). Those of a Service whose name begins with "spotd" look like settings
of spotd.
"""

from __future__ import annotations

import re

_OF_A_SERVICE = re.compile(
    r"SPOTD(_\w+)?(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_PORT = re.compile(r"SPOTD(_\w+)?_PORT")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def is_injected(name: str, value: str | None) -> bool:
    """Return whether a variable is one that Kubernetes injects for a Service.

    ``…_PORT`` may be a setting. Kubernetes gives it an address, such as ``tcp://10.0.0.7:9811``.
    """
    upper = name.upper()
    if _OF_A_SERVICE.fullmatch(upper):
        return True
    return bool(_PORT.fullmatch(upper) and _ADDRESS.match(value or ""))
