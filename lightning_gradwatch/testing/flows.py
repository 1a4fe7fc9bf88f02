"""What the hooks on modules would have seen, from a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.sample import Bools, Floats, Flow, ModuleFlow, TimeProfile


def make_flow(
    out_grad_norm: Sequence[float] | Mapping[str, float] = (),
    *,
    kinds: Mapping[str, str] | None = None,
    gain: Mapping[str, float] | None = None,
    zero_fraction: Mapping[str, float] | None = None,
    saturated_fraction: Mapping[str, float] | None = None,
    nonfinite_fraction: Mapping[str, float] | None = None,
    active: Mapping[str, Sequence[bool] | Bools] | None = None,
    calls: Mapping[str, int] | None = None,
    in_rms: Mapping[str, float] | None = None,
    out_rms: Mapping[str, float] | None = None,
    vectors: Mapping[str, float] | None = None,
    containers: Iterable[str] = (),
    functions: Iterable[str] = (),
    time_profiles: Mapping[str, Sequence[float]] | None = None,
) -> Flow:
    """Build a `Flow`, to be given to `make_sample(flow=...)`.

    Mappings are by name; what they leave out is NaN, as it is where there is nothing to measure.

    Args:
        out_grad_norm: Norm of the gradient at each module's output, in order of the forward pass.
            A mapping names the modules; a sequence gives `layer0`, `layer1` and so on, the layers
            that `make_sample` gives.
        kinds: Class of a module, `"Linear"` where nothing else is said.
        gain: What the module alone makes of the norm, from its output to its input.
        zero_fraction: Share of exact zeros in the output; from `active` where it is not given.
        saturated_fraction: Share of outputs on the flat parts of a bounded activation.
        nonfinite_fraction: Share of NaN and Inf in the output; 0 where nothing else is said.
        active: Which units of an activation were on for any sample of the step; this sets `units`
            and `never_active` as well.
        calls: How often the module was called; 1 where nothing else is said.
        in_rms: Root mean square of the data that a module was given.
        out_rms: Root mean square of a module's output.
        vectors: Number of vectors that its output consists of.
        containers: Names of modules with child modules, which are no leaves.
        functions: Names of activations applied as functions, like `"relu(fc1)"`.
        time_profiles: Gradient norm at each time step, by recurrent module.

    Raises:
        ValueError: A name is not among the modules of `out_grad_norm`.

    Example:
        >>> flow = make_flow(
        ...     {"fc": 0.1, "relu": 0.2}, kinds={"relu": "ReLU"}, active={"relu": [True, False]}
        ... )
        >>> flow.modules.names, flow.modules.never_active
        (('fc', 'relu'), array([nan,  1.]))
        >>> flow.modules.active_units(1)
        array([ True, False])
    """
    named = (
        dict(out_grad_norm)
        if isinstance(out_grad_norm, Mapping)
        else {f"layer{i}": g for i, g in enumerate(out_grad_norm)}
    )
    names = tuple(named)
    masks = {name: np.asarray(units, np.bool_) for name, units in (active or {}).items()}
    inside, called = tuple(containers), tuple(functions)
    for given in (
        *(kinds, gain, zero_fraction, saturated_fraction, nonfinite_fraction, masks, calls, in_rms),
        *(out_rms, vectors),
        *(dict.fromkeys(inside), dict.fromkeys(called)),
    ):
        for name in given or ():
            if name not in named:
                raise ValueError(
                    f"{name!r} is not among the modules of out_grad_norm: {', '.join(names)}"
                )
    off = {name: float((~mask).sum()) for name, mask in masks.items()}
    zeros = {name: off[name] / max(len(mask), 1) for name, mask in masks.items()}
    modules = ModuleFlow(
        names=names,
        kinds=tuple((kinds or {}).get(name, "Linear") for name in names),
        leaf=_flags(names, inside, inverted=True),
        functional=_flags(names, called),
        calls=np.array([(calls or {}).get(name, 1) for name in names], np.int64),
        out_grad_norm=_column(names, named),
        gain=_column(names, gain),
        zero_fraction=_column(names, zeros | dict(zero_fraction or {})),
        nonfinite_fraction=_column(names, nonfinite_fraction, 0.0),
        saturated_fraction=_column(names, saturated_fraction),
        units=np.array([len(masks[n]) if n in masks else 0 for n in names], np.int64),
        never_active=_column(names, off),
        active=tuple(_packed(masks[n]) if n in masks else None for n in names),
        in_rms=_column(names, in_rms),
        out_rms=_column(names, out_rms),
        vectors=_column(names, vectors, 0.0),
    )
    profiles = tuple(
        TimeProfile(name, np.asarray(norms, np.float64))
        for name, norms in (time_profiles or {}).items()
    )
    return Flow(profiles, modules if names else None)


def _column(
    names: Sequence[str], values: Mapping[str, float] | None, missing: float = float("nan")
) -> Floats:
    return np.array([(values or {}).get(name, missing) for name in names], np.float64)


def _flags(names: Sequence[str], chosen: Sequence[str], inverted: bool = False) -> Bools:
    return np.array([(name in chosen) != inverted for name in names], np.bool_)


def _packed(mask: Bools) -> npt.NDArray[np.uint8]:
    return np.packbits(mask, bitorder="little")
