"""Cost of a sweep of a paper's size on accelerators: measurements and predictions."""

from __future__ import annotations

from scripts.accelerators.tables import amount, newest, version

RUNS, CARDS = 4_000, 8
ITERATIONS = 9_000  # of SAC's preset on Pendulum: 10,000 steps minus the warm-up
LANES = RUNS // CARDS
WORK = {"algorithm": "sac", "environment": "Pendulum-v1", "kind": "preset", "seeds": LANES}
BANDWIDTH = {"NVIDIA H200": 4.8, "NVIDIA H100 80GB HBM3": 3.35}  # TB/s, published
V5E_BANDWIDTH = 819e9  # bytes per second of memory per core, published


def section(rows: list[dict]) -> list[str]:
    """The section of the page, empty if its rows are not recorded."""
    chosen = [r for r in newest(rows) if all(r.get(k) == v for k, v in WORK.items())]
    measured = next((r for r in chosen if r["what"] == "curve" and not r.get("flags")), None)
    if not measured or "error" in measured:
        return []
    updates = 4
    seconds = ITERATIONS * measured["us_per_iteration"] / 1e6
    lines = [
        "## Cost of a sweep",
        f"{RUNS:,} runs of SAC's preset on Pendulum ({ITERATIONS:,} iterations of one step"
        f" and {updates} updates of 128 transitions), {LANES} lanes on each of {CARDS} devices."
        " Lanes do not communicate: eight devices take as long as one with an eighth of the runs.",
        f"* **Measured** ({version(measured)}), one {measured['device']} with {LANES} lanes:"
        f" {measured['us_per_iteration'] / 1e3:.2f} ms per iteration, {seconds:.0f} s of training;"
        f" {amount(measured['state_bytes'])} of state and {amount(measured['temp_bytes'])} of"
        f" temporaries; {measured['compile_seconds']:.0f} s to compile the chunk.",
        f"* **Predicted**, eight of these devices: {seconds:.0f} s and compilation.",
    ]
    if measured["device"] == "NVIDIA H200":
        fast, slow = BANDWIDTH.values()
        lines.append(
            f"* **Predicted**, eight H100s: between {seconds:.0f} s, if bound by launches and"
            f" arithmetic, and {seconds * fast / slow:.0f} s, if bound by memory alone (the"
            f" published bandwidths are {fast} and {slow} TB/s)."
        )
    tpu = next((r for r in chosen if r["what"] == "compile" and r["device"] == "v5e"), None)
    if tpu and "error" not in tpu:
        once = ITERATIONS * tpu["bytes_moved"] / V5E_BANDWIDTH
        lines.append(
            f"* **Predicted** (compiled with {version(tpu)}), a v5e-8: between {once:.0f} and"
            f" {once * updates:.0f} s, if bound by the memory traffic that the compiler counts, at"
            " the published 819 GB/s (it counts the body of each loop once; the loop over updates"
            f" has {updates} iterations);"
            f" {amount(tpu['state_bytes'] + tpu['temp_bytes'])} of 16 GB per core. No TPU was"
            " measured."
        )
    return lines
