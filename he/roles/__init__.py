"""The roles of a homomorphic sum, whatever the scheme: clients send ciphertexts, the server adds, somebody opens, some
clients are given the total. A scheme (Paillier, CKKS) gives what `scheme` asks for; its mathematics does not belong
here.
"""
