"""What Prometheus computes and Grafana shows of the mesh, rendered from the metrics' names in the code and from the contracts."""
