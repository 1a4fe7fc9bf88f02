"""Where tensors are read: everything here may touch torch, nothing behind it does."""
