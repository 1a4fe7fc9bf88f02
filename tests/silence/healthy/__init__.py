"""Models that learn, by family: of none of them may anything alarming be said."""

from tests.silence.healthy import (
    control,
    finetuning,
    generative,
    language,
    practice,
    recurrent,
    representation,
    science,
    tabular,
    vision,
)

FAMILIES = (
    control,
    finetuning,
    generative,
    language,
    practice,
    recurrent,
    representation,
    science,
    tabular,
    vision,
)
CASES = {case.__name__: case for family in FAMILIES for case in family.CASES}
