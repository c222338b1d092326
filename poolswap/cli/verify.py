"""`poolswap verify`: is this checkpoint what it says it is."""

from __future__ import annotations

from typing import Annotated

import typer

from poolswap.cli.options import CheckpointArgument, TrustCodeOption
from poolswap.cli.output import Output

EXAMPLES = ("poolswap verify resnet50-softpool.safetensors",)


def verify(
    checkpoint: CheckpointArgument,
    output: Output,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Relative difference of outputs that still passes.")] = 1e-3,
    trust_code: TrustCodeOption = False,
) -> None:
    """Rebuild a checkpoint's model, and compare its outputs."""
    from poolswap.checkpoint import verify_checkpoint
    from poolswap.errors import CheckError

    found = verify_checkpoint(checkpoint, tolerance=tolerance, trust_code=trust_code)
    output.document(
        {"path": found.path, "ok": found.ok, "checks": found.checks, "digest": found.digest, "manifest": found.manifest}
    )
    model = found.manifest.model
    output.table(
        f"{checkpoint}: {model.reference}, weights {model.weights}",
        ["check", "ok", "detail"],
        [[check.name, check.ok, check.detail] for check in found.checks],
    )
    output.note(
        f"digest {found.digest}: compare it with the one that its maker published. The checks vouch for the file as it "
        "was saved, not for who saved it"
    )
    if not found.ok:
        failed = ", ".join(f"{check.name} ({check.detail})" for check in found.checks if not check.ok)
        raise CheckError(f"{checkpoint} does not verify: {failed}", "make it again from its source")
