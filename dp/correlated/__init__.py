"""Correlated noise on integers: the strategy matrix C', what of it a row needs, and who may take part when.

Belongs here: public arithmetic over C' (`strategy`), the dearest pattern of participations (`patterns`), rows
(`rows`), a party's own rules (`attendance`), a layer's options (`options`). Does not belong here: noise, prices
(`dp.accountants`), the layers that use it (`dp.client`, `dp.distributed`).
Source: Choquette-Choo et al., "(Amplified) Banded Matrix Factorization" (NeurIPS 2023), called BandMF below.
"""
