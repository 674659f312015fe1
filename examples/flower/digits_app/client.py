"""The clients, as pyproject.toml names them: torch and the data are loaded where somebody trains."""

from digits_app.layers import layers

from fl.flower.named import federation_app

client = federation_app("digits_app.server:federation", layers)
