"""Compile the definitions. Needs ``grpcio-tools``; what it writes needs only ``protobuf``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

DEFINITIONS = Path(__file__).parent
COMPILED = DEFINITIONS / "descriptors.binpb"


def compile_all() -> bytes:
    """A serialized ``FileDescriptorSet`` of every definition here.

    Raises
    ------
    RuntimeError
        If a definition is wrong; the compiler has then said where.
    """
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        names = sorted(path.name for path in DEFINITIONS.glob("*.proto"))
        code = protoc.main(["protoc", f"-I{DEFINITIONS}", f"--descriptor_set_out={made}", "--include_imports", *names])
        if code:
            raise RuntimeError("the definitions cannot be compiled; the compiler's lines above say where")
        return made.read_bytes()


if __name__ == "__main__":
    COMPILED.write_bytes(compile_all())
    sys.stderr.write(f"wrote {COMPILED.name}\n")
