"""A bundle made runnable answers what its graph answers."""

from __future__ import annotations

import numpy as np

from fairway.bundle.format import Bundle, read_bundle
from fairway.model import Model
from tests.conftest import Digits


def test_a_bundle_answers_what_the_original_answers(digits: Digits, digits_bundle: Bundle) -> None:
    with Model(read_bundle(digits_bundle.path)) as model:
        answer = model.infer({"x": digits.x_test})
    np.testing.assert_allclose(answer["probabilities"], digits.model.predict_proba(digits.x_test), atol=1e-5)
