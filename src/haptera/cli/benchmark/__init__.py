"""What `haptera bench` measures with: keys, workloads, load, histograms, reports and their comparison."""
