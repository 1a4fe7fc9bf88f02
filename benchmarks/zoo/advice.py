"""Which measured remedy a sentence of advice speaks of, by the text a user reads.

Read off the text and not attached to it: the package knows nothing of this zoo, and a sentence that
is no longer understood here fails a test.
"""

from __future__ import annotations

import re

#: What `key_of` returns for a sentence that no pattern knows.
UNKNOWN = "?"

#: The first pattern that is found decides; None stands for advice that no rerun can test.
PATTERNS: tuple[tuple[str, str | None], ...] = tuple(
    (pattern, key)
    for key, patterns in (
        # Advice on what surrounds training, not on the training itself.
        (None, (r"SkipStep", r"bf16", r"[Ss]horten the way|shorter sequences", r"[Tt]rain longer")),
        ("adam", (r"^Use Adam\b", r"torch\.optim\.Adam")),
        ("sgd", (r"^Use (plain )?SGD\b", r"torch\.optim\.SGD")),
        ("weight_decay", (r"[Ww]eight[ _]decay",)),
        (
            "optimizer_parameters",
            (r"configure_optimizers", r"(to|in|into) the optimizer", r"optimi[sz]er .*parameters"),
        ),
        ("warmup", (r"[Ww]arm-?\s?up", r"learning rate slowly")),
        ("normalisation", (r"normali[sz]e, or",)),  # named first, and so tried first
        # The action lowers the rate; before the pattern on schedules that end too early.
        ("lower_lr", (r"DecayLR",)),
        ("schedule", (r"[Ss]chedul", r"lr_scheduler", r"decays?\b.*learning rate")),
        (
            "lower_lr",
            (r"([Ll]ower|[Ss]maller|[Rr]educe|[Dd]ivide) (the |its )?learning rate", r"\blower_lr"),
        ),
        (
            "higher_lr",
            (r"([Hh]igher|[Ll]arger|[Rr]aise|[Ii]ncrease) (the |its )?learning rate", r"higher_lr"),
        ),
        ("clip", (r"[Cc]lip",)),
        ("gating", (r"\b[Gg]ates?\b", r"nn\.(LSTM|GRU)")),
        # An identity is an orthogonal matrix.
        ("orthogonal", (r"[Oo]rthogonal", r"\bidentity\b", r"init\.eye_")),
        ("standardise", (r"[Ss]tandardi[sz]e", r"\.mean\(0\)")),
        ("normalisation", (r"[Nn]ormali[sz](e|ation)", r"BatchNorm|LayerNorm|GroupNorm")),
        ("residual", (r"[Rr]esidual", r"x \+ \w+\(x\)")),
        # Before initialisation: another activation comes with weights to match.
        (
            "activation",
            (r"activation", r"instead of (nn\.|\{activation)", r"LeakyReLU|nn\.(GELU|ELU|SiLU)"),
        ),
        ("init", (r"initial (weights|bias)", r"[Ii]nitiali[sz]e", r"nn\.init")),
        ("shallower", (r"[Ff]ewer layers", r"shallower")),
        (
            "bug",
            (
                r"\bbatch(es)?\b",
                r"[Cc]lean the data",
                r"[Ss]ign of the loss",
                r"away from 0|epsilon",
                r"\bmask\b",
                r"exponents small|logsumexp",
                r"[Ff]ind the line|detect_anomaly",
                r"isfinite|isnan",
                r"[Uu]se them in forward",
                r"\.detach\(\)|no_grad",
            ),
        ),
    )
    for pattern in patterns
)

#: Every key there is.
KEYS = frozenset(key for _, key in PATTERNS if key is not None)


def key_of(sentence: str) -> str | None:
    """Return the remedy a sentence speaks of.

    Args:
        sentence: Advice, as it stands in a finding or with its `{names}` still open.

    Returns:
        A key of `Verdict.remedies`, None for advice that cannot be tested by running again, or
        `UNKNOWN`.

    Example:
        >>> key_of("Lower the learning rate: lr=0.01.")
        'lower_lr'
    """
    for pattern, key in PATTERNS:
        if re.search(pattern, sentence):
            return key
    return UNKNOWN
