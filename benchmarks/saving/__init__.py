"""Runs that die and runs that are well, each trained under every policy that is to save it.

What is dying, what is well and what could be saved at all is measured, not named: see `truth.py`.
"""
