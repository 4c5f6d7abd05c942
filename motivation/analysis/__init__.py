"""Run folders -> tables, statistics, figures."""
