"""The recipes of the package, one YAML file each; `reid_zoo.training.recipes` reads them."""
