"""The two apps of the federation, as pyproject.toml names them."""

from digits_app.federation import layers, make_federation

federation = make_federation()
client = federation.client_app(privacy=layers)
server = federation.server_app(privacy=layers)
