"""Certificates as a table; authorities; kubeconfigs; expiry. Pure: values in, values out."""
