"""Tables whose runs are finished, without training."""

import pytest
from fabricated import fabricate

from motivation.tables.cells import Archive
from motivation.tables.plan import plan_table
from motivation.tables.spec import read_table


@pytest.fixture
def finished(composed, tmp_path):
    """`finished(name)`: the plan of a table at scale cpu and its finished runs, each with its own accuracy."""
    def make(name, seeds=3):
        plan, archive = plan_table(read_table(name), "cpu", seeds, composed, lambda spec: "stub"), Archive(tmp_path)
        for number, cell in enumerate(plan.cells):
            fabricate(archive, cell, accuracy=64 + number * number % 7 / 3, share=1 / (5 + number % 3))
        return plan, archive

    return make
