"""Models that fail, by family: of each it must be told what ails it, and what heals it."""

from tests.silence.sick import depth, numbers, rates, sequences

FAMILIES = (depth, numbers, rates, sequences)
CASES = {case.name: case for family in FAMILIES for case in family.CASES}
