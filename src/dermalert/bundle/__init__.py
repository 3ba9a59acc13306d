"""The file format of a trained model."""
