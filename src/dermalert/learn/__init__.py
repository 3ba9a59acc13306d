"""From a Manifest to a trained Run."""
