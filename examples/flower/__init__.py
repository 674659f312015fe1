"""A Flower app (`digits_app`), and a whole deployment of it on one machine. Production needs neither `keys` nor
`loopback` from here: each party makes its own keys and starts its own process.
"""
