"""Measurements, not tests: how fast training is on this machine, and what monitors and pairing do.

Installed as `motivation.benchmarks`; `motivation bench` runs those of `SPEED`, `motivation bench NAME` any. Each is a
file with a function `measure`, whose keyword arguments are the command's KEY=VALUE and which returns tables; what the
file says of itself stands below them in the report.
"""

# In the order in which they run. `seconds` is the time that each measures for; what it sets up comes on top.
SPEED = ("peak", "training", "memory", "switch", "monitors", "logging", "evaluation", "checkpoints", "augmentation",
         "folders", "processes", "jobs")
# The same on every machine, and minutes to hours long: by name only.
ELSEWHERE = ("noise", "pairing")
