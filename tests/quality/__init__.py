"""Quality checks of the tree as code: size limits, plain English, standard names."""
