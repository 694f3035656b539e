"""Builds a release: `python -m deploy.release --help`.

| module | contains |
|---|---|
| `source` | the committed tree, its version, and whether it can be released |
| `tree` | the files of a package: an environment from the run-time lock, units, documents |
| `deb`, `rpm` | a package of such a tree |
| `bill` | the bill of materials (CycloneDX) |
"""
