"""A short storm: the same as `make chaos`, for as long as a test may take."""

import random
import subprocess
import sys


def test_no_invariant_breaks_in_a_short_storm() -> None:
    seed = str(random.randrange(10**6))
    words = ["--minutes", "0.5", "--seed", seed, "--rate", "15", "--replicas", "3", "--pause-s", "2", "--slack-s", "20"]
    said = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words], capture_output=True, text=True, timeout=400, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
