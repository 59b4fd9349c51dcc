"""Fuzzing and kills: what an adversary, a broken disk or a power cut can do to vlmc, tried over and over.

`python -m tests.fuzz` mutates real material and judges what every verb makes of it; `python -m tests.fuzz.kills` kills verbs
at any moment and compares bytes. What each run must show is in SECURITY.md. The tests here run a small fixed share of both.
"""
