"""Certificates of a running cluster: seen, renewed, recovered; authorities and keys replaced."""
