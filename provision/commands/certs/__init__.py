"""Certificates of a running cluster: list, renew, recover; replace authorities and keys."""
