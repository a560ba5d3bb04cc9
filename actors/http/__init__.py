"""The HTTP edge.

`serve_http` runs an ASGI application on a port: `actors.http.app.build_app` makes the whole edge
over a database, `PathsApp` a few fixed paths.
"""

from actors.http.paths import Answer, Paths, PathsApp
from actors.http.server import HttpPort, HttpStatistics, serve_http
from actors.http.settings import HttpSettings

__all__ = [
    "Answer",
    "HttpPort",
    "HttpSettings",
    "HttpStatistics",
    "Paths",
    "PathsApp",
    "serve_http",
]
