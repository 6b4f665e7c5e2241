"""The Open Inference Protocol's rules as tests that run against any server, REST and gRPC.

From a shell::

    python -m fairway.testing.conformance http://127.0.0.1:8000 --grpc 127.0.0.1:8001

From pytest::

    @pytest.mark.parametrize("case", cases("oip"), ids=str)
    def test_conformance(case, target):
        case.run(target)
"""

from fairway.testing.conformance.case import Case, ConformanceFailure, NotOffered
from fairway.testing.conformance.models import standard_models, write_models
from fairway.testing.conformance.report import Report, Result
from fairway.testing.conformance.runner import cases, run
from fairway.testing.conformance.target import Target

__all__ = [
    "Case",
    "ConformanceFailure",
    "NotOffered",
    "Report",
    "Result",
    "Target",
    "cases",
    "run",
    "standard_models",
    "write_models",
]
