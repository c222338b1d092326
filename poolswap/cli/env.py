"""`poolswap env`: versions, devices, and which backends work and why not."""

from __future__ import annotations

from poolswap.cli.output import Output

EXAMPLES = ("poolswap env", "poolswap env --json > env.json")


def env(output: Output) -> None:
    """Show versions, devices, and which backends work and why not."""
    from poolswap.environment import environment

    found = environment()
    output.document(found)
    for problem in found["backend_problems"]:
        output.warn(problem)
    output.table("Versions", ["package", "version"], list(found["versions"].items()))
    output.line("")
    output.table("System", ["what", "value"], list(found["system"].items()))
    output.line("")
    output.table("Devices", ["device", "description"], [(d.name, d.description) for d in found["devices"]])
    output.line("")
    output.table(
        "SoftPool backends",
        ["backend", "device", "works", "used for", "why not"],
        [(b.name, b.device, b.works, ", ".join(b.used_for), b.reason) for b in found["backends"]],
    )
    output.line("")
    output.table(
        "Extras",
        ["extra", "installed", "missing"],
        [(e.name, e.installed, ", ".join(e.missing)) for e in found["extras"]],
    )
