"""Write the tests that the table makes: PYTHONPATH=tests python -m integration.rules DIR"""

import sys
from pathlib import Path

from integration.rules.promtool import write, write_recorded
from integration.rules.table import ROWS

if __name__ == "__main__":
    rules = Path(__file__).parents[3] / "alerts" / "pgbreaker.rules.yml"
    write(ROWS, rules, Path(sys.argv[1]))
    write_recorded(rules, Path(sys.argv[1]))
