"""Print NAME==VERSION for the lower bound that setup.cfg declares of each package named on the command line."""

import configparser
import re
import sys
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parents[1] / "setup.cfg")
bounds = dict(re.match(r"([\w.-]+)>=([\w.]+)", line).groups()
              for line in config["options"]["install_requires"].split("\n") if ">=" in line)
# All or nothing: a shell that substitutes the output does not see the exit status.
if missing := set(sys.argv[1:]) - set(bounds):
    sys.exit(f"setup.cfg declares no lower bound of {', '.join(sorted(missing))}")
for name in sys.argv[1:]:
    print(f"{name}=={bounds[name]}")
