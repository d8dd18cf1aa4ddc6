"""What runs inside the cluster, as manifests that one master applies."""
