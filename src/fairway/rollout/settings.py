"""How a release proceeds: the table ``[release]``."""

from __future__ import annotations

from typing import Annotated

import msgspec


class ReleaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a challenger gets traffic, and how sure we want to be before it wins or goes.

    Attributes
    ----------
    weight : float
        Share of the callers that the challenger gets at first, above 0 and up to 1.
    alpha : float
        How often a release may fail a challenger that keeps every limit, over the whole watch and however often it is
        looked at. A pass is at most as often wrong.
    min_requests : int
        Requests that the challenger answers before it may be promoted. A failing one does not wait for them.
    interval_s : float
        Seconds between two looks of a controller. It changes how soon, never how often, a verdict is wrong.
    max_wait_s : float
        Seconds after which a challenger without a verdict goes back to the champion; 0 waits for ever.
    """

    weight: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.25)] = 0.05
    min_requests: Annotated[int, msgspec.Meta(ge=1)] = 500
    interval_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    max_wait_s: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
