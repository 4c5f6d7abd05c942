"""Run folders -> tables, statistics, figures. Nothing here trains."""
