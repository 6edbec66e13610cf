"""Ways to run Shoal: here the local one, beside it the manifests for people who have a platform."""
