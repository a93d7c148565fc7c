"""The parts of `haptera bench`: keys, workloads, load, histograms, reports and their comparison."""
