"""Models that fail, by family: of each it must be told what ails it, and what heals it."""

from tests.silence.sick import (
    adversarial,
    depth,
    numbers,
    sequences,
    too_long,
    too_short,
    units,
)

FAMILIES = (adversarial, depth, numbers, sequences, too_long, too_short, units)
CASES = {case.name: case for family in FAMILIES for case in family.CASES}
