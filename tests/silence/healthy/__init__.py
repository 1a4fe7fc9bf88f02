"""Models that learn, by family: of none of them may anything alarming be said."""

from tests.silence.healthy import (
    control,
    generative,
    language,
    recurrent,
    representation,
    tabular,
    vision,
)

FAMILIES = (control, generative, language, recurrent, representation, tabular, vision)
CASES = {case.__name__: case for family in FAMILIES for case in family.CASES}
