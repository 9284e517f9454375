"""Model families of other libraries: one file a family, which says how configurations and tensors' names read here."""
