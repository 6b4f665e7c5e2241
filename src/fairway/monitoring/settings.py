"""What is watched, how closely, and what counts as drift."""

from __future__ import annotations

from typing import Annotated

import msgspec


class MonitorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``[monitor]`` of ``fairway.toml``.

    Attributes
    ----------
    window_s : float
        Length of a window in seconds. Windows are aligned to the clock, so that replicas' windows coincide.
    alpha : float
        Chance of one or more false alarms over the whole life of a version, however often it is looked at.
    min_effect : float
        Jensen-Shannon divergence, in bits, below which a change of a distribution is not worth an alarm, however sure.
        0.02 corresponds to a population stability index of about 0.1.
    min_share : float
        Likewise for missing and out-of-range values: the change in their share of the rows.
    min_rows : int
        Rows that one judgment needs. Consecutive windows are merged until there are as many.
    max_features : int
        A tensor with more elements per row is summarized per row by mean, standard deviation, minimum and maximum.
    bins : int
        Bins per numeric feature, at the baseline's quantiles.
    max_categories : int
        Values counted one by one per discrete feature; rarer and new ones are counted together.
    max_queue_mb : float
        Memory for batches waiting to be counted, in 10^6 bytes. Beyond it, features are sampled; traffic never is.
    max_rows_per_s : int
        Rows per second whose features are counted, of each version in each process: at tens of thousands of requests a second
        counting all would take a share of the server's time, and tell no more. Beyond it, features are sampled likewise.
    max_pending_windows : int
        Windows kept while the registry cannot be reached. Beyond it the oldest is dropped, and counted.
    top_features : int
        Features shown in reports' plots and exported as Prometheus series, those that moved most first.
    """

    window_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 60.0
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    min_effect: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    min_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    min_rows: Annotated[int, msgspec.Meta(ge=1)] = 300
    max_features: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    bins: Annotated[int, msgspec.Meta(ge=2, le=256)] = 20
    max_categories: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    max_queue_mb: Annotated[float, msgspec.Meta(gt=0)] = 8.0
    max_rows_per_s: Annotated[int, msgspec.Meta(ge=1)] = 5000
    max_pending_windows: Annotated[int, msgspec.Meta(ge=1)] = 60
    top_features: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
