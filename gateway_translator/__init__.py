"""Gateway API and Ingress, translated into listeners, routes, clusters and statuses. Pure."""
