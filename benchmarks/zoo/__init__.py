"""Labelled small training runs: what is wrong with them, and what heals them, is measured.

No label comes from a rule that looks at gradients as a detector does: harm, symptoms and remedies
are measured on the whole data set, against a healthy twin, by running again with one factor
changed.
"""
