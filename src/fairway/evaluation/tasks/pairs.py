"""How alike a model finds two sides of a row: the cosine of the vectors that it gives to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.evaluation.tasks.base import Data, prediction_of, whole
from fairway.sources.mapping import nearest

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Floats
    from fairway.model import Model


def cosines(model: Model, data: Data) -> Floats:
    """Of every row: the cosine of the vector of its own input's column and that of ``[evaluate] pair``'s, shape (rows,).

    Raises
    ------
    InvalidConfig
        If no pair is named, or the model has more than one input.
    InvalidData
        If the table has no such column.
    """
    data.check_rows()
    other = data.settings.pair
    if not other:
        raise InvalidConfig(
            f"{model.manifest.name} gives vectors; name the column of what each row is to be compared with: "
            "pair = 'COLUMN' under [evaluate]"
        )
    if len(model.inputs) > 1:
        raise InvalidConfig(f"{model.manifest.name} has {len(model.inputs)} inputs; only one can be paired")
    if other not in data.table.columns:
        raise InvalidData(
            f"{data.table.origin} has no column {other!r}{nearest(other, data.table.columns)} for the pair; it has: "
            f"{', '.join(data.table.columns)}"
        )
    output = prediction_of(model)
    mirrored = [msgspec.structs.replace(model.inputs[0], columns=(other,))]
    one, two = (whole(model, data, output, specs=specs) for specs in (model.inputs, mirrored))
    one, two = (each.reshape(len(each), -1).astype(np.float64) for each in (one, two))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    found: Floats = np.divide((one * two).sum(axis=1), lengths, out=np.zeros(len(one)), where=lengths > 0)
    return found
