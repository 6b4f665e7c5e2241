"""Hidden states of a student, drawn towards those of its teacher."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.optimization.distillation.losses import directions
from fairway.optimization.distillation.modules import answer_of

_MASK = "attention_mask"


class HiddenStates:
    """Compares the outputs of pairs of submodules, through a learned projection where their widths differ.

    Parameters
    ----------
    student, teacher : torch.nn.Module
    pairs : mapping of the student's submodules to the teacher's
    example : mapping of input name to tensor
        What both are asked once, to learn the widths.

    Attributes
    ----------
    projections : torch.nn.ModuleList
        To be trained with the student.

    References
    ----------
    X. Jiao et al., "TinyBERT: distilling BERT for natural language understanding", EMNLP Findings 2020, eq. 8.
    """

    def __init__(self, student: Any, teacher: Any, pairs: Mapping[str, str], example: Mapping[str, Any]) -> None:
        torch: Any = require("torch", extra="torch")
        self._torch, self._teacher, self._pairs = torch, teacher.eval(), dict(pairs)
        self._student_states = _Watched(student, self._pairs, "student")
        self._teacher_states = _Watched(teacher, self._pairs.values(), "teacher")
        with torch.no_grad():
            answer_of(student.eval(), example)
            answer_of(self._teacher, example)
        self.projections = torch.nn.ModuleList(self._projection(*pair) for pair in self._pairs.items())

    def _projection(self, own: str, other: str) -> Any:
        narrow, wide = self._student_states[own].shape[-1], self._teacher_states[other].shape[-1]
        same = narrow == wide
        return self._torch.nn.Identity() if same else self._torch.nn.Linear(narrow, wide, bias=False)

    def distance(self, feed: Mapping[str, Any]) -> Any:
        """The mean over pairs, for what the student was just asked; padding does not count."""
        with self._torch.no_grad():
            answer_of(self._teacher, feed)
        total = 0.0
        for projection, (own, other) in zip(self.projections, self._pairs.items(), strict=True):
            given, wanted = projection(self._student_states[own]), self._teacher_states[other]
            mask = feed.get(_MASK)
            weights = mask if mask is not None and mask.shape == given.shape[:-1] else None
            total += directions(given, wanted, weights)
        return total / len(self._pairs)

    def close(self) -> None:
        """Leave both modules as they were."""
        self._student_states.close()
        self._teacher_states.close()


class _Watched:
    """What submodules of a module gave in its last call."""

    def __init__(self, module: Any, names: Iterable[str], whose: str) -> None:
        known = dict(module.named_modules())
        self._whose = whose
        self._states: dict[str, Any] = {}
        self._hooks: list[Any] = []
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(filter(None, known))}"
                raise InvalidConfig(f"the {whose} has no submodule {name!r}{hint}")
            self._hooks.append(known[name].register_forward_hook(self._keeper(name)))

    def __getitem__(self, name: str) -> Any:
        if name not in self._states:
            raise InvalidConfig(
                f"the {self._whose} does not call its submodule {name!r}; name one that its answer needs"
            )
        return self._states[name]

    def _keeper(self, name: str) -> Any:
        def keep(_module: Any, _given: Any, made: Any) -> None:
            state = made if hasattr(made, "detach") else made[0]
            self._states[name] = state.movedim(1, -1) if state.ndim == 4 else state  # channels of pixels last, too

        return keep

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
