"""The server, as pyproject.toml names it, and the federation that its clients import."""

from digits_app.federation import make_federation
from digits_app.layers import layers

federation = make_federation()
server = federation.server_app(privacy=layers)
