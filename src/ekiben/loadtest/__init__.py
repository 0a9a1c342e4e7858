"""Load tests that judge: open-loop arrivals, latency from the scheduled time, bounds that allow for dependence."""
