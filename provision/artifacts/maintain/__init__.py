"""For maintainers: add a version of Kubernetes, or missing checksums, to the catalogue.

`clusterctl artifacts lock` is the only user. Signatures need the optional packages of the extra
`maintainer` in pyproject.toml.
"""
