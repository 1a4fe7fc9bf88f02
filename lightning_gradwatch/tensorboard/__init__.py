"""The GradWatch tab of TensorBoard."""
