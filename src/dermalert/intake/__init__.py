"""From untrusted files to an audited Manifest."""
