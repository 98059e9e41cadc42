"""The recipes of the package, one YAML file each; `reid_zoo.training.recipe` reads them."""
