"""Forms out of the registries, recipes out of the forms, and recipes and their faults in words."""
